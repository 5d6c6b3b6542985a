"""Runs one query over a lake and writes its rows as a table, CSV, JSON or Parquet."""

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TextIO
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from pipeline.errors import CallfoldError, UserError
from pipeline.query.tables import ROW_LIMIT, print_table
from pipeline.query.values import rows_of
from pipeline.query.views import again, connect, one_line
from pipeline.storage.place import is_remote

Format = Literal["table", "csv", "json", "parquet"]
FORMATS: Final[tuple[Format, ...]] = ("table", "csv", "json", "parquet")
_BATCH_ROWS: Final = 10_000


def run_query(lake: Path, sql: str, format: Format, out: BinaryIO | Path) -> None:  # noqa: A002
    """Runs `sql` with all views over `lake` and writes the rows to the stream or the file `out`.

    A file appears whole or not at all. Raises UserError for SQL that does not run, and where there is no lake.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}: one of {', '.join(FORMATS)}")
    with closing(connect(lake)) as connection, _translated(lake):
        reader = _reader(connection, sql)
        if isinstance(out, Path):
            with _whole(out) as part, part.open("wb") as stream:
                _write(stream, format, reader)
        else:
            _write(out, format, reader)


def _write(stream: BinaryIO, format: Format, reader: pa.RecordBatchReader) -> None:  # noqa: A002
    if format == "parquet":
        _write_parquet(stream, reader)
        return
    text = TextIOWrapper(stream, encoding="utf-8", newline="")
    try:
        _WRITERS[format](text, reader)
    finally:
        text.detach()  # flushes, and leaves the stream open: it belongs to the caller


def _reader(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    relation = again(lambda: connection.sql(sql))
    if relation is None:
        raise UserError("the SQL holds no statement that returns rows")
    return relation.to_arrow_reader(_BATCH_ROWS)


@contextmanager
def _translated(lake: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.IOException as error:
        raise CallfoldError(f"cannot read: {one_line(error)}") from error
    except duckdb.Error as error:
        # Views are bound to declared columns, so a broken file shows only when a query comes to it.
        if _names_a_file_of(lake, error):
            raise CallfoldError(f"the lake at {lake} cannot be read: {one_line(error)}") from error
        raise UserError(f"SQL: {one_line(error)}") from error
    except pa.ArrowInvalid as error:
        raise CallfoldError(f"the result cannot be written: {' '.join(str(error).split())}") from error


def _names_a_file_of(lake: Path, error: duckdb.Error) -> bool:
    folder = lake if is_remote(lake) else lake.expanduser().absolute()
    return re.search(re.escape(f"{folder}/") + r"[^'\"]*\.parquet", str(error)) is not None


def _names(reader: pa.RecordBatchReader) -> list[str]:
    """The column names, a repeated one numbered: an object cannot hold one name twice."""
    names: list[str] = []
    for name in reader.schema.names:
        number, unique = 1, name
        while unique in names:
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return names


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from rows_of(batch)


def _write_json(stream: TextIO, reader: pa.RecordBatchReader) -> None:
    names = _names(reader)
    separator = "["
    for row in _rows(reader):
        stream.write(separator + json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False))
        separator = ",\n "
    stream.write("[]\n" if separator == "[" else "]\n")


def _write_csv(stream: TextIO, reader: pa.RecordBatchReader) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_names(reader))
    for row in _rows(reader):
        writer.writerow([_csv_value(value) for value in row])


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _write_table(stream: TextIO, reader: pa.RecordBatchReader) -> None:
    names, is_cut = _names(reader), False
    rows: list[tuple[Any, ...]] = []
    for row in _rows(reader):
        if len(rows) == ROW_LIMIT:
            is_cut = True
            break
        rows.append(row)
    print_table(Console(file=stream, highlight=False), names, rows)
    if is_cut:
        sys.stderr.write(f"the first {ROW_LIMIT:,} rows; --format csv, json or parquet gives all of them\n")


def _write_parquet(stream: BinaryIO, reader: pa.RecordBatchReader) -> None:
    schema = pa.schema(
        field.with_name(name) for field, name in zip(reader.schema, _names(reader), strict=True)
    )
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


_WRITERS: Final[dict[str, Callable[[TextIO, pa.RecordBatchReader], None]]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
}


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A path beside `out` that takes its place once all is written."""
    part = out.with_name(f".{out.name}.{uuid4().hex}.part")
    try:
        yield part
        os.replace(part, out)  # noqa: PTH105  the plain call says what happens
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)

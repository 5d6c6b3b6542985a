"""The bytes of a file are what its readers are quickest with, and say the same to all of them."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from one_engine import engine

from pipeline.lake.schemas import CALL_EVENTS, CALLS, sealed_schema
from pipeline.open_lake import open_lake

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSTANTS = [None, EPOCH, EPOCH - timedelta(days=40_000), EPOCH + timedelta(days=80_000, microseconds=1), None]
LENGTHS = [None, 0.0, -0.5, 1e300, math.inf]


def column_of(file: Path, name: str) -> Any:
    group = pq.read_metadata(file).row_group(0)
    return next(
        column
        for number in range(group.num_columns)
        if (column := group.column(number)).path_in_schema == name
    )


@pytest.mark.parametrize("schema", [CALLS, sealed_schema(CALLS), sealed_schema(CALL_EVENTS)])
def test_every_reader_finds_what_was_written(schema: pa.Schema, tmp_path: Path) -> None:
    instants = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    lengths = [field.name for field in schema if pa.types.is_floating(field.type)]
    rows = [
        dict.fromkeys(instants, instant) | dict.fromkeys(lengths, length)
        for instant, length in zip(INSTANTS, LENGTHS, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema)
    file = tmp_path / "lake" / "one.parquet"
    open_lake(tmp_path / "lake").write(table, file)
    assert pq.read_table(file) == table
    names = [*instants, *lengths]
    found = engine().sql(f"select {', '.join(names)} from '{file}'").to_arrow_table()
    assert [found[name].cast(schema.field(name).type).to_pylist() for name in names] == [
        table[name].to_pylist() for name in names
    ]
    assert pl.read_parquet(file, columns=names).to_dicts() == [
        {name: row[name] for name in names} for row in rows
    ]


def test_the_measures_of_sealed_calls_are_written_to_be_read(tmp_path: Path) -> None:
    schema = sealed_schema(CALLS)
    row = {
        "call_key": "recho:1",
        "started_at": EPOCH,
        "talk_seconds": 1.5,
        "ring_seconds": 2.0,
        "key_hash": 7,
    }
    sealed, hot = tmp_path / "lake" / "sealed.parquet", tmp_path / "lake" / "hot.parquet"
    lake = open_lake(tmp_path / "lake")
    lake.write(pa.Table.from_pylist([row], schema), sealed)
    lake.write(pa.Table.from_pylist([row], CALLS), hot)
    start, talk, ring = (column_of(sealed, name) for name in ("started_at", "talk_seconds", "ring_seconds"))
    assert (start.compression, talk.compression, ring.compression) == ("UNCOMPRESSED", "LZ4", "LZ4")
    assert "DELTA_BINARY_PACKED" in start.encodings
    assert (talk.has_dictionary_page, ring.has_dictionary_page) == (False, True)
    assert column_of(sealed, "call_key").compression == "ZSTD"
    # A flush is written by the stream, which has no time to spare.
    assert {column_of(hot, name).compression for name in ("started_at", "talk_seconds", "call_key")} == {
        "ZSTD"
    }

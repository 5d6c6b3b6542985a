"""The lake's folders and the one way that a file gets into them: `storage` puts it there whole or not at all."""

import contextlib
import errno
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DestinationUnavailable
from pipeline.lake.encoding import ROW_GROUP_ROWS, writer_options
from pipeline.lake.schemas import MANIFEST, SCHEMAS, sealed_schema
from pipeline.storage.engine import in_one_line
from pipeline.storage.store import parquet_source, store_of

SEALED_ONLY: Final = ("call_revisions",)
"""Datasets that only compaction writes; their newest rows are the hot rows of `calls`."""
SCHEMA_FILE: Final = "0-schema.parquet"
"""A file without rows in every folder: a glob that matches nothing is an error in DuckDB."""

ROW_GROUP_BYTES: Final = 64 << 20
"""A row group that is written batch by batch also ends here: 122,880 webhooks may be 100 GB."""


class _NothingToWriteError(Exception):
    """A stream of rows that had none."""


class Lake:
    """A lake. Readers never see half a file: names appear whole, and stand for the same bytes for ever."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = store_of(root)

    def hot(self, dataset: str) -> Path:
        """Small files of each flush."""
        return self.root / dataset / "hot"

    def sealed(self, dataset: str) -> Path:
        """Sorted files, of which one a date counts (`lake/sealed.py`)."""
        return self.root / dataset / "sealed"

    def manifest(self, dataset: str) -> Path:
        """Which of the sealed files count."""
        return self.root / dataset / "manifest"

    def scratch(self) -> Path:
        """A folder of this machine with room for what is put aside while files are merged; `sweep` tidies it."""
        return self.store.scratch()

    def exists(self) -> bool:
        """Whether a lake has been laid out here. What of it was lost, whoever writes lays out anew."""
        try:
            return any((self.hot(dataset) / SCHEMA_FILE).exists() for dataset in ("calls", "call_events"))
        except OSError as error:
            raise unreadable(self.root, error) from error

    def lay_out(self) -> None:
        """Creates what is missing of the folders. Idempotent."""
        try:
            self.store.lay_out()
            for dataset, schema in SCHEMAS.items():
                self._lay_out(self.hot(dataset), schema)
            for dataset, schema in (SCHEMAS | dict.fromkeys(SEALED_ONLY, SCHEMAS["calls"])).items():
                self._lay_out(self.sealed(dataset), sealed_schema(schema))
                self._lay_out(self.manifest(dataset), MANIFEST)
        except OSError as error:
            raise unavailable(self.root, error) from error

    def _lay_out(self, folder: Path, schema: pa.Schema) -> None:
        self.store.lay_out(folder)
        file = folder / SCHEMA_FILE
        if file.exists():
            found = self.footer(file).schema.to_arrow_schema()
            if (found.names, found.metadata) == (schema.names, schema.metadata):
                return
        self.write(schema.empty_table(), file)

    def listed(self, folder: Path, names: str = "*.parquet") -> list[Path]:
        """The files of a folder, in order; none where there is no such folder. Raises DestinationUnavailable."""
        with self._readable():
            return sorted(folder.glob(names))

    def read(self, path: Path, columns: list[str] | None = None) -> pa.Table:
        """All rows of one file, of which only these columns where they are named.

        FileNotFoundError if it is gone, else DestinationUnavailable.
        """
        with self._readable(), parquet_source(path) as source:
            return pq.ParquetFile(source).read(columns)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreadable(self.root, error) from error

    def footer(self, path: Path) -> pq.FileMetaData:
        """What one file says of itself: its columns, its number of rows."""
        with self._readable(), parquet_source(path) as source:
            try:
                return pq.read_metadata(source)
            except pa.ArrowInvalid as error:
                raise pa.ArrowInvalid(f"{path}: {error}") from error

    def write(
        self,
        table: pa.Table,
        target: Path,
        check: Callable[[], None] = lambda: None,
        *,
        is_new: bool = False,
    ) -> None:
        """Puts the table at `target`, whole or not at all, and on the disk before it returns.

        `check` is called at the last moment before the file appears; if it raises, none does. With `is_new` the
        target must not be there yet, whoever else writes it at this moment: FileExistsError if it is.
        Raises DestinationUnavailable when the lake cannot take it.
        """

        def fill(where: Any) -> None:
            pq.write_table(table, where, row_group_size=ROW_GROUP_ROWS, **writer_options(table.schema))

        self._put(fill, target, check, is_new=is_new)

    def write_batches(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], target: Path) -> int:
        """Puts the rows of all batches at `target`, as `write` does, of which it holds one row group at a time.

        Returns how many rows there were; a file without any does not appear.
        """
        written = 0

        def fill(where: Any) -> None:
            nonlocal written
            with pq.ParquetWriter(where, schema, **writer_options(schema)) as writer:
                for group in _row_groups(schema, batches):
                    writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                    written += len(group)

        def check() -> None:
            if not written:
                raise _NothingToWriteError

        with contextlib.suppress(_NothingToWriteError):
            self._put(fill, target, check)
        return written

    def _put(
        self, fill: Callable[[Any], None], target: Path, check: Callable[[], None], *, is_new: bool = False
    ) -> None:
        try:
            self.store.put(fill, target, check, is_new=is_new)
        except OSError as error:
            if is_new and isinstance(error, FileExistsError):
                raise
            raise unavailable(self.root, error) from error

    def write_text(self, text: str, target: Path) -> None:
        """Puts a text file at `target`, whole or not at all; leaves it alone if it says the same already."""
        try:
            if target.exists() and target.read_text(encoding="utf-8") == text:
                return
            self.store.put_text(text, target)
        except OSError as error:
            raise unavailable(self.root, error) from error

    def age_seconds(self, path: Path) -> float:
        """How long ago the file was written, by the storage's clock and not by this machine's."""
        return self.store.age_seconds(path)

    def sweep(self, older_than_seconds: float) -> None:
        """Removes what crashed writers left behind."""
        self.store.sweep(older_than_seconds)


def unavailable(root: Path, error: OSError) -> DestinationUnavailable:
    """The error as something that may pass: nothing is committed, and it is tried again."""
    reason = {errno.ENOSPC: "the disk is full", errno.EACCES: "permission denied", errno.EROFS: "read-only"}
    told = reason.get(error.errno or 0) or error.strerror or str(error)
    return DestinationUnavailable(f"cannot write the lake at {root}: {told}")


def unreadable(root: Path, error: Exception) -> DestinationUnavailable:
    """The engine's error as something that may pass, in one line."""
    return DestinationUnavailable(f"cannot read the lake at {root}: {in_one_line(error)}")


def quoted(path: Path, names: str = "") -> str:
    """A path, with `names` a pattern below it, as a text in SQL; the path's own signs are no pattern."""
    literal = re.sub(r"[\[*?]", lambda sign: f"[{sign[0]}]", str(path))
    return "'" + (f"{literal}/{names}" if names else literal).replace("'", "''") + "'"


def _row_groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        for start in range(0, len(batch), ROW_GROUP_ROWS):
            part = batch.slice(start, ROW_GROUP_ROWS)
            if waiting and (rows + len(part) > ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES):
                yield pa.Table.from_batches(waiting, schema)
                waiting, rows, size = [], 0, 0
            waiting.append(part)
            rows, size = rows + len(part), size + part.nbytes
    if waiting:
        yield pa.Table.from_batches(waiting, schema)

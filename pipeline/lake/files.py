"""The lake's folders and the one way that a file gets into them: written elsewhere, made durable, renamed."""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DestinationUnavailable
from pipeline.lake.schemas import MANIFEST, SCHEMAS, sealed_schema

SEALED_ONLY: Final = ("call_revisions",)
"""Datasets that only compaction writes; their newest rows are the hot rows of `calls`."""
SCHEMA_FILE: Final = "0-schema.parquet"
"""A file without rows in every folder: a glob that matches nothing is an error in DuckDB."""


class Lake:
    """A lake folder. Readers never see half a file: names appear by rename, and stand for the same bytes for ever."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "_tmp"

    def hot(self, dataset: str) -> Path:
        """Small files of each flush."""
        return self.root / dataset / "hot"

    def sealed(self, dataset: str) -> Path:
        """Sorted files, of which one a date counts (`lake/sealed.py`)."""
        return self.root / dataset / "sealed"

    def manifest(self, dataset: str) -> Path:
        """Which of the sealed files count."""
        return self.root / dataset / "manifest"

    def exists(self) -> bool:
        """Whether a lake has been laid out here."""
        return (self.root / "calls" / "hot" / SCHEMA_FILE).exists()

    def lay_out(self) -> None:
        """Creates what is missing of the folders. Idempotent."""
        try:
            self._tmp.mkdir(parents=True, exist_ok=True)
            for dataset, schema in SCHEMAS.items():
                self._lay_out(self.hot(dataset), schema)
            for dataset, schema in (SCHEMAS | dict.fromkeys(SEALED_ONLY, SCHEMAS["calls"])).items():
                self._lay_out(self.sealed(dataset), sealed_schema(schema))
                self._lay_out(self.manifest(dataset), MANIFEST)
        except OSError as error:
            raise unavailable(self.root, error) from error

    def _lay_out(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SCHEMA_FILE).exists() or pq.read_schema(folder / SCHEMA_FILE).names != schema.names:
            self.write(schema.empty_table(), folder / SCHEMA_FILE)

    def write(self, table: pa.Table, target: Path, check: Callable[[], None] = lambda: None) -> None:
        """Puts the table at `target`, whole or not at all, and on the disk before it returns.

        `check` is called at the last moment before the file appears; if it raises, none does.
        Raises DestinationUnavailable when the lake cannot take it.
        """
        temporary = self._tmp / f"{uuid.uuid4().hex}.parquet"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                table,
                temporary,
                compression="zstd",
                compression_level=1,
                row_group_size=122_880,
                use_dictionary=_with_repeats(table.schema),
            )
            _sync(temporary)
            check()
            temporary.replace(target)
            _sync(target.parent)
        except OSError as error:
            raise unavailable(self.root, error) from error
        finally:
            _discard(temporary)

    def write_text(self, text: str, target: Path) -> None:
        """Puts a text file at `target`, whole or not at all; leaves it alone if it says the same already."""
        temporary = self._tmp / f"{uuid.uuid4().hex}.text"
        try:
            if target.exists() and target.read_text(encoding="utf-8") == text:
                return
            temporary.write_text(text, encoding="utf-8")
            _sync(temporary)
            temporary.replace(target)
            _sync(target.parent)
        except OSError as error:
            raise unavailable(self.root, error) from error
        finally:
            _discard(temporary)

    def age_seconds(self, path: Path) -> float:
        """How long ago the file was written, by the file system's clock and not by this machine's."""
        probe = self._tmp / f"{uuid.uuid4().hex}.now"
        try:
            probe.touch()
            return probe.stat().st_mtime - path.stat().st_mtime
        finally:
            _discard(probe)

    def sweep(self, older_than_seconds: float) -> None:
        """Removes what crashed writers left behind."""
        for left in self._tmp.iterdir():
            try:
                if self.age_seconds(left) > older_than_seconds:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            except FileNotFoundError:
                continue


def unavailable(root: Path, error: OSError) -> DestinationUnavailable:
    """The error as something that may pass: nothing is committed, and it is tried again."""
    reason = {errno.ENOSPC: "the disk is full", errno.EACCES: "permission denied", errno.EROFS: "read-only"}
    told = reason.get(error.errno or 0) or error.strerror or str(error)
    return DestinationUnavailable(f"cannot write the lake at {root}: {told}")


def unreadable(root: Path, error: Exception) -> DestinationUnavailable:
    """The engine's error as something that may pass, in one line."""
    return DestinationUnavailable(f"cannot read the lake at {root}: {' '.join(str(error).split())}")


def quoted(path: Path, names: str = "") -> str:
    """A path, with `names` a pattern below it, as a text in SQL; the path's own signs are no pattern."""
    literal = re.sub(r"[\[*?]", lambda sign: f"[{sign[0]}]", str(path))
    return "'" + (f"{literal}/{names}" if names else literal).replace("'", "''") + "'"


def _with_repeats(schema: pa.Schema) -> list[str]:
    # A dictionary of what hardly repeats is built for nothing: without, a flush's file of events takes an eighth
    # less of time to write, and of room.
    return [f.name for f in schema if not pa.types.is_timestamp(f.type) and f.name != "event_id"]


def _discard(temporary: Path) -> None:
    # What is left is swept later; the reason why the write failed must not be hidden by this.
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

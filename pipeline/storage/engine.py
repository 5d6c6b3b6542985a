"""The one place that makes DuckDB connections over a lake."""

import os
import re
from pathlib import Path

import duckdb

from pipeline.storage.place import is_remote


def lake_connection(root: Path, **config: str | int) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that can read the files below `root`; the caller closes it. `config` is DuckDB's."""
    connection = duckdb.connect(config={**config})
    if is_remote(root):
        from pipeline.storage.s3 import file_system
        from pipeline.storage.s3_reading import ReadingFileSystem

        connection.register_filesystem(file_system(ReadingFileSystem, os.getpid()))
    return connection


def in_one_line(error: Exception) -> str:
    """What DuckDB says is wrong, without the excerpt of the statement. Of a missing file it begins "No such file"."""
    text = str(error)
    if text.startswith("Traceback"):
        # From a file system in Python: what counts stands at the end.
        text = text.rstrip().splitlines()[-1]
        text = re.sub(r"^FileNotFoundError: ", "No such file: ", text)
        text = re.sub(r"^\w+: (\[Errno \d+\] )?", "", text)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return " ".join(text.split("\nLINE ", maxsplit=1)[0].split())


def is_gone(error: duckdb.Error) -> bool:
    """Whether a file was missing that had just been listed."""
    return isinstance(error, duckdb.IOException) or in_one_line(error).startswith("No such file")

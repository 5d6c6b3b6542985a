"""Listing and opening files to look into them, as cheaply as DuckDB is let."""

import os
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.storage.place import is_remote


def listed(folder: Path) -> list[Path]:
    """The Parquet files of a folder, in order; none where there is no such folder. Raises OSError."""
    if not is_remote(folder):
        return sorted(folder.glob("*.parquet"))
    # Small files are fetched with the listing, many at a time, and kept for whoever opens them: DuckDB as well.
    names = _reading_system().glob(f"{str(folder).rstrip('/')}/*.parquet")
    return [folder / name.rpartition("/")[2] for name in sorted(names)]


def opened(path: Path) -> BinaryIO:
    """What is read at random; to be closed. FileNotFoundError if it is gone."""
    if not is_remote(path):
        return path.open("rb")
    return cast(BinaryIO, _reading_system().open(str(path), "rb"))


def _reading_system() -> Any:
    # Of packages that may not be there, and ship no types.
    from pipeline.storage.s3 import file_system
    from pipeline.storage.s3_reading import ReadingFileSystem

    return file_system(ReadingFileSystem, os.getpid())

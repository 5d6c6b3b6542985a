"""What both kinds of storage can do, and which of them a path is on."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipeline.storage.folder import Folder
from pipeline.storage.place import is_remote


class Store(Protocol):
    """Puts files below a path whole or not at all; OSError where it cannot. See `Folder` for what each does."""

    def lay_out(self, *folders: Path) -> None:
        """Makes folders, where there are folders."""

    def scratch(self) -> Path:
        """A folder of this machine for what is put aside for a while."""

    def put(
        self,
        fill: Callable[[Any], None],
        target: Path,
        check: Callable[[], None] = lambda: None,
        *,
        is_new: bool = False,
    ) -> None:
        """What `fill` writes appears at `target`."""

    def put_text(self, text: str, target: Path, *, is_new: bool = False) -> None:
        """A text appears at `target`."""

    def age_seconds(self, path: Path) -> float:
        """By the storage's own clock."""

    def sweep(self, older_than_seconds: float) -> None:
        """Removes what crashed writers left behind."""

    def only_one(self, task: str) -> AbstractContextManager[Callable[[], None] | None]:
        """A check to call before what must not be done twice, or None if another one has the task."""


def store_of(root: Path) -> Store:
    """The storage of what is below `root`."""
    if not is_remote(root):
        return Folder(root)
    from pipeline.storage.s3 import Bucket

    return Bucket(root)


def parquet_source(path: Path) -> BinaryIO:
    """What pyarrow reads the file from; to be closed. Of a file on object storage only what is asked for is fetched."""
    return path.open("rb")

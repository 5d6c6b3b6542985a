"""Files in a folder of this machine: written under another name, made durable, renamed."""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Folder:
    """A folder below which names appear by rename, whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tmp = root / "_tmp"

    def lay_out(self, *folders: Path) -> None:
        """Makes these folders below it, and the one of files that are not finished."""
        for folder in (self._tmp, *folders):
            folder.mkdir(parents=True, exist_ok=True)

    def scratch(self) -> Path:
        """A folder with as much room as the files below the root have; `sweep` tidies it."""
        return self._tmp

    def put(
        self,
        fill: Callable[[Any], None],
        target: Path,
        check: Callable[[], None] = lambda: None,
        *,
        is_new: bool = False,
    ) -> None:
        """What `fill` writes to the place that it is given appears at `target`, and is on the disk by then.

        `check` is called at the last moment before; if it raises, nothing appears. With `is_new` FileExistsError
        if there is something already.
        """
        temporary = self._tmp / f"{uuid.uuid4().hex}{target.suffix}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            fill(temporary)
            _sync(temporary)
            check()
            _appear_first(temporary, target) if is_new else temporary.replace(target)
            _sync(target.parent)
        finally:
            _discard(temporary)

    def put_text(self, text: str, target: Path, *, is_new: bool = False) -> None:
        """The same for a text."""
        self.put(lambda where: where.write_text(text, encoding="utf-8"), target, is_new=is_new)

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

    @contextmanager
    def only_one(self, task: str) -> Iterator[Callable[[], None] | None]:
        """A check that this process may still do the task, or None where another one does it now.

        Here the lock goes with the process, so that the check has nothing to ask.
        """
        folder = self._root / "_locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / task).open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield lambda: None


def _appear_first(temporary: Path, target: Path) -> None:
    """Gives the file its name unless there is one of that name: a rename would take its place."""
    try:
        target.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without links: what is left is a look just before.
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        temporary.replace(target)


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

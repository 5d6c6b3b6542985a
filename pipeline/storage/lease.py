"""A task that one process does at a time where there are no locks: leases, numbered objects of a folder.

The highest number has the task until it says that it is done or is not renewed any more. Taking it is creating the
next number, of which the object store lets one succeed. A holder that was stopped for longer than its lease lasts does
not know that it lost it, so the lease alone guards nothing that must not be done twice: that is asked for by `check`
just before, and manifests carry a number of their own.
"""

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import Final, Protocol
from uuid import uuid4

LEASE_SECONDS: Final = 60.0
"""After so long without a sign of life, by the store's clock, another one may take the task."""
RENEWALS: Final = 4
"""Signs of life in that time."""


class _Store(Protocol):
    def put_text(self, text: str, target: Path, *, is_new: bool = False) -> None: ...

    def age_seconds(self, path: Path) -> float: ...


@contextmanager
def held(store: _Store, folder: Path, seconds: float = LEASE_SECONDS) -> Iterator[Callable[[], None] | None]:
    """The task of `folder`: None if another one has it, else a check that it is still ours, which raises OSError."""
    lease = _take(store, folder, seconds)
    if lease is None:
        yield None
        return

    def check() -> None:
        if _newest(folder) != lease:
            raise OSError(errno.EBUSY, "this took too long: another process has taken over")

    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, lease, seconds, done), name="lease", daemon=True)
    renewing.start()
    try:
        yield check
    finally:
        done.set()
        renewing.join()
        # Should this fail, the lease runs out.
        with suppress(OSError):
            store.put_text(_said(is_done=True), lease)


def _take(store: _Store, folder: Path, seconds: float) -> Path | None:
    newest = _newest(folder)
    if newest is not None and not _is_over(store, newest, seconds):
        return None
    lease = folder / f"{int(newest.stem) + 1 if newest else 1:012d}.json"
    try:
        store.put_text(_said(), lease, is_new=True)
    except FileExistsError:
        return None
    _prove(store, lease)
    for older in folder.glob("*.json"):
        if older.name < lease.name:
            older.unlink(missing_ok=True)
    return lease


def _prove(store: _Store, lease: Path) -> None:
    """Nothing here holds on a store that takes no notice of conditions."""
    with suppress(FileExistsError):
        store.put_text(_said(), lease, is_new=True)
        raise OSError(
            errno.ENOTSUP,
            "the object store does not keep to If-None-Match, so that two compactions could destroy each other's work",
        )


def _renew(store: _Store, lease: Path, seconds: float, done: threading.Event) -> None:
    while not done.wait(seconds / RENEWALS):
        with suppress(OSError):
            store.put_text(_said(), lease)


def _is_over(store: _Store, lease: Path, seconds: float) -> bool:
    try:
        told = json.loads(lease.read_text(encoding="utf-8"))
        return bool(told["is_done"]) or store.age_seconds(lease) > seconds
    except FileNotFoundError:
        # Whoever took the next one has just removed it.
        return False


def _newest(folder: Path) -> Path | None:
    return max(folder.glob("*.json"), key=lambda path: path.name, default=None)


def _said(*, is_done: bool = False) -> str:
    # No two of these are the same, so that a holder knows its own.
    holder = f"{gethostname()} {os.getpid()} {uuid4().hex}"
    return json.dumps({"holder": holder, "is_done": is_done})

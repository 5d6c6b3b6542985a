"""A spool file that is broken or left behind: put aside or emptied, and what can be read of it saved."""

import fcntl
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import repeat
from pathlib import Path

from pipeline.collect.received import WebhookRecord
from pipeline.collect.spool_file import SpoolDamagedError, SpooledWebhook, SpoolFile, stored_bytes, unpacked

log = logging.getLogger(__name__)

SALVAGE_AT_ONCE = 500
ADOPT_AT_ONCE_BYTES = 1024 * 1024
NEAR = 1000
"""Numbers tried one by one behind a broken page, which holds far fewer; then in ever longer leaps."""
LAST_ID = 2**62
_NEXT = "select rowid from webhook where rowid >= ? order by rowid limit 1"
_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Nobody else opens, mends or adopts a file of this directory meanwhile: a broken one is replaced once."""
    with (directory / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_damage(problem: sqlite3.Error) -> bool:
    """Whether the file itself is broken, and not just the moment."""
    # The error's name has a suffix for some kinds: SQLITE_CORRUPT_INDEX.
    name = getattr(problem, "sqlite_errorname", None) or ""
    # What is just an error is a statement that does not suit the tables: they are not ours any more.
    return (
        isinstance(problem, SpoolDamagedError)
        or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
        or name == "SQLITE_ERROR"
    )


def open_mended(path: Path, last_id: int = 0) -> SpoolFile:
    """As `SpoolFile.open`; a damaged file is replaced."""
    try:
        return SpoolFile.open(path, last_id)
    except sqlite3.DatabaseError as problem:
        if not is_damage(problem):
            raise
    except UnicodeDecodeError:
        # What Python makes of an error message that quotes a broken table.
        pass
    return replace_damaged(path, last_id)


def replace_damaged(path: Path, last_id: int) -> SpoolFile:
    """A new file in place of a damaged one that nobody has open.

    It has what could be read, under numbers above `last_id`: no number is given twice. A crash on the way leaves
    the damaged file where it was, or a copy that will be adopted.
    """
    part = path.with_name(f"{path.stem}-mended.db")
    with closing(SpoolFile.open(part, last_id)) as mended:
        records: list[WebhookRecord] = []
        for record in _salvaged(path):
            records.append(record)
            if len(records) == SALVAGE_AT_ONCE:
                mended.append(records)
                records = []
        if records:
            mended.append(records)
    aside = path.with_name(f"damaged-{time.time_ns()}.db")
    for suffix in ("-wal", ""):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    part.rename(path)
    saved = mended.stock.webhooks
    log.error("%s was damaged: it is now %s, and %d webhooks were read from it", path, aside.name, saved)
    return SpoolFile.open(path, mended.last_id)


def adopt(into: SpoolFile, path: Path, room_bytes: int) -> int:
    """Move the webhooks of another file, as far as there is room; how many. Raises `SpoolBusyError`."""
    moved = 0
    other = open_mended(path)
    try:
        while True:
            try:
                webhooks = other.read(0, ADOPT_AT_ONCE_BYTES)
            except sqlite3.DatabaseError as problem:
                if not is_damage(problem):
                    raise
                other.close()
                other = replace_damaged(path, other.last_id)
                continue
            fitting: list[SpooledWebhook] = []
            for webhook in webhooks:
                room_bytes -= stored_bytes(webhook.record)
                if room_bytes < 0:
                    break
                fitting.append(webhook)
            if not fitting:
                return moved
            # A crash between the two leaves them in both: the same receipt twice, which is one.
            into.append([webhook.record for webhook in fitting])
            moved += len(fitting)
            other.forget(fitting[-1].id)
    finally:
        other.close()


def _salvaged(path: Path) -> Iterator[WebhookRecord]:
    """One by one, by number: a broken page takes only those with it that are on it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        webhook_id = _next_id(connection, 0)
        while webhook_id is not None:
            record = _salvaged_one(connection, webhook_id)
            if record is not None:
                yield record
            webhook_id = _next_id(connection, webhook_id + 1)


def _next_id(connection: sqlite3.Connection, at: int) -> int | None:
    """The first number from this one on that can be read; None at the end."""
    while at < LAST_ID:
        try:
            row = connection.execute(_NEXT, (at,)).fetchone()
        except _UNREADABLE:
            at = _behind_damage(connection, at)
        else:
            return None if row is None else max(at, int(row[0]))
    return None


def _behind_damage(connection: sqlite3.Connection, bad: int) -> int:
    """Where the looking for the next number does not meet a broken page any more."""
    for leap in (*repeat(1, NEAR), *(1 << power for power in range(62))):
        good = bad + leap
        if _is_readable(connection, good):
            break
        bad = good
    else:
        return LAST_ID
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _is_readable(connection, middle) else (good, middle)
    return good


def _is_readable(connection: sqlite3.Connection, at: int) -> bool:
    try:
        connection.execute(_NEXT, (at,)).fetchone()
    except _UNREADABLE:
        return False
    return True


def _salvaged_one(connection: sqlite3.Connection, webhook_id: int) -> WebhookRecord | None:
    try:
        row = connection.execute(
            "select crc32, record from webhook where rowid = ?", (webhook_id,)
        ).fetchone()
    except _UNREADABLE:
        return None
    return None if row is None else unpacked(row[1], row[0])

"""One file of the spool: an SQLite database in WAL mode, because SQLite has solved what a log of one's own has to.

A group of appends is a transaction: fsynced as one, checksummed frame by frame in the WAL, and after a crash either
there or not. Each webhook has a checksum of its own besides, because SQLite has none for pages at rest.
Deleted bytes are overwritten (`secure_delete`), and an emptied file shrinks: webhooks hold secrets.
"""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline.collect.received import WebhookRecord

ROW_OVERHEAD_BYTES = 64
"""What a row costs beside the record, roughly."""
_SCHEMA = """
create table if not exists webhook (
    id integer primary key, received_us integer not null, size_bytes integer not null, crc32 integer not null,
    record blob not null
);
create table if not exists set_aside (
    id integer primary key, received_us integer not null, reason text not null, record blob not null
);
create table if not exists touched (id integer primary key, times integer not null);
"""
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(WebhookRecord)


class SpoolBusyError(Exception):
    """Another collector has the file."""


class SpoolDamagedError(sqlite3.DatabaseError):
    """The file is broken, and SQLite would not have said so by itself."""


class SpooledWebhook(NamedTuple):
    """A record and its place in the order."""

    id: int
    record: WebhookRecord


class Stock(NamedTuple):
    """What is in a file; `oldest_us` in microseconds since the epoch."""

    webhooks: int
    size_bytes: int
    oldest_us: int | None
    set_aside: int


def stored_bytes(record: WebhookRecord) -> int:
    """What a record counts against the bound of the spool."""
    return record.size + ROW_OVERHEAD_BYTES


class SpoolFile:
    """Owned by one process from `open` to `close`, or to its death: the lock is the operating system's.

    Every method may raise `sqlite3.Error`, and has then changed nothing.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, last_id: int) -> None:
        self.path = path
        self.is_open = True
        self._connection = connection
        count, size, newest = self._row(
            "select count(*), coalesce(sum(size_bytes), 0), coalesce(max(id), 0) from webhook"
        )
        aside, newest_aside = self._row("select count(*), coalesce(max(id), 0) from set_aside")
        self.last_id: int = max(last_id, newest, newest_aside)
        self.stock = Stock(count, size, self._oldest_us(), aside)

    @classmethod
    def open(cls, path: Path, last_id: int = 0) -> "SpoolFile":
        """New webhooks get numbers above `last_id`.

        Raises `SpoolBusyError`, or `sqlite3.Error` where it cannot be written or is damaged.
        """
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        # A blob whose type is wrong is for the checksum to find.
        connection.text_factory = bytes
        try:
            # auto_vacuum has to be said before there is a table, the lock before there is a WAL.
            for setting in ("auto_vacuum = incremental", "locking_mode = exclusive", "journal_mode = wal"):
                connection.execute(f"pragma {setting}").fetchall()
            for setting in ("synchronous = full", "secure_delete = on"):
                connection.execute(f"pragma {setting}").fetchall()
            connection.executescript(f"begin immediate; {_SCHEMA} commit;")
            # A page whose head is wrong may hide rows, and nothing else tells.
            is_sound = connection.execute("pragma quick_check(1)").fetchone() == (b"ok",)
            if not is_sound or _tables(connection) != _own_tables():
                raise SpoolDamagedError(f"{path} is damaged")
            return cls(path, connection, last_id)
        except sqlite3.OperationalError as problem:
            connection.close()
            if problem.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise SpoolBusyError(str(path)) from problem
            raise
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Let the next one have it."""
        self.is_open = False
        self._connection.close()

    def append(self, records: Sequence[WebhookRecord]) -> None:
        """All of them, in this order, on the disk when this returns; or none."""
        rows = []
        for webhook_id, record in enumerate(records, start=self.last_id + 1):
            packed = _ENCODER.encode(record)
            rows.append((webhook_id, record.received_us, stored_bytes(record), zlib.crc32(packed), packed))
        with self._transaction():
            self._connection.executemany("insert into webhook values (?, ?, ?, ?, ?)", rows)
        self.last_id += len(rows)
        size_bytes = self.stock.size_bytes + sum(row[2] for row in rows)
        oldest_us = self.stock.oldest_us if self.stock.webhooks else records[0].received_us
        self.stock = Stock(self.stock.webhooks + len(rows), size_bytes, oldest_us, self.stock.set_aside)

    def read(self, after_id: int, max_bytes: int) -> list[SpooledWebhook]:
        """The first of those after this id, up to about so many bytes; those with a wrong checksum are set aside."""
        found: list[SpooledWebhook] = []
        damaged: list[int] = []
        size = 0
        rows = self._connection.execute(
            "select id, crc32, record from webhook where id > ? order by id", (after_id,)
        )
        for webhook_id, crc32, packed in rows:
            record = unpacked(packed, crc32)
            if record is None:
                damaged.append(webhook_id)
                continue
            found.append(SpooledWebhook(webhook_id, record))
            size += len(packed)
            if size >= max_bytes:
                break
        rows.close()
        for webhook_id in damaged:
            self.set_aside(webhook_id, "the checksum is wrong")
        return found

    def forget(self, last_id: int) -> None:
        """Remove all up to this id. When nothing is left, the file shrinks and no byte of them stays."""
        self.stock = self._removed("id <= ?", last_id)
        if self.stock.webhooks == 0:
            self._connection.executescript("pragma incremental_vacuum")
            self._row("pragma wal_checkpoint(truncate)")

    def set_aside(self, webhook_id: int, reason: str) -> None:
        """Move one out of the order; it stays in the file."""
        with self._transaction():
            self._connection.execute(
                "insert or replace into set_aside"
                " select id, coalesce(received_us, 0), ?, coalesce(record, x'') from webhook where id = ?",
                (reason, webhook_id),
            )
            stock = self._removed("id = ?", webhook_id)
        self.stock = stock._replace(set_aside=self._row("select count(*) from set_aside")[0])

    def touch(self) -> None:
        """Write and fsync something that means nothing."""
        self._connection.execute(
            "insert into touched values (1, 1) on conflict do update set times = times + 1"
        )

    def _removed(self, condition: str, webhook_id: int) -> Stock:
        """Remove them; what is in the file then."""
        count, size_bytes = self._row(
            f"select count(*), coalesce(sum(size_bytes), 0) from webhook where {condition}", webhook_id
        )
        self._connection.execute(f"delete from webhook where {condition}", (webhook_id,))
        stock = self.stock
        return Stock(
            stock.webhooks - count, stock.size_bytes - size_bytes, self._oldest_us(), stock.set_aside
        )

    def _oldest_us(self) -> int | None:
        row = self._connection.execute("select received_us from webhook order by id limit 1").fetchone()
        return None if row is None else int(row[0])

    def _row(self, statement: str, *values: int) -> tuple[int, ...]:
        found: tuple[int, ...] = self._connection.execute(statement, values).fetchone()
        return found

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("begin immediate")
        try:
            yield
            self._connection.execute("commit")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            raise


def _tables(connection: sqlite3.Connection) -> list[tuple[bytes, bytes]]:
    connection.text_factory = bytes
    return connection.execute("select name, sql from sqlite_schema order by name").fetchall()


@cache
def _own_tables() -> list[tuple[bytes, bytes]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _tables(connection)


def unpacked(packed: object, crc32: object) -> WebhookRecord | None:
    """A stored record; None if it is not what was stored."""
    if not isinstance(packed, bytes) or zlib.crc32(packed) != crc32:
        return None
    try:
        return _DECODER.decode(packed)
    except msgspec.MsgspecError:
        return None


def spool_stocks(directory: Path) -> list[Stock | None]:
    """What is in each spool of a directory; None for one that a collector has open, or that is damaged."""
    stocks: list[Stock | None] = []
    for path in sorted(directory.glob("spool-*.db")):
        try:
            with closing(SpoolFile.open(path)) as file:
                stocks.append(file.stock)
        except (SpoolBusyError, sqlite3.Error):
            stocks.append(None)
    return stocks

"""The spool: webhooks on the local disk that are not yet where they belong, in the order of their receipt.

An append is done when it has been fsynced; appends that come at the same time share one fsync. A collector holds
a file of its own, so that several may have one directory, and takes over the files of those that are gone.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from pipeline.collect.received import WebhookRecord
from pipeline.collect.spool_damage import adopt, alone_in, is_damage, open_mended, replace_damaged
from pipeline.collect.spool_file import SpoolBusyError, SpooledWebhook, SpoolFile, Stock, stored_bytes
from pipeline.errors import DestinationUnavailable, UserError

log = logging.getLogger(__name__)

FILES_AT_MOST = 64
"""Collectors that may share a directory."""
READ_BYTES = 1024 * 1024
ADOPT_BYTES = 32 * READ_BYTES
"""What is taken over at a time, while those wait who append."""
APPEND_SECONDS = 5.0
"""How long a sender waits for the disk."""
FULL_UNTIL = 0.9
"""A spool that was full takes webhooks again when it is only this full; it would say yes and no in turn otherwise."""

FULL = "the spool is full"

T = TypeVar("T")


class SpoolLimits(NamedTuple):
    """What bounds a spool. Nothing in it is ever given up: beyond a bound it takes no more."""

    max_bytes: int
    max_age_seconds: float


class Spool:
    """One collector's spool. To be opened, used and closed on one event loop."""

    def __init__(self, directory: Path, limits: SpoolLimits) -> None:
        self._directory = directory
        self._limits = limits
        # SQLite's calls block; one thread does all of them, in order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._file: SpoolFile | None = None
        self._waiting: list[tuple[WebhookRecord, asyncio.Future[None]]] = []
        self._unwritten_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._is_full = False
        self._has_failed = False
        self.appended = asyncio.Event()
        """Set whenever something has come in; for the one who reads to clear."""

    async def open(self) -> None:
        """Take a file of the directory, a new one if all are held. Raises `UserError` where that cannot be."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open_file)
        except (OSError, sqlite3.Error) as problem:
            self._thread.shutdown()
            raise UserError(
                f"the spool {self._directory} cannot be written ({problem}): set spool.dir (CALLFOLD_SPOOL_DIR)"
                " to a directory on a local disk, or spool.max_bytes to 0 for none"
            ) from problem
        while await self.adopt():
            pass
        if self.stock.webhooks:
            log.warning("%d webhooks are in the spool and go on to Kafka now", self.stock.webhooks)
            self.appended.set()

    def _open_file(self) -> None:
        # Webhooks are in it as they came, secrets included.
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone_in(self._directory):
            for number in range(FILES_AT_MOST):
                with suppress(SpoolBusyError):
                    self._file = open_mended(self._directory / f"spool-{number}.db")
                    return
        raise OSError(f"{FILES_AT_MOST} collectors have their spools there")

    async def close(self) -> None:
        """Let go of the file; what is in it waits for the next collector."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        if self._file is not None:
            await self._do(SpoolFile.close)
        self._thread.shutdown()

    @property
    def stock(self) -> Stock:
        """What is in it."""
        return self._opened.stock

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it or on the way into it."""
        is_writing = self._writer is not None and not self._writer.done()
        return self.stock.webhooks == 0 and not is_writing

    @property
    def _used_bytes(self) -> int:
        return self.stock.size_bytes + self._unwritten_bytes

    @property
    def refusal(self) -> str | None:
        """Why it takes nothing now; None if it does."""
        if self._has_failed:
            return "the disk of the spool does not take data"
        self._is_full = self._is_full and self._used_bytes > FULL_UNTIL * self._limits.max_bytes
        if self._is_full:
            return FULL
        stock = self.stock
        age_seconds = 0.0 if stock.oldest_us is None else time.time() - stock.oldest_us / 1e6
        return (
            "the spool has held webhooks for too long" if age_seconds > self._limits.max_age_seconds else None
        )

    async def append(self, record: WebhookRecord) -> None:
        """Return once the record is on the disk. Raises `DestinationUnavailable` if that is not certain."""
        refusal, size = self.refusal, stored_bytes(record)
        if refusal is not None:
            raise DestinationUnavailable(refusal)
        if self._used_bytes + size > self._limits.max_bytes:
            self._is_full = True
            raise DestinationUnavailable(FULL)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        self._unwritten_bytes += size
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        try:
            async with asyncio.timeout(APPEND_SECONDS):
                # The group is written for the others, also when one of them waits no longer.
                await asyncio.shield(done)
        except TimeoutError:
            raise DestinationUnavailable("the disk of the spool does not answer") from None

    async def _write(self) -> None:
        """Group after group, as long as there are any: what comes during one fsync makes the next group."""
        while self._waiting:
            group, self._waiting = self._waiting, []
            records = [record for record, _ in group]
            try:
                await self._do(partial(SpoolFile.append, records=records))
            except Exception as problem:  # noqa: BLE001  whatever it is, it is told, and those who wait have an answer
                self._note(has_failed=True, why=repr(problem))
                _end(group, DestinationUnavailable("the disk of the spool does not take data"))
            else:
                self._note(has_failed=False)
                _end(group, None)
                self.appended.set()
            self._unwritten_bytes -= sum(map(stored_bytes, records))

    async def read(self, after_id: int) -> list[SpooledWebhook]:
        """The next ones after this id, about a megabyte of them."""
        aside = self.stock.set_aside
        webhooks = await self._do(partial(SpoolFile.read, after_id=after_id, max_bytes=READ_BYTES))
        if self.stock.set_aside > aside:
            damaged = self.stock.set_aside - aside
            log.error("%s: %d webhooks are damaged and set aside in it", self._opened.path, damaged)
        return webhooks

    async def forget(self, last_id: int) -> None:
        """Remove all up to this id, and from the disk as well."""
        await self._do(partial(SpoolFile.forget, last_id=last_id))

    async def set_aside(self, webhook_id: int, reason: str) -> None:
        """Take one out of the way that will never be taken. It stays in the file, for a person to look at."""
        log.error("%s: webhook %d is set aside in it: %s", self._opened.path, webhook_id, reason)
        await self._do(partial(SpoolFile.set_aside, webhook_id=webhook_id, reason=reason))

    async def adopt(self) -> int:
        """Take over what other collectors, now gone, left in the directory: some of it; how many webhooks."""
        adopted = 0
        for path in sorted(self._directory.glob("spool-*.db")):
            if path == self._opened.path or self.refusal is not None:
                continue
            room_bytes = min(ADOPT_BYTES, self._limits.max_bytes - self.stock.size_bytes)
            loop = asyncio.get_running_loop()
            # Held by a collector that lives, or the disk does not take it now: another time.
            with suppress(SpoolBusyError, sqlite3.Error, OSError):
                adopted += await loop.run_in_executor(self._thread, self._adopt, path, room_bytes)
        if adopted:
            log.warning("%d webhooks were taken over from the spool of a collector that is gone", adopted)
            self.appended.set()
        return adopted

    def _adopt(self, path: Path, room_bytes: int) -> int:
        with alone_in(self._directory):
            return adopt(self._opened, path, room_bytes) if path.exists() else 0

    async def try_disk(self) -> None:
        """See whether the disk takes data again, if it did not."""
        if self._has_failed:
            try:
                await self._do(SpoolFile.touch)
            except (sqlite3.Error, OSError, DestinationUnavailable):
                return
            self._note(has_failed=False)

    @property
    def _opened(self) -> SpoolFile:
        assert self._file is not None
        return self._file

    async def _do(self, work: Callable[[SpoolFile], T]) -> T:
        """Run on the spool's thread. A file that turns out damaged is replaced by what can be read of it."""

        def mending() -> T:
            file = self._opened
            try:
                if file.is_open:
                    return work(file)
            except sqlite3.DatabaseError as problem:
                if not is_damage(problem):
                    raise
            with alone_in(self._directory):
                # Where this fails, a full disk for one, it is tried again with the next piece of work.
                file.close()
                self._file = replace_damaged(file.path, file.last_id)
            raise DestinationUnavailable("the spool was damaged, and is mended")

        return await asyncio.get_running_loop().run_in_executor(self._thread, mending)

    def _note(self, *, has_failed: bool, why: str = "") -> None:
        if has_failed != self._has_failed:
            text = f"does not take data: {why}" if has_failed else "takes data again"
            log.log(
                logging.ERROR if has_failed else logging.WARNING, "the spool %s %s", self._directory, text
            )
        self._has_failed = has_failed


def _end(group: list[tuple[WebhookRecord, asyncio.Future[None]]], problem: Exception | None) -> None:
    for _, done in group:
        if done.done():
            continue
        if problem is None:
            done.set_result(None)
        else:
            done.set_exception(problem)
            # Whoever waited for it may be gone.
            done.exception()

"""Stores webhooks durably: on Kafka, or while Kafka is away in the spool, from where they go on in their order."""

import asyncio
import itertools
import logging
import sqlite3
from contextlib import suppress
from typing import Literal

from pipeline.collect.hold_back import HoldBack
from pipeline.collect.received import WebhookRecord
from pipeline.collect.sink import KafkaSink, TooLargeError
from pipeline.collect.spool import Spool
from pipeline.collect.spool_file import SpooledWebhook
from pipeline.errors import DestinationUnavailable
from pipeline.topic_names import webhooks_topic

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
TRIAL_SECONDS = 3.0
RETRY_SECONDS = 0.5
ROOM_SECONDS = 0.1
AWAY_SECONDS = 3.0
"""A Kafka that does not answer for so long is not waited for by a collector that stops."""
ADOPT_SECONDS = 30.0

Where = Literal["kafka", "spool"]


class KeptBackError(DestinationUnavailable):
    """The worker has to read first."""


class WebhookStore:
    """Joins Kafka and the spool.

    On Apache Kafka a webhook goes straight there, and into the spool when that fails; once there is something in the
    spool, later ones queue up behind it. The embedded broker (`hold_back` is given) is memory: there everything goes
    into the spool first, from there to the broker as far as it has room, and leaves the spool when it is in the lake.
    """

    def __init__(self, sink: KafkaSink, prefix: str, spool: Spool | None, hold_back: HoldBack | None) -> None:
        self._sink = sink
        self._prefix = prefix
        self.spool = spool
        self._hold_back = hold_back
        self._numbers = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self._sent_id = 0
        self._done_id = 0
        """Up to this one nothing has to stay in the spool."""
        self._forgotten_id = 0

    async def start(self) -> None:
        """Open the spool, connect, and begin to drain. Raises `UserError` if the spool cannot be had."""
        if self.spool is not None:
            await self.spool.open()
        await self._sink.start()
        if self.spool is not None:
            self._tasks.append(asyncio.create_task(self._drain(self.spool)))
            self._tasks.append(asyncio.create_task(self._look_after(self.spool)))

    async def stop(self) -> None:
        """Stop draining, and let go of Kafka and the spool; to be called when nothing more is stored."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sink.stop()
        if self.spool is not None:
            await self.spool.close()

    async def settle(self, seconds: float, hurry: asyncio.Event) -> bool:
        """Wait until everything is on Kafka, or with the embedded broker in the lake; `hurry` ends the waiting."""
        loop = asyncio.get_running_loop()
        ready_at, deadline = loop.time(), loop.time() + seconds
        while not self.is_settled and not hurry.is_set() and loop.time() < deadline:
            if self._sink.is_ready or self._hold_back is not None:
                ready_at = loop.time()
            elif loop.time() - ready_at > AWAY_SECONDS:
                break
            await asyncio.sleep(ROOM_SECONDS)
        return self.is_settled

    @property
    def is_settled(self) -> bool:
        """Whether nothing is in the spool, or unread in the embedded broker."""
        is_read = self._hold_back is None or self._hold_back.is_settled
        return is_read and (self.spool is None or self.spool.is_empty)

    @property
    def refusal(self) -> str | None:
        """Why the next webhook could not be stored; None if it probably can be."""
        if self.spool is not None and (self.spool.refusal is None or self._is_spool_first):
            return self.spool.refusal
        return None if self._sink.is_ready else "Kafka cannot be reached"

    @property
    def _is_spool_first(self) -> bool:
        return self.spool is not None and self._hold_back is not None

    async def store(self, record: WebhookRecord) -> Where:
        """Return once the webhook is on Kafka or in the spool.

        Raises `DestinationUnavailable` (`KeptBackError` if the worker is behind) or `TooLargeError`.
        """
        spool = self.spool
        if spool is None:
            await self._send(record)
            return "kafka"
        if spool.is_empty and self._sink.is_ready and not self._is_spool_first:
            # If this fails Kafka may have it nevertheless: then it has the same receipt twice, which is one.
            with suppress(DestinationUnavailable):
                await self._send(record)
                return "kafka"
        try:
            await spool.append(record)
        except DestinationUnavailable:
            if self._is_spool_first or not self._sink.is_ready:
                raise
            # Better out of its order than not at all: its sender may never try again.
            await self._send(record)
            return "kafka"
        return "spool"

    async def _send(self, record: WebhookRecord) -> None:
        if self._hold_back is None:
            await self._sink.send(record, None)
            return
        topic = webhooks_topic(self._prefix, record.provider)
        partition = self._hold_back.place(topic, record.key, record.size)
        if partition is None:
            raise KeptBackError("the worker is behind and the embedded broker is full")
        try:
            offset = await self._sink.send(record, partition)
        except BaseException:
            self._hold_back.failed(topic, partition, record.size)
            raise
        self._hold_back.stored(next(self._numbers), topic, partition, offset, record.size)

    async def in_lake(self, webhook_id: int) -> None:
        """The webhooks up to this one are in the lake: what was kept for them need not be kept any longer."""
        self._done_id = webhook_id
        if self.spool is not None:
            await self._forget_done(self.spool)

    async def _forget_done(self, spool: Spool) -> None:
        """A disk that does not take it now is asked again later: it is no reason to stop anything."""
        done_id = self._done_id
        if done_id > self._forgotten_id:
            with suppress(DestinationUnavailable, sqlite3.Error, OSError):
                await spool.forget(done_id)
                self._forgotten_id = done_id

    async def _drain(self, spool: Spool) -> None:
        """Until cancelled: what is in the spool goes to Kafka in its order, a group after the other."""
        while True:
            spool.appended.clear()
            try:
                webhooks = await spool.read(self._sent_id)
                if webhooks and self._sink.is_ready:
                    await self._pass_on(spool, webhooks, DRAIN_SECONDS)
                elif webhooks:
                    # One is a trial: it may find Kafka back before a look at its metadata does.
                    await self._pass_on(spool, webhooks[:1], TRIAL_SECONDS)
                else:
                    await spool.appended.wait()
            except (DestinationUnavailable, sqlite3.Error, OSError) as problem:
                log.debug("the spool cannot be drained now: %s", problem)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("the spool cannot be drained")
                await asyncio.sleep(RETRY_SECONDS)

    async def _pass_on(self, spool: Spool, webhooks: list[SpooledWebhook], wait_seconds: float) -> None:
        placed = self._placed(webhooks)
        if not placed:
            # The broker is full: its room comes back with the worker's commits.
            await asyncio.sleep(ROOM_SECONDS)
            return
        try:
            offsets = await self._sink.send_all([(webhook.record, n) for webhook, n in placed], wait_seconds)
        except BaseException:
            for webhook, number in placed:
                self._give_back(webhook.record, number)
            raise
        for (webhook, number), offset in zip(placed, offsets, strict=True):
            if isinstance(offset, TooLargeError):
                self._give_back(webhook.record, number)
                await spool.set_aside(webhook.id, f"Kafka refuses it as too large: {offset}")
            elif self._hold_back is not None and number is not None:
                topic = webhooks_topic(self._prefix, webhook.record.provider)
                self._hold_back.stored(webhook.id, topic, number, offset, webhook.record.size)
        self._sent_id = placed[-1][0].id
        if self._hold_back is None:
            self._done_id = self._sent_id
            await self._forget_done(spool)

    def _placed(self, webhooks: list[SpooledWebhook]) -> list[tuple[SpooledWebhook, int | None]]:
        """As many of the first ones as there is room for, each with its partition; None leaves it to the key."""
        if self._hold_back is None:
            return [(webhook, None) for webhook in webhooks]
        placed: list[tuple[SpooledWebhook, int | None]] = []
        for webhook in webhooks:
            topic = webhooks_topic(self._prefix, webhook.record.provider)
            number = self._hold_back.place(topic, webhook.record.key, webhook.record.size)
            if number is None:
                break
            placed.append((webhook, number))
        return placed

    def _give_back(self, record: WebhookRecord, number: int | None) -> None:
        if self._hold_back is not None and number is not None:
            self._hold_back.failed(webhooks_topic(self._prefix, record.provider), number, record.size)

    async def _look_after(self, spool: Spool) -> None:
        """Until cancelled: sees a disk that is back, and the spools of collectors that are gone."""
        loop = asyncio.get_running_loop()
        adopt_at = loop.time() + ADOPT_SECONDS
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await spool.try_disk()
            await self._forget_done(spool)
            if loop.time() >= adopt_at:
                await spool.adopt()
                adopt_at = loop.time() + ADOPT_SECONDS

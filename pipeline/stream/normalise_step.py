"""The worker's first step: webhooks in, events to the fold, the rest in quarantine, everything archived.

A webhook that was read from the partition at which its stream is at home goes straight to the fold of the same
worker, which owns that partition of `call-events` as well. Any other (somebody else's producer chose the partition)
makes a detour over `call-events`, to whoever owns its home.

A batch is acknowledged after its events are in the lake or on `call-events`, and its rows are in the lake.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from pipeline import native
from pipeline.errors import DestinationUnavailable
from pipeline.lake import LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.stream.acknowledging import SharedAck
from pipeline.stream.handler import Partitions, RecordBatch
from pipeline.stream.messages import WebhookReader, event_message, quarantine_message
from pipeline.stream.metrics import WorkerMetrics
from pipeline.stream.producer import BulkProducer, Message
from pipeline.topic_names import call_events_topic, home_partition, quarantine_topic

log = logging.getLogger(__name__)

MOST_WAITING_MESSAGES = 10_000
"""Events not yet sent on; beyond it a batch waits for them."""
SEND_AFTER_SECONDS = 0.02
"""Events of several batches travel together: a broker may hand out no more than one produced batch a fetch."""
MOST_WAITING_BYTES = 64 * 1024 * 1024
"""Webhooks held for the next flush; beyond it the flush comes early.

While nothing can be written, nothing more is taken: at most this much and one batch (`FETCH_BYTES`) are held.
"""
WEBHOOK_BYTES = 1_000
"""What a webhook takes beside its body: the record that it came in, its headers, and what Python needs for them."""


class Fold(Protocol):
    """What events go to that need no detour."""

    async def make_room(self) -> None:
        """Waits until more can be taken."""

    async def add(
        self, number: int, provider: str, events: list[CallEvent] | native.Events, ack: Callable[[], None]
    ) -> None:
        """Takes the events of one provider that are at home in this partition; `ack` once they are durable."""


class NormaliseStep:
    """Takes the batches of all `webhooks.<provider>` topics.

    `partitions` says, by topic, how many partitions it has in common with `call-events`; None: each event makes
    the detour.
    """

    def __init__(
        self,
        normaliser: Normaliser,
        producer: BulkProducer,
        sink: LakeSink,
        fold: Fold,
        *,
        prefix: str,
        archive: bool,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
        room: Callable[[], Awaitable[None]] | None = None,
        commit: Callable[[], Awaitable[object]],
        metrics: WorkerMetrics,
    ) -> None:
        self._normaliser = normaliser
        self._producer = producer
        self._sink = sink
        self._fold = fold
        self._prefix = prefix
        self._archive = archive
        self._most_waiting_bytes = most_waiting_bytes
        self._room = room
        self._commit = commit
        self._metrics = metrics
        self.partitions: dict[str, int | None] = {}
        self._readers: dict[str, WebhookReader] = {}
        self._quick_readers: dict[str, native.Reader | None] = {}
        self._turn = asyncio.Lock()
        self._waiting: list[SharedAck] = []
        self._webhooks: list[Webhook] = []
        self._rejected: list[tuple[Webhook, Rejection]] = []
        self._waiting_bytes = 0
        self._outbox: list[Message] = []
        self._sending = asyncio.Lock()
        self._sender: asyncio.Task[None] | None = None

    async def take(self, batch: RecordBatch) -> None:
        """Normalises a batch and hands its events on: to the fold, and what is astray to Kafka by the next flush."""
        if len(self._outbox) >= MOST_WAITING_MESSAGES:
            await self._send()
        if self._waiting_bytes >= self._most_waiting_bytes:
            await self.flush()
        await self._fold.make_room()
        if self._room is not None:
            await self._room()
        async with self._turn:
            provider = batch.topic.removeprefix(f"{self._prefix}.webhooks.")
            webhooks, rejected, home, strays = self._read(batch, provider)
            ack = SharedAck(batch.ack)
            if len(home):
                await self._fold.add(batch.partition, provider, home, ack.part())
            if strays:
                self._outbox.extend((event.stream_key, event_message(event)) for event in strays)
            self._rejected += rejected
            if self._archive:
                self._webhooks += webhooks
            kept = webhooks if self._archive else [webhook for webhook, _ in rejected]
            self._waiting_bytes += sum(len(webhook.body) + WEBHOOK_BYTES for webhook in kept)
            if kept or strays:
                self._waiting.append(ack)
            else:
                # Nothing of it is left here: the fold alone says when it is durable.
                ack.done()
        if strays and (self._sender is None or self._sender.done()):
            self._sender = asyncio.create_task(self._send_soon())

    def _read(
        self, batch: RecordBatch, provider: str
    ) -> tuple[
        list[Webhook], list[tuple[Webhook, Rejection]], list[CallEvent] | native.Events, list[CallEvent]
    ]:
        """The batch's webhooks (if they are archived), the rejected ones, and the events at home here and elsewhere."""
        if provider not in self._readers:
            self._readers[provider] = WebhookReader(provider)
            self._quick_readers[provider] = self._normaliser.quick_reader(provider)
        read, quick = self._readers[provider].webhook, self._quick_readers[provider]
        webhooks = list(map(read, batch.records)) if self._archive else []
        if quick is None:
            every = webhooks or map(read, batch.records)
            rejected, home, strays, unknown, others = self._read_each(every, batch)
            self._count(provider, len(home) + len(strays), unknown, others, rejected)
            return webhooks, rejected, home, strays
        if self._archive:
            events, left = quick.read_webhooks(webhooks)
            rest = [webhooks[place] for place in left]
        else:
            events, left = quick.read(batch.records)
            rest = [read(batch.records[place]) for place in left]
        count = self.partitions.get(batch.topic)
        unknown, others = events.unknown, events.others
        if count is None:
            quick_strays, events = events.to_python(), native.Events.of([])
        else:
            quick_strays = events.split(count, batch.partition)
        rejected, home, strays, more_unknown, more_others = self._read_each(rest, batch)
        events.extend(native.Events.of(home))
        strays += quick_strays
        self._count(
            provider, len(events) + len(strays), unknown + more_unknown, others + more_others, rejected
        )
        return webhooks, rejected, events, strays

    def _read_each(
        self, webhooks: Iterable[Webhook], batch: RecordBatch
    ) -> tuple[list[tuple[Webhook, Rejection]], list[CallEvent], list[CallEvent], int, int]:
        """What became of webhooks, one by one.

        The rejected ones, the events at home here and elsewhere, how many of those are unknown, and how many webhooks
        are about no call.
        """
        count, number, normalised = self.partitions.get(batch.topic), batch.partition, self._normaliser.events
        rejected = []
        home: list[CallEvent] = []
        strays: list[CallEvent] = []
        others = unknown = 0
        for webhook in webhooks:
            found = normalised(webhook)
            if isinstance(found, Rejection):
                rejected.append((webhook, found))
                continue
            others += not found
            for event in found:
                unknown += event.is_unknown
                is_home = count is not None and home_partition(event.stream_key.encode(), count) == number
                (home if is_home else strays).append(event)
        return rejected, home, strays, unknown, others

    def _count(
        self, provider: str, events: int, unknown: int, others: int, rejected: list[tuple[Webhook, Rejection]]
    ) -> None:
        self._metrics.count(provider, events, unknown, others)
        for _, why in rejected:
            self._metrics.count_rejected(provider, why.code)
            if why.code == "internal_error":
                log.error("a webhook of %s is quarantined: %s", provider, why.message)

    async def _send_soon(self) -> None:
        await asyncio.sleep(SEND_AFTER_SECONDS)
        try:
            await self._send()
        except DestinationUnavailable as problem:
            log.debug("events wait for the next flush: %s", problem)

    async def _send(self) -> None:
        async with self._sending:
            messages, self._outbox = self._outbox, []
            try:
                if messages:
                    await self._producer.send(call_events_topic(self._prefix), messages, home_partition)
            except BaseException:
                self._outbox = messages + self._outbox
                raise

    async def flush(self) -> None:
        """Makes the rows durable and acknowledges; DestinationUnavailable leaves everything as it was."""
        async with self._turn:
            with self._metrics.flushing("normalise", counts=bool(self._waiting)):
                if not self._waiting:
                    return
                await self._send()
                stored = await asyncio.to_thread(self._write)
                if stored:
                    quarantined = [(s.webhook_id, quarantine_message(s)) for s in stored]
                    await self._producer.send(quarantine_topic(self._prefix), quarantined)
            for ack in self._waiting:
                ack.done()
            self._waiting, self._webhooks, self._rejected, self._waiting_bytes = [], [], [], 0
        await self._commit()

    def _write(self) -> list[StoredRejection]:
        # Redacting whole bodies costs more than reading them, and so is kept off the event loop.
        now_us = time.time_ns() // 1_000
        self._sink.write_webhooks([self._normaliser.stored(webhook) for webhook in self._webhooks], now_us)
        stored = [StoredRejection(*self._normaliser.stored(webhook), why) for webhook, why in self._rejected]
        self._sink.write_quarantine(stored, now_us)
        return stored

    async def revoked(self, partitions: Partitions) -> None:
        """Acknowledges what there is; what belongs to others by now is acknowledged in vain."""
        await self.flush()

    async def drain(self) -> None:
        """Makes everything durable."""
        await self.flush()

"""The worker's first step: webhooks in, events on `call-events`, the rest in quarantine, everything archived.

A batch is acknowledged after its events are on `call-events` and its rows are in the lake.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from pipeline.errors import DestinationUnavailable
from pipeline.lake import LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.stream.handler import Partitions, RecordBatch
from pipeline.stream.messages import event_message, quarantine_message, webhook_from
from pipeline.stream.metrics import WorkerMetrics
from pipeline.stream.producer import BulkProducer, Message
from pipeline.topic_names import call_events_topic, quarantine_topic

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


class NormaliseStep:
    """Handler of all `webhooks.<provider>` topics."""

    def __init__(
        self,
        normaliser: Normaliser,
        producer: BulkProducer,
        sink: LakeSink,
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
        self._prefix = prefix
        self._archive = archive
        self._most_waiting_bytes = most_waiting_bytes
        self._room = room
        self._commit = commit
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._batches: list[RecordBatch] = []
        self._webhooks: list[Webhook] = []
        self._rejected: list[tuple[Webhook, Rejection]] = []
        self._waiting_bytes = 0
        self._outbox: list[Message] = []
        self._sending = asyncio.Lock()
        self._sender: asyncio.Task[None] | None = None

    async def take(self, batch: RecordBatch) -> None:
        """Normalises a batch; its events are sent on soon, and by the next flush at the latest."""
        if len(self._outbox) >= MOST_WAITING_MESSAGES:
            await self._send()
        if self._waiting_bytes >= self._most_waiting_bytes:
            await self.flush()
        if self._room is not None:
            await self._room()
        async with self._turn:
            provider = batch.topic.removeprefix(f"{self._prefix}.webhooks.")
            messages: list[Message] = []
            webhooks, rejected = [], []
            for record in batch.records:
                webhook = webhook_from(record, provider)
                found = self._normaliser.events(webhook)
                self._metrics.count(provider, found)
                if isinstance(found, Rejection):
                    if found.code == "internal_error":
                        log.error("a webhook of %s is quarantined: %s", provider, found.message)
                    rejected.append((webhook, found))
                else:
                    messages.extend((event.stream_key, event_message(event)) for event in found)
                webhooks.append(webhook)
            self._outbox += messages
            self._batches.append(batch)
            self._rejected += rejected
            if self._archive:
                self._webhooks += webhooks
            self._waiting_bytes += sum(len(webhook.body) + WEBHOOK_BYTES for webhook in webhooks)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_soon())

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
                    await self._producer.send(call_events_topic(self._prefix), messages)
            except BaseException:
                self._outbox = messages + self._outbox
                raise

    async def flush(self) -> None:
        """Makes the rows durable and acknowledges; DestinationUnavailable leaves everything as it was."""
        async with self._turn:
            with self._metrics.flushing("normalise", counts=bool(self._batches)):
                if not self._batches:
                    return
                await self._send()
                stored = await asyncio.to_thread(self._write)
                if stored:
                    quarantined = [(s.webhook_id, quarantine_message(s)) for s in stored]
                    await self._producer.send(quarantine_topic(self._prefix), quarantined)
            for batch in self._batches:
                batch.ack()
            self._batches, self._webhooks, self._rejected, self._waiting_bytes = [], [], [], 0
        await self._commit()

    def _write(self) -> list[StoredRejection]:
        # Redacting whole bodies costs more than all the rest, and so is kept off the event loop.
        now_us = time.time_ns() // 1_000
        self._sink.write_webhooks([self._normaliser.stored(webhook) for webhook in self._webhooks], now_us)
        stored = [StoredRejection(*self._normaliser.stored(webhook), why) for webhook, why in self._rejected]
        self._sink.write_quarantine(stored, now_us)
        return stored

    async def assigned(self, partitions: Partitions) -> None:
        """Nothing to prepare: this step has no state beyond its unacknowledged batches."""

    async def revoked(self, partitions: Partitions) -> None:
        """Acknowledges what there is; what belongs to others by now is acknowledged in vain."""
        await self.flush()

    async def drain(self) -> None:
        """Makes everything durable."""
        await self.flush()

"""The worker's second step: events are folded, and at each flush the records that changed are made durable.

Order of a flush: call records on their topic, then files, then the commit. A crash in between repeats records and
rows, and repeats are harmless, because they are keyed. Files come second because the next worker goes by them: what
the lake shows as published is not produced again.

One kind of record comes after the files: that of a call newly cut out of an agent's stream. A later event may show that
it never was, and what is in no file could not be withdrawn by the next worker. A crash between the two leaves
the events uncommitted, and whoever takes them again tells of their calls again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from pipeline.assemble.assembler import Assembler, Changes
from pipeline.lake import LakeHistory, LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, Remembered, Webhook
from pipeline.normalise import StoredWebhook
from pipeline.stream.handler import Partitions, RecordBatch
from pipeline.stream.messages import event_from, record_message
from pipeline.stream.metrics import WorkerMetrics
from pipeline.stream.producer import Backlog, BulkProducer, Message, partition_of
from pipeline.stream.tenure import Claim
from pipeline.topic_names import call_events_topic, call_records_topic

EVENTS_A_FLUSH = 100_000
"""Events held for the next flush; beyond it the flush comes early.

While nothing can be written, as many again are held by the flush that is tried again, and nothing more is taken: at
most twice this number and one batch (`FETCH_RECORDS`).
"""


@dataclass
class _Unwritten:
    """What a flush set out to make durable; kept until it is."""

    changes: Changes
    batches: list[RecordBatch]
    rejected: list[StoredRejection]
    is_produced: bool = False
    is_written: bool = False

    @property
    def has_anything(self) -> bool:
        return bool(self.batches or self.rejected or self.changes or self.changes.repeated)

    def messages_before_files(self) -> list[Message]:
        """Records of calls that are sure to be calls."""
        records = (record for _, record in self.changes.records)
        return [(r.call_key, record_message(r)) for r in records if r.call_key not in self.changes.uncertain]

    def messages_after_files(self) -> list[Message]:
        """The others, the tombstones, and what is to be told again."""
        changes = self.changes
        records = (record for _, record in changes.records)
        told: list[Message] = [
            (r.call_key, record_message(r)) for r in records if r.call_key in changes.uncertain
        ]
        told += [(record.call_key, None) for _, record in changes.retracted]
        told += [
            (call, None if record is None else record_message(record)) for call, record in changes.repeated
        ]
        return told


class AssembleStep:
    """Handler of `call-events`."""

    def __init__(
        self,
        assembler: Assembler,
        history: LakeHistory,
        producer: BulkProducer,
        sink: LakeSink,
        *,
        prefix: str,
        caught_up: Callable[[str, int], bool],
        claim: Callable[[], Claim],
        commit: Callable[[], Awaitable[object]],
        metrics: WorkerMetrics,
        stored: Callable[[Webhook], StoredWebhook],
        events_a_flush: int = EVENTS_A_FLUSH,
        backlog: Backlog | None = None,
    ) -> None:
        self._stored = stored
        self._assembler = assembler
        self._history = history
        self._producer = producer
        self._sink = sink
        self._prefix = prefix
        self._topic = call_events_topic(prefix)
        self._caught_up = caught_up
        self._claim = claim
        self._commit = commit
        self._metrics = metrics
        self._events_a_flush = events_a_flush
        self._backlog = backlog
        self._turn = asyncio.Lock()
        self._newest_us: dict[int, int] = {}
        self._published_us = 0
        self._batches: list[RecordBatch] = []
        self._rejected: list[StoredRejection] = []
        self._waiting = 0
        self._unwritten: _Unwritten | None = None

    async def take(self, batch: RecordBatch) -> None:
        """Adds a batch of events; bears the same batch again."""
        if self._waiting >= self._events_a_flush:
            await self.flush()
        async with self._turn:
            events = []
            for record in batch.records:
                try:
                    events.append(event_from(record.value))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    self._rejected.append(self._foreign(record.value or b"", record.timestamp, error))
            self._assembler.add(batch.partition, events)
            newest_us = max((event.received_us for event in events), default=0)
            self._newest_us[batch.partition] = max(newest_us, self._newest_us.get(batch.partition, 0))
            self._batches.append(batch)
            self._waiting += len(events)

    async def flush(self) -> None:
        """Makes durable what changed, then acknowledges. On DestinationUnavailable the next flush goes on."""
        async with self._turn:
            claim = self._claim()
            claim()
            if self._unwritten is None:
                now_us = time.time_ns() // 1_000
                changes = self._assembler.collect(lambda partition: self._as_of_us(partition, now_us))
                self._unwritten = _Unwritten(changes, self._batches, self._rejected)
                self._batches, self._rejected, self._waiting = [], [], 0
            with self._metrics.flushing("assemble", counts=self._unwritten.has_anything):
                await self._make_durable(self._unwritten, claim)
            self._unwritten = None
        await self._commit()

    def _foreign(self, value: bytes, timestamp_ms: int, error: Exception) -> StoredRejection:
        """A message on `call-events` that is not ours: whose it is cannot be told, so only its bytes are kept."""
        webhook = Webhook("unknown", timestamp_ms * 1_000, value)
        # The error's own text may quote what is in the message.
        rejection = Rejection("assemble", "bad_shape", None, f"not a call event: {type(error).__name__}")
        return StoredRejection(*self._stored(webhook), rejection)

    def _as_of_us(self, partition: int, now_us: int) -> int:
        # Timers run on the data's time, so that a replay closes calls as the stream did. A partition that is
        # caught up takes the wall clock, or a quiet one would never close a call.
        newest_us = self._newest_us.get(partition, 0)
        return max(newest_us, now_us) if self._caught_up(self._topic, partition) else newest_us

    async def _make_durable(self, unwritten: _Unwritten, claim: Claim) -> None:
        if not unwritten.is_produced:
            await self._produce(unwritten.messages_before_files())
            unwritten.is_produced = True
        if not unwritten.is_written:
            await asyncio.to_thread(self._write, unwritten, claim)
            unwritten.is_written = True
        await self._produce(unwritten.messages_after_files(), claim)
        changes = unwritten.changes
        self._metrics.records.inc(len(changes.records))
        self._metrics.streams.set(len(self._assembler))
        for batch in unwritten.batches:
            batch.ack()
            if self._backlog is not None:
                self._backlog.committed(batch.partition, batch.records[-1].offset)

    async def _produce(self, messages: list[Message], claim: Claim = lambda: None) -> None:
        if messages:
            claim()
            await self._producer.send(call_records_topic(self._prefix), messages)

    def _write(self, unwritten: _Unwritten, claim: Claim) -> None:
        changes, now_us = unwritten.changes, self._publishing_us()
        self._sink.write_calls(changes.events, changes.records, changes.retracted, now_us, claim)
        self._sink.write_quarantine(unwritten.rejected, now_us)
        self._history.note(key for key, _ in changes.records)
        self._history.note(placed.event.stream_key for placed in changes.events if placed.call_key is None)

    def _publishing_us(self) -> int:
        # Of two rows that say different things at one revision the later one counts, so that time never goes
        # back: not with this machine's clock, nor behind what another machine has written of these calls.
        self._published_us = max(time.time_ns() // 1_000, self._published_us + 1)
        return self._published_us

    async def assigned(self, partitions: Partitions) -> None:
        """Takes up the calls that were going on in these partitions when they were last made durable."""
        count = await self._producer.partitions(self._topic)
        async with self._turn:
            found = await asyncio.to_thread(self._recall, {number for _, number in partitions}, count)
            # Not on that thread: when this is called off meanwhile, nothing may be taken up.
            for number, remembered in found:
                self._assembler.restore(number, remembered)
                await asyncio.sleep(0)
            self._published_us = max(self._published_us, self._history.newest_published_us)

    def _recall(self, numbers: set[int], count: int) -> list[tuple[int, dict[str, Remembered]]]:
        self._history.refresh()
        wanted = {key: partition_of(key, count) for key in self._history.open_streams()}
        remembered = self._history.remember([key for key, number in wanted.items() if number in numbers])
        found: dict[int, dict[str, Remembered]] = {}
        for key, past in remembered.items():
            found.setdefault(wanted[key], {})[key] = past
        return list(found.items())

    async def revoked(self, partitions: Partitions) -> None:
        """Makes durable what there is, then forgets the partitions: another worker has them.

        What could not be made durable is forgotten too: it was not committed, so the next owner reads it again.
        """
        try:
            await self.drain()
        finally:
            async with self._turn:
                numbers = [number for _, number in partitions]
                self._assembler.drop(numbers)
                for number in numbers:
                    self._newest_us.pop(number, None)
                self._unwritten, self._batches, self._rejected, self._waiting = None, [], [], 0

    async def drain(self) -> None:
        """Makes everything durable."""
        await self.flush()
        if self._batches:
            # That was an earlier flush, which had failed; what came since is still to be written.
            await self.flush()

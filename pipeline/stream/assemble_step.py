"""The worker's second step: events are folded, and at each flush the records that changed are made durable.

A call is folded by whoever owns its home partition (`home_partition`), whichever way its events come there.

Order of a flush: call records on their topic, then files, then the commit. A crash in between repeats records and
rows, and repeats are harmless, because they are keyed. Files come second because the next worker goes by them: what
the lake shows as published is not produced again.

One kind of record comes after the files: that of a call newly cut out of an agent's stream. A later event may show that
it never was, and what is in no file could not be withdrawn by the next worker. A crash between the two leaves
the events uncommitted, and whoever takes them again tells of their calls again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from pipeline import native
from pipeline.durable import AnyAssembler, AnyChanges, write_changes
from pipeline.errors import DestinationUnavailable
from pipeline.lake import LakeHistory, LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import CallEvent, Rejection, Remembered, Webhook
from pipeline.normalise import StoredWebhook
from pipeline.stream.handler import RecordBatch
from pipeline.stream.messages import event_from, messages_after_files, messages_before_files, time_zero_us
from pipeline.stream.metrics import WorkerMetrics
from pipeline.stream.producer import AnyMessages, Backlog, BulkProducer, Message
from pipeline.stream.tenure import Claim
from pipeline.topic_names import call_events_topic, call_records_topic, home_partition, webhooks_topic

log = logging.getLogger(__name__)

EVENTS_A_FLUSH = 40_000
"""Events held for the next flush; beyond it the flush comes early, and as many again are taken while it is written.

When these wait too, nothing more is taken: held are at most twice this number and one batch (`FETCH_RECORDS`).
"""


Shard = tuple[str, int]


@dataclass
class _Unwritten:
    """What a flush set out to make durable; kept until it is."""

    changes: AnyChanges
    acks: list[Callable[[], None]]
    rejected: list[StoredRejection]
    is_produced: bool = False
    is_written: bool = False

    @property
    def has_anything(self) -> bool:
        return bool(self.acks or self.rejected or self.changes or self.changes.repeats())


class AssembleStep:
    """Takes the batches of `call-events`, and events that need not go over it.

    Calls are kept in shards, (provider, partition), each with a time of its own: a provider's backlog says nothing
    of the others' calls. `read` are the topics whose webhooks are folded here without the detour, as far as known.
    """

    def __init__(
        self,
        assembler: AnyAssembler,
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
        self.read: frozenset[str] = frozenset()
        self._partitions = 0
        #: held while the calls in memory are looked at or changed
        self._turn = asyncio.Lock()
        #: held, before `_turn`, from collecting changes until they are durable; events are taken meanwhile
        self._flushing = asyncio.Lock()
        self._newest_us: dict[Shard, int] = {}
        self._published_us = 0
        self._acks: list[Callable[[], None]] = []
        self._rejected: list[StoredRejection] = []
        self._waiting = 0
        self._unwritten: _Unwritten | None = None
        self._early: asyncio.Task[None] | None = None
        #: what ended an early flush, if it was no absent destination
        self._fault: Exception | None = None

    async def make_room(self) -> None:
        """Begins a flush when enough events wait for one; waits for it when as many again do."""
        if self._waiting < self._events_a_flush:
            return
        if self._flushing.locked() or self._unwritten is not None:
            await self.flush()
            return
        self._early = asyncio.create_task(self._flush_early())
        # It gets to where it waits for Kafka: what is taken now belongs to the flush after it.
        await asyncio.sleep(0)

    async def _flush_early(self) -> None:
        try:
            await self.flush()
        except DestinationUnavailable as problem:
            # The next flush goes on with it, and tells, or whoever needs its room waits for that.
            log.debug("a flush is put off: %s", problem)
        except Exception as error:  # noqa: BLE001  nobody waits for this one: the next flush raises it
            self._fault = error

    async def take(self, batch: RecordBatch) -> None:
        """Adds a batch of events; bears the same batch again. What is not at home here goes on to its home."""
        await self.make_room()
        strays: list[Message] = []
        events: dict[str, list[CallEvent]] = {}
        rejected = []
        for record in batch.records:
            try:
                event = event_from(record.value)
                if native.IS_COMPILED:
                    # As it will be added: numbers too large for the lake are seen here, and not at the flush.
                    native.Events.of([event])
            except (
                msgspec.DecodeError,
                UnicodeDecodeError,
                RecursionError,
                OverflowError,
                ValueError,
            ) as error:
                rejected.append(self._foreign(record.value or b"", record.timestamp, error))
                continue
            if home_partition(event.stream_key.encode(), self._partitions) == batch.partition:
                events.setdefault(event.provider, []).append(event)
            else:
                strays.append((event.stream_key, record.value))
        if strays:
            # From before home was where it is now, or by somebody else's producer.
            await self._producer.send(self._topic, strays, home_partition)
        async with self._turn:
            for provider, own in events.items():
                self._add(batch.partition, provider, own)
            self._rejected += rejected
            self._acks.append(self._acknowledging(batch))

    async def add(
        self, number: int, provider: str, events: list[CallEvent] | native.Events, ack: Callable[[], None]
    ) -> None:
        """Adds one provider's events that are at home in this partition; `ack` is called once they are durable."""
        async with self._turn:
            self._add(number, provider, events)
            self._acks.append(ack)

    def _add(self, number: int, provider: str, events: list[CallEvent] | native.Events) -> None:
        shard = (provider, number)
        newest_us = (
            events.newest_us if isinstance(events, native.Events) else max(e.received_us for e in events)
        )
        self._newest_us[shard] = max(newest_us or 0, self._newest_us.get(shard, 0))
        self._waiting += len(events)
        # The compiled assembler takes its events away.
        self._assembler.add(shard, events)  # type: ignore[arg-type]

    def _acknowledging(self, batch: RecordBatch) -> Callable[[], None]:
        """How a batch is acknowledged, without its records: they are not held until then."""
        ack, partition, last_offset = batch.ack, batch.partition, batch.records[-1].offset

        def acknowledge() -> None:
            ack()
            if self._backlog is not None:
                self._backlog.committed(partition, last_offset)

        return acknowledge

    async def flush(self) -> None:
        """Makes durable what changed, then acknowledges. On DestinationUnavailable the next flush goes on."""
        async with self._flushing:
            if self._fault is not None:
                # Changes may be half collected: to acknowledge anything now could lose calls.
                raise self._fault
            claim = self._claim()
            claim()
            if self._unwritten is None:
                async with self._turn:
                    now_us = time.time_ns() // 1_000
                    changes = self._assembler.collect(lambda shard: self._as_of_us(shard, now_us))
                    self._unwritten = _Unwritten(changes, self._acks, self._rejected)
                    self._acks, self._rejected, self._waiting = [], [], 0
            with self._metrics.flushing("assemble", counts=self._unwritten.has_anything):
                await self._make_durable(self._unwritten, claim)
            self._unwritten = None
        await self._commit()

    def _foreign(self, value: bytes, timestamp_ms: int | None, error: Exception) -> StoredRejection:
        """A message on `call-events` that is not ours: whose it is cannot be told, so only its bytes are kept."""
        webhook = Webhook("unknown", time_zero_us(timestamp_ms), value)
        # The error's own text may quote what is in the message.
        rejection = Rejection("assemble", "bad_shape", None, f"not a call event: {type(error).__name__}")
        return StoredRejection(*self._stored(webhook), rejection)

    def _as_of_us(self, shard: Shard, now_us: int) -> int:
        # Timers run on the data's time, so that a replay closes calls as the stream did. A partition that is
        # caught up takes the wall clock, or a quiet one would never close a call.
        provider, number = shard
        newest_us, webhooks = self._newest_us.get(shard, 0), webhooks_topic(self._prefix, provider)
        is_caught_up = self._caught_up(self._topic, number) and (
            webhooks not in self.read or self._caught_up(webhooks, number)
        )
        return max(newest_us, now_us) if is_caught_up else newest_us

    async def _make_durable(self, unwritten: _Unwritten, claim: Claim) -> None:
        if not unwritten.is_produced:
            await self._produce(messages_before_files(unwritten.changes))
            unwritten.is_produced = True
        if not unwritten.is_written:
            await asyncio.to_thread(self._write, unwritten, claim)
            unwritten.is_written = True
        await self._produce(messages_after_files(unwritten.changes), claim)
        _, records, _ = unwritten.changes.counts()
        self._metrics.records.inc(records)
        self._metrics.streams.set(len(self._assembler))
        for acknowledge in unwritten.acks:
            acknowledge()

    async def _produce(self, messages: AnyMessages, claim: Claim = lambda: None) -> None:
        if messages:
            claim()
            await self._producer.send(call_records_topic(self._prefix), messages)

    def _write(self, unwritten: _Unwritten, claim: Claim) -> None:
        now_us = self._publishing_us()
        write_changes(self._sink, self._history, unwritten.changes, now_us, claim)
        self._sink.write_quarantine(unwritten.rejected, now_us)

    def _publishing_us(self) -> int:
        # Of two rows that say different things at one revision the later one counts, so that time never goes
        # back: not with this machine's clock, nor behind what another machine has written of these calls.
        self._published_us = max(time.time_ns() // 1_000, self._published_us + 1)
        return self._published_us

    async def assigned(self, numbers: set[int], partitions: int) -> None:
        """Takes up the calls that were going on in these partitions when they were last made durable.

        `partitions` is how many there are of `call-events`.
        """
        async with self._turn:
            self._partitions = partitions
            found = await asyncio.to_thread(self._recall, numbers, partitions)
            # Not on that thread: when this is called off meanwhile, nothing may be taken up.
            for shard, remembered in found:
                self._newest_us.setdefault(shard, 0)
                self._assembler.restore(shard, remembered)
                await asyncio.sleep(0)
            self._published_us = max(self._published_us, self._history.newest_published_us)

    def _recall(self, numbers: set[int], partitions: int) -> list[tuple[Shard, dict[str, Remembered]]]:
        self._history.refresh()
        homes = {key: home_partition(key.encode(), partitions) for key in self._history.open_streams()}
        remembered = self._history.remember([key for key, number in homes.items() if number in numbers])
        found: dict[Shard, dict[str, Remembered]] = {}
        for key, past in remembered.items():
            if past.events:
                found.setdefault((past.events[0].provider, homes[key]), {})[key] = past
        return list(found.items())

    async def revoked(self) -> None:
        """Makes durable what there is, then forgets it: the partitions are another worker's from now on.

        What could not be made durable is forgotten too: it was not committed, so the next owner reads it again.
        """
        try:
            await self.drain()
        finally:
            async with self._flushing, self._turn:
                self._assembler.drop(list(self._newest_us))
                self._newest_us = {}
                self._unwritten, self._acks, self._rejected, self._waiting = None, [], [], 0

    async def drain(self) -> None:
        """Makes everything durable."""
        await self.flush()
        if self._acks:
            # That was an earlier flush, which had failed; what came since is still to be written.
            await self.flush()

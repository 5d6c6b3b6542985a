# ruff: noqa: SLF001  Faust and aiokafka offer no public way to what is replaced here; both are pinned exactly
"""Faust's aiokafka transport, handing over whole batches instead of single records.

Faust spends about 200 microseconds on each message it passes to a stream. Here the records that one fetch
brought for one partition travel as ONE Faust message, whose value is the list of raw aiokafka records and
whose acknowledgement covers the whole range of offsets. Application, agents, group membership, rebalance and
flow control remain Faust's own.

Rules kept here, because Faust's own bookkeeping breaks each of them for ranges of offsets:

1. The offset committed is the end of the longest run of acknowledged batches, counted from the oldest batch
   handed over. Batches may be acknowledged in any order and at any time.
2. What was handed over before a rebalance can no longer move an offset: its partitions are read again from
   the last commit, by whoever owns them then.
3. A commit that fails moves nothing and is tried again; it does not bring the worker down.
4. What a fetch brought in the midst of a rebalance is not handed over, and is fetched again: by then aiokafka may
   already count from behind it.
5. Whether partitions are still ours is known from what the group coordinator has answered (`stream/tenure.py`),
   not from what Faust believes.

In flight are at most: what the agents' queues take (`stream_buffer_maxsize` batches a topic, after which the
partition is no longer fetched) and what handlers hold without acknowledging, which is theirs to bound.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, RebalanceInProgressError
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from pipeline.stream.frames import read_frames
from pipeline.stream.ledger import OffsetLedger, Receipt
from pipeline.stream.records import as_decoded
from pipeline.stream.tenure import Tenure

log = logging.getLogger(__name__)

FETCH_WAIT_MS = 250
ANSWER_BYTES = 16 * 1024 * 1024
"""Of all partitions together: what waits here for its turn, and the buffer that it was read into, are no larger."""
_CONFIRMING = {HeartbeatRequest: (0, RebalanceInProgressError.errno), SyncGroupRequest: (0,)}
"""The answers, by request, that only a living member gets. One that is to join again is a member all the same."""

RebalanceHook = Callable[[set[TP]], Awaitable[None]]


class BatchMessage(ConsumerMessage):
    """A Faust message that stands for a whole fetched batch; its offset is the last record's."""

    __slots__ = ("receipt",)
    receipt: Receipt


class BatchSchema(faust.Schema):
    """Leaves the records in their message, undecoded: Faust acknowledges silently what it cannot decode."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """No key: each record of the batch has its own."""
        return None

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """None: whatever it is, Faust holds it until the next batch comes."""
        return None


async def _no_hook(partitions: set[TP]) -> None:
    return None


class PromptConsumerThread(driver.AIOKafkaConsumerThread):
    """Waits less for an empty partition, so that the end known of it is fresh.

    The embedded broker answers a waiting fetch only at the end of the wait, not when a record comes.
    """

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_max_bytes = ANSWER_BYTES
        consumer._value_deserializer = as_decoded
        read_frames(consumer._client)
        return consumer

    async def on_start(self) -> None:
        """Start aiokafka's consumer, and listen to what its group coordinator is answered (rule 5)."""
        await super().on_start()
        coordinator, tenure = self._consumer._coordinator, self.consumer.tenure
        send = coordinator._send_req

        async def send_and_listen(request: Any) -> Any:
            sent_at = tenure.clock()
            response = await send(request)
            # Other answers have no such field at all.
            if type(request) in _CONFIRMING and response.error_code in _CONFIRMING[type(request)]:
                tenure.confirm(sent_at)
            return response

        coordinator._send_req = send_and_listen


class BatchConsumer(driver.Consumer):
    """Faust's consumer with rules 1 to 5 in the place of its own bookkeeping."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledger = OffsetLedger()
        self.tenure: Tenure = self.app.tenure
        #: awaited before the first record of newly assigned partitions is handed over
        self.before_assigned: RebalanceHook = getattr(self.app, "before_assigned", _no_hook)
        #: awaited while revoked partitions are still ours: what it acknowledges is still committed
        self.before_revoked: RebalanceHook = getattr(self.app, "before_revoked", _no_hook)

    def _new_consumer_thread(self) -> PromptConsumerThread:
        return PromptConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109  Faust's signature
        """Fetch once and yield each partition's records as one message."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        generation = self.app.consumer_generation_id
        records, _ = await self._wait_next_records(timeout)
        unread = {tp: batch for tp, batch in (records or {}).items() if batch}
        del records  # it would hold the first batches until the last is handed over
        while unread and self._is_current(generation):
            tp = next(iter(unread))
            message = self._batch_message(tp, unread.pop(tp))
            # Faust would drop what it believes to have read before; the ledger knows better.
            self._read_offset[tp] = None
            yield tp, message
        if unread and not self.should_stop:
            await self._rewind(set(unread))

    def _is_current(self, generation: int) -> bool:
        """Whether records fetched in this generation of the group may still be handed over."""
        return self.flow_active and not self.should_stop and self.app.consumer_generation_id == generation

    async def _rewind(self, partitions: set[TP]) -> None:
        """Fetch again what a rebalance kept from being handed over (rule 4)."""
        targets = {tp: self.ledger.next_offset(tp) for tp in partitions}
        try:
            await self._thread.call_thread(self._seek_to_unread, targets)
        except (IllegalStateError, KafkaError) as problem:
            # Not ours any more, or assigned anew: then it is read from the last commit anyway.
            log.info("rebalanced again while rewinding: %r", problem)

    async def _seek_to_unread(self, targets: dict[TP, int | None]) -> None:
        consumer = self._thread._ensure_consumer()
        for tp, handed_over in targets.items():
            position = TopicPartition(*tp)
            if position not in consumer.assignment():
                continue
            offset = await consumer.committed(position) if handed_over is None else handed_over
            if offset is None:
                await consumer.seek_to_beginning(position)
            else:
                consumer.seek(position, offset)

    def _batch_message(self, tp: TP, batch: list[Any]) -> BatchMessage:
        last = batch[-1]
        message = BatchMessage(
            tp.topic, tp.partition, last.offset, (last.timestamp or 0) / 1000.0, last.timestamp_type,
            None, None, batch, None, 0, 0, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        message.receipt = self.ledger.hand_over(tp, last.offset + 1)
        return message

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """No gaps: Faust would take a batch's own range for one and commit past it."""

    def ack(self, message: Any) -> bool:
        """Acknowledge the whole batch."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        return self.ledger.settle(message.tp, message.receipt)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what the ledger allows; false if there was nothing or Kafka refused."""
        offsets = dict(self._uncommitted())
        if not offsets:
            return False
        request = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            await self._thread.call_thread(self._thread._ensure_consumer().commit, request)
        except (CommitFailedError, IllegalStateError):
            log.info("commit came after a rebalance: these records are read again")
            return False
        except KafkaError as problem:
            log.warning("commit failed, it will be tried again: %r", problem)
            return False
        self._committed_offset.update(offsets)
        return True

    def _uncommitted(self) -> Iterator[tuple[TP, int]]:
        committable = self.ledger.committable()
        # Asked before anything was handed over, there may not even be a consumer yet.
        mine = self.assignment() if committable else set()
        for tp, offset in committable.items():
            if tp in mine and offset > (self._committed_offset.get(tp) or 0):
                yield tp, offset

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let handlers finish, commit, and void the rest."""
        self.stop_flow()
        self.app.flow_control.suspend()
        await self.before_revoked(revoked)
        if not self.app.is_closing:
            # On the way out everything has been committed, and the thread that commits may wait for us already.
            await self.force_commit()
        self.tenure.end()
        self.ledger.forget(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Let handlers prepare before anything is read."""
        self.ledger.forget(assigned)
        self.tenure.begin()
        await self.before_assigned(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    def release_thread(self) -> None:
        """Close the event loop of a consumer thread that was made and never started; mode forgets it."""
        loop = self._thread.thread_loop
        if not loop.is_running() and not loop.is_closed():
            loop.close()

    async def verify_all_partitions_active(self) -> None:
        """Faust's alarms assume an acknowledgement soon after each message; ours wait for a flush."""

    def has_reached_end(self, tp: TP) -> bool:
        """Whether every record up to the end known from the last fetch has been taken by its handler."""
        state = self._state_of(tp)
        if state is None or state.highwater is None or self.ledger.is_waiting(tp):
            return False
        return bool(state.position >= state.highwater)

    def position_of(self, tp: TP) -> int | None:
        """The offset that is fetched next; None while it is not ours or not known yet."""
        state = self._state_of(tp)
        return None if state is None else int(state.position)

    def _state_of(self, tp: TP) -> Any:
        """The state that aiokafka keeps of a partition that is ours and has a position, else None."""
        aiokafka_consumer = self._thread._consumer
        subscription = aiokafka_consumer._subscription.subscription if aiokafka_consumer else None
        assignment = subscription.assignment if subscription else None
        if assignment is None or TopicPartition(*tp) not in assignment.tps:
            return None
        state = assignment.state_value(TopicPartition(*tp))
        return state if state.has_valid_position else None


class BatchTransport(driver.Transport):
    """The aiokafka transport with `BatchConsumer` in it."""

    Consumer = BatchConsumer

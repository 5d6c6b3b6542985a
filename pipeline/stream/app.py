"""The stream shell: feeds batches to handlers, and commits only what they have acknowledged.

It knows Kafka and nothing of calls. A handler gets batches of raw records, may keep them as long as it
likes, and acknowledges each once what came of it is durable. For one handler `take`, `assigned`, `revoked`
and `drain` never run at the same time.

What an exception in a handler does: `DestinationUnavailable` means the same call is made again after a pause;
anything else stops the worker, with nothing acknowledged. Faust by itself would acknowledge in both cases.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from typing import Any, cast

import faust
from faust.types import TP

from pipeline.errors import CallfoldError, DestinationUnavailable
from pipeline.settings import Settings
from pipeline.stream.connection import client_options
from pipeline.stream.handler import BatchHandler, Partitions, RecordBatch
from pipeline.stream.offsets import read_offsets
from pipeline.stream.progress import Offsets, ProgressWatch
from pipeline.stream.tenure import Tenure, TenureLostError
from pipeline.stream.transport import BatchConsumer, BatchMessage, BatchSchema, BatchTransport

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
#: a handler that is to give partitions up has so long for it; the group waits for twice as long (Faust's default)
GIVE_UP_SECONDS = 30.0


class _Feed:
    """One handler with its topics, and the two things that order the calls to it."""

    def __init__(self, topics: tuple[str, ...], handler: BatchHandler) -> None:
        self.topics = topics
        self.handler = handler
        self.turn = asyncio.Lock()
        self.is_ready = asyncio.Event()
        self.preparing: asyncio.Task[None] | None = None

    def called(self, name: str) -> str:
        return f"{type(self.handler).__name__}.{name}"

    def own(self, partitions: set[TP]) -> Partitions:
        return frozenset((tp.topic, tp.partition) for tp in partitions if tp.topic in self.topics)


class StreamApp(faust.App):
    """A Faust application whose agents are batch handlers."""

    def __init__(self, *args: Any, settings: Settings, **options: Any) -> None:
        super().__init__(*args, **options)
        self._settings = settings
        self._broker_url: str = options["broker"]
        self.tenure = Tenure(options["broker_session_timeout"])
        self._feeds: list[_Feed] = []
        self.watch = ProgressWatch(self, settings.stuck_seconds)
        self._timers: list[tuple[float, Callable[[], Awaitable[None]], str | None, float]] = []
        self._timer_tasks: list[asyncio.Task[None]] = []
        self.is_closing = False
        self._is_drained = asyncio.Event()
        #: set when the worker cannot go on; `failure` says why
        self.has_failed = asyncio.Event()
        self.failure: BaseException | None = None

    def _create_directories(self) -> None:
        """None: without tables there is nothing to keep in them."""

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    def handle(self, topics: str | tuple[str, ...], handler: BatchHandler) -> None:
        """Feed these topics to the handler; before the start only."""
        names = (topics,) if isinstance(topics, str) else topics
        feed = _Feed(names, handler)
        self._feeds.append(feed)

        async def consume(stream: Any) -> None:
            async for event in stream.noack().events():
                await self._deliver(feed, event)

        channel = self.topic(*names, schema=BatchSchema())
        self.agent(channel, name=f"{self.conf.id}.{names[0]}", concurrency=1)(consume)

    def every(
        self,
        seconds: float,
        action: Callable[[], Awaitable[None]],
        *,
        may_last: bool = False,
        first_seconds: float | None = None,
    ) -> None:
        """Await `action` again and again, `seconds` after it last began or once it returns, while the worker runs.

        One that `may_last` is not held for a standstill, however long it takes. The first is after `first_seconds`.
        """
        what = None if may_last else action.__qualname__
        self._timers.append((seconds, action, what, seconds if first_seconds is None else first_seconds))

    async def read_offsets(self, partitions: Iterable[tuple[str, int]]) -> Offsets:
        """How far the group has come in these partitions; `KafkaError` or `OSError` if Kafka does not tell."""
        return await read_offsets(self._broker_url, self.conf.id, partitions, client_options(self._settings))

    def caught_up(self, topic: str, partition: int) -> bool:
        """Whether the handlers have taken every record that the last fetch knew of in the partition."""
        consumer = self._consumer
        return consumer is not None and cast(BatchConsumer, consumer).has_reached_end(TP(topic, partition))

    async def commit_now(self) -> bool:
        """Commit what is acknowledged and wait for it; false if there was nothing or Kafka refused."""
        consumer = cast(BatchConsumer, self.consumer)
        # A commit that is under way may have begun before the last acknowledgement.
        while await consumer.maybe_wait_for_commit_to_finish():
            pass
        return bool(await consumer.commit())

    def release(self) -> None:
        """Free what a failed start leaves behind; after the stop only."""
        if self._consumer is not None:
            cast(BatchConsumer, self._consumer).release_thread()

    def fail(self, problem: BaseException) -> None:
        """Stop the worker because of this; nothing more is taken or acknowledged."""
        if self.failure is None:
            self.failure = problem
            if not isinstance(problem, CallfoldError):
                log.error("the worker stops: %r", problem, exc_info=problem)
        self.is_closing = True
        self._is_drained.set()
        self.has_failed.set()

    async def _deliver(self, feed: _Feed, event: Any) -> None:
        message: BatchMessage = event.message
        receipt = message.receipt
        batch = RecordBatch(message.topic, message.partition, message.value, event.ack)
        # Faust keeps the message until it is acknowledged. The records are held by who works on them alone.
        message.value = None
        await feed.is_ready.wait()
        receipt.is_taken = await self._persist(
            feed, "take", lambda: feed.handler.take(batch), lambda: not receipt.is_void
        )
        if receipt.is_taken:
            self.watch.taken(feed.topics)
        if self.is_closing:
            await asyncio.Event().wait()  # take nothing more, until Faust cancels its agents

    async def _persist(
        self, feed: _Feed, name: str, call: Callable[[], Awaitable[None]], is_wanted: Callable[[], bool]
    ) -> bool:
        """Make a call in the handler's turn until it succeeds; false if the worker closes or unwanted."""
        pause = FIRST_PAUSE_SECONDS
        while self._goes_on(is_wanted):
            async with feed.turn:
                if self._goes_on(is_wanted) and await self._attempt(call, feed.called(name)):
                    return True
            await asyncio.sleep(pause)
            # A worker that only pauses must not look as if it stood still.
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS, self.watch.stuck_seconds / 4)
        return False

    def _goes_on(self, is_wanted: Callable[[], bool]) -> bool:
        return is_wanted() and not self.is_closing

    async def _attempt(self, call: Callable[[], Awaitable[None]], what: str | None) -> bool:
        try:
            with nullcontext() if what is None else self.watch.running(what):
                await call()
        except DestinationUnavailable as problem:
            self.watch.excuse()
            if not isinstance(problem, TenureLostError):
                self.watch.on_unavailable()
            log.warning("nothing is lost, it will be tried again: %s", problem)
            return False
        except Exception as problem:  # noqa: BLE001  any other failure of a handler stops the worker
            self.fail(problem)
            return False
        return True

    async def before_assigned(self, assigned: set[TP]) -> None:
        """Start each handler's preparations; its agent waits for them, the consumer group need not."""
        for feed in self._feeds:
            feed.is_ready.clear()
            feed.preparing = asyncio.create_task(self._prepare(feed, feed.own(assigned)))

    async def _prepare(self, feed: _Feed, partitions: Partitions) -> None:
        if not partitions or await self._persist(
            feed, "assigned", lambda: feed.handler.assigned(partitions), lambda: True
        ):
            feed.is_ready.set()

    async def before_revoked(self, revoked: set[TP]) -> None:
        """Give handlers a last chance to acknowledge; the rest is read again by the next owner."""
        for feed in self._feeds:
            feed.is_ready.clear()
            if feed.preparing is not None:
                feed.preparing.cancel()
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                if self.is_closing:
                    await self._is_drained.wait()
                else:
                    for feed in self._feeds:
                        await self._give_up(feed, feed.own(revoked))
        except TimeoutError:
            # What a handler still holds would be mixed with what it gets next; a new worker starts from nothing.
            self.fail(CallfoldError(f"partitions could not be given up within {GIVE_UP_SECONDS:g} s"))

    async def _give_up(self, feed: _Feed, partitions: Partitions) -> None:
        if partitions:
            async with feed.turn:
                await self._attempt(lambda: feed.handler.revoked(partitions), feed.called("revoked"))

    def start_timers(self) -> None:
        """Begin what `every` asked for."""
        self.watch.start()
        self._timer_tasks = [asyncio.create_task(self._repeat(*timer)) for timer in self._timers]

    async def _repeat(
        self, seconds: float, action: Callable[[], Awaitable[None]], what: str | None, first_seconds: float
    ) -> None:
        began = time.monotonic() + first_seconds - seconds
        while not self.is_closing:
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
            began = time.monotonic()
            if not await self._attempt(action, what):
                # A destination that is away, or busy, is not asked without a pause.
                began = time.monotonic()

    async def drain(self) -> None:
        """Take nothing more, let every handler make its work durable, and commit."""
        self.is_closing = True
        for task in self._timer_tasks:
            task.cancel()
        await asyncio.gather(*self._timer_tasks, return_exceptions=True)
        try:
            for feed in self._feeds:
                if feed.preparing is not None:
                    feed.preparing.cancel()
                async with feed.turn:
                    await feed.handler.drain()
            await self.commit_now()
        except TenureLostError as lost:
            log.warning("nothing is left to store here: %s", lost)
        finally:
            self._is_drained.set()

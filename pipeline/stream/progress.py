"""Notices a worker that stands still, of which Faust and aiokafka have been seen to give no sign.

It stands still if for `stuck_seconds`, with Kafka answering,

- a partition has messages that were not fetched, no batch waits for its handler, and the position does not move; or
- batches wait for a handler, and it takes none; or
- one call to a handler does not return; or
- the event loop does not turn.

A destination that is away explains the second and the third: each `DestinationUnavailable` is a sign of life, and so is
a Kafka that does not answer (a commit waits for it as long as it takes). A rebalance explains all but the last two.
Time in which the process itself was stopped does not count.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from aiokafka.errors import KafkaError
from faust.types import TP

from pipeline.errors import CallfoldError
from pipeline.stream.offsets import GroupOffset
from pipeline.stream.transport import BatchConsumer

if TYPE_CHECKING:
    from pipeline.stream.app import StreamApp

log = logging.getLogger(__name__)

LOOKS = 8
"""So many in `stuck_seconds`."""
LOOK_SECONDS_AT_MOST = 15.0
ANSWER_SECONDS = 20.0
"""Kafka counts as away when it has not answered for so long."""

Offsets = Mapping[tuple[str, int], GroupOffset]


class _Running:
    """A call to a handler that has not returned."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.seconds = 0.0


class ProgressWatch:
    """Looks at everything whenever `look` is awaited, which is to be every `interval` seconds."""

    def __init__(self, app: "StreamApp", stuck_seconds: float) -> None:
        self._app = app
        self.stuck_seconds = stuck_seconds
        self.interval = min(LOOK_SECONDS_AT_MOST, stuck_seconds / LOOKS)
        self._running: set[_Running] = set()
        self._taken: Counter[str] = Counter()
        self._excuses = 0
        self._looked_at: float | None = None
        self._signs: dict[TP, object] = {}
        self._still_seconds: dict[TP, float] = {}
        self._is_over = threading.Event()
        #: gets what Kafka told of the assigned partitions, at each look
        self.on_offsets: Callable[[Offsets], None] = lambda offsets: None
        #: called when a destination could not take the data
        self.on_unavailable: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Watch the running event loop too, from outside, until `stop`."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch_loop, args=(loop,), name="progress", daemon=True).start()

    def stop(self) -> None:
        """The loop is about to end, or may."""
        self._is_over.set()

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Around each call to a handler."""
        call = _Running(what)
        self._running.add(call)
        try:
            yield
        finally:
            self._running.discard(call)

    def taken(self, topics: tuple[str, ...]) -> None:
        """The handler of these topics has taken a batch."""
        self._taken.update(topics)

    def excuse(self) -> None:
        """A destination is away: waiting for it is no standstill."""
        self._excuses += 1
        for call in self._running:
            call.seconds = 0.0

    async def look(self) -> None:
        """Raises `CallfoldError` once something stands still; a restarted worker reads on from the last commit."""
        consumer = cast(BatchConsumer, self._app.consumer)
        was_rebalancing = self._app.rebalancing
        partitions = frozenset() if was_rebalancing else frozenset(consumer.assignment())
        offsets = await self._ask(partitions)
        elapsed = self._elapsed()
        if offsets is None:
            self.excuse()
            self._still_seconds.clear()
            return
        self._judge_calls(elapsed)
        if was_rebalancing or self._app.rebalancing:
            self._still_seconds.clear()
        else:
            self.on_offsets(offsets)
            self._judge_partitions(consumer, offsets, elapsed)

    async def _ask(self, partitions: frozenset[TP]) -> Offsets | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                offsets: Offsets = await self._app.read_offsets((tp.topic, tp.partition) for tp in partitions)
                return offsets
        except (KafkaError, OSError, TimeoutError) as problem:
            log.warning("the ends of the partitions cannot be read now: %r", problem)
            return None

    def _elapsed(self) -> float:
        """Seconds since the last look, but not those in which nobody was there to look."""
        now, before = time.monotonic(), self._looked_at
        self._looked_at = now
        return self.interval if before is None else min(now - before, 2 * self.interval)

    def _judge_calls(self, elapsed: float) -> None:
        for call in self._running:
            call.seconds += elapsed
        hung = sorted(call.what for call in self._running if call.seconds > self.stuck_seconds)
        if hung:
            raise self._standstill(f"{', '.join(hung)} does not return")

    def _judge_partitions(self, consumer: BatchConsumer, offsets: Offsets, elapsed: float) -> None:
        partitions = {TP(*partition): offset.end for partition, offset in offsets.items()}
        waiting = [tp for tp in partitions if consumer.ledger.is_waiting(tp)]
        signs: dict[TP, object] = {tp: (self._taken[tp.topic], self._excuses) for tp in waiting}
        if not waiting:
            # One full queue keeps everything from being fetched: nothing is told of the others then.
            positions = {tp: consumer.position_of(tp) for tp in partitions}
            signs = {tp: p for tp, p in positions.items() if p is not None and p < partitions[tp]}
        self._still_seconds = {
            tp: self._still_seconds.get(tp, 0.0) + elapsed if self._signs.get(tp) == sign else 0.0
            for tp, sign in signs.items()
        }
        self._signs = signs
        stuck = sorted(tp for tp, seconds in self._still_seconds.items() if seconds >= self.stuck_seconds)
        if stuck:
            names = ", ".join(f"{tp.topic}/{tp.partition}" for tp in stuck)
            raise self._standstill(f"{names} {'waits for its handler' if waiting else 'is not fetched'}")

    def _standstill(self, what: str) -> CallfoldError:
        return CallfoldError(f"no progress for {self.stuck_seconds:g} s: {what}; start the worker again")

    def _watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        turned = threading.Event()
        missed = 0
        while not self._is_over.wait(self.interval):
            missed = 0 if turned.is_set() else missed + 1
            if missed * self.interval > self.stuck_seconds:
                # Nothing can be done in order any more: whoever blocks the loop keeps everybody from leaving it.
                sys.stderr.write(f"callfold: {self._standstill('the event loop is blocked')}\n")
                sys.stderr.flush()
                os._exit(CallfoldError.exit_code)
            turned.clear()
            try:
                loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return  # closed, at the end of the program

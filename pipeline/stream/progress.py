"""Notices a consumer that has silently stopped, which Faust and aiokafka have been seen to do.

A partition is stuck when it has records that were not fetched, its handler waits for some, and its position has
not moved for several looks. The end of the partition is asked from Kafka anew: a consumer that does not fetch
does not learn of new records either.
"""

import logging
from typing import TYPE_CHECKING, cast

from aiokafka.errors import KafkaError
from faust.types import TP

from pipeline.errors import CallfoldError
from pipeline.stream.transport import BatchConsumer

if TYPE_CHECKING:
    from pipeline.stream.app import StreamApp

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
STUCK_LOOKS = 4


class ProgressWatch:
    """Looks at all assigned partitions whenever `look` is awaited."""

    def __init__(self, app: "StreamApp") -> None:
        self._app = app
        self._positions: dict[TP, int] = {}
        self._looks_without_progress: dict[TP, int] = {}

    async def look(self) -> None:
        """Raises `CallfoldError` once a partition is stuck; a restarted worker reads on from the last commit."""
        if self._app.rebalancing:
            self._looks_without_progress.clear()
            return
        consumer = cast(BatchConsumer, self._app.consumer)
        partitions = consumer.assignment()
        try:
            ends = await consumer.highwaters(*partitions) if partitions else {}
        except (KafkaError, OSError, TimeoutError) as problem:
            log.warning("the ends of the partitions cannot be read now: %r", problem)
            return
        stuck = [tp for tp in partitions if self._is_stuck(consumer, tp, ends.get(tp, 0))]
        if stuck:
            names = ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(stuck))
            raise CallfoldError(
                f"no progress for {LOOK_SECONDS * STUCK_LOOKS:g} s on {names}: start it again"
            )

    def _is_stuck(self, consumer: BatchConsumer, tp: TP, end: int) -> bool:
        position = consumer.position_of(tp)
        is_idle = position is None or position >= end or consumer.ledger.is_waiting(tp)
        if is_idle or position != self._positions.get(tp):
            self._looks_without_progress[tp] = 0
        else:
            self._looks_without_progress[tp] = self._looks_without_progress.get(tp, 0) + 1
        if position is not None:
            self._positions[tp] = position
        return self._looks_without_progress[tp] >= STUCK_LOOKS

"""A worker's two steps as one handler: what is assigned, and in which order it is given up.

Faust deals out partitions of equal number together when their topics have equally many (its assignor calls them
copartitioned): whoever has partition 3 of a provider's webhooks has partition 3 of `call-events` too. That is what
lets a call be folded where its webhooks are read. It is checked with each assignment, and where it does not hold
(somebody made a topic with another number of partitions), all events of that topic go over `call-events`.
"""

from pipeline.stream.assemble_step import AssembleStep
from pipeline.stream.handler import Partitions, RecordBatch
from pipeline.stream.normalise_step import NormaliseStep
from pipeline.stream.producer import BulkProducer


class WorkerSteps:
    """Handler of the topics of webhooks and of `call-events`."""

    def __init__(
        self,
        normalise: NormaliseStep,
        assemble: AssembleStep,
        producer: BulkProducer,
        call_events: str,
        *,
        is_direct: bool,
    ) -> None:
        """`is_direct` allows events to be folded without the detour over the topic `call_events`."""
        self._normalise = normalise
        self._assemble = assemble
        self._producer = producer
        self._call_events = call_events
        self._is_direct = is_direct

    async def take(self, batch: RecordBatch) -> None:
        """Works on a batch of either kind."""
        if batch.topic == self._call_events:
            await self._assemble.take(batch)
        else:
            await self._normalise.take(batch)

    async def assigned(self, partitions: Partitions) -> None:
        """Takes up the calls that are at home here, and finds out which webhooks can be folded where they are read."""
        numbers: dict[str, set[int]] = {}
        for topic, number in partitions:
            numbers.setdefault(topic, set()).add(number)
        own = numbers.pop(self._call_events, set())
        count = await self._producer.partitions(self._call_events)
        found: dict[str, int | None] = {}
        for topic, here in numbers.items():
            is_shared = here <= own and await self._producer.partitions(topic) == count
            found[topic] = count if self._is_direct and is_shared else None
        self._normalise.partitions = found
        self._assemble.read = frozenset(topic for topic, shared in found.items() if shared is not None)
        await self._assemble.assigned(own, count)

    async def revoked(self, partitions: Partitions) -> None:
        """Makes durable what there is, then forgets it: all partitions are revoked at once, then dealt out anew."""
        try:
            await self._normalise.revoked(partitions)
        finally:
            await self._assemble.revoked()

    async def drain(self) -> None:
        """Makes everything durable."""
        await self._normalise.drain()
        await self._assemble.drain()

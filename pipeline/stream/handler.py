"""What the stream shell hands to the steps, and what it asks of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.stream.records import Records

Partition = tuple[str, int]
Partitions = frozenset[Partition]


@dataclass(frozen=True)
class RecordBatch:
    """What one fetch brought for one partition, in the order of its offsets; never empty."""

    topic: str
    partition: int
    records: Records
    ack: Callable[[], object]
    """Says that what came of this batch is durable; does nothing after its partition was revoked.

    It can be kept without the batch, and its records need not be held until then.
    """


class BatchHandler(Protocol):
    """What the shell drives. Partitions are pairs of topic and number, of this handler's topics only."""

    async def take(self, batch: RecordBatch) -> None:
        """Work on a batch; acknowledging it may come much later. Must bear the same batch again."""

    async def assigned(self, partitions: Partitions) -> None:
        """These are ours now: rebuild their state. No batch comes before the end; may be cancelled."""

    async def revoked(self, partitions: Partitions) -> None:
        """These are lost: make durable and acknowledge what is quickly done, and forget their state."""

    async def drain(self) -> None:
        """The worker stops: make everything durable and acknowledge it."""

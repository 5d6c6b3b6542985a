"""Keeps the embedded broker from forgetting webhooks that nobody has read yet.

A partition of that broker keeps only its newest 5 MB. So this counts, for each partition, the bytes that were
produced and that the worker's group has not committed, and says no before they come near that.
"""

from collections import defaultdict, deque
from collections.abc import Mapping

from aiokafka.partitioner import DefaultPartitioner

#: under the 5 MB, because the broker counts whole record batches and other producers may write as well
PARTITION_LIMIT_BYTES = 3_500_000
#: what a record costs beside key, value and headers, at most: a record batch of its own
RECORD_OVERHEAD_BYTES = 120

Partition = tuple[str, int]


class HoldBack:
    """Chooses each record's partition and knows how much of it is still unread."""

    def __init__(self, partitions: int) -> None:
        self._numbers = list(range(partitions))
        self._partitioner = DefaultPartitioner()
        self._unread: dict[Partition, deque[tuple[int, int]]] = defaultdict(deque)
        self._bytes: dict[Partition, int] = defaultdict(int)

    def place(self, topic: str, key: bytes | None, size: int) -> int | None:
        """The partition that takes a record of this size now, its room reserved; None if it has to wait."""
        if key is None:
            number = min(self._numbers, key=lambda number: self._bytes[topic, number])
        else:
            number = int(self._partitioner(key, self._numbers, self._numbers))
        if self._bytes[topic, number] + size > PARTITION_LIMIT_BYTES:
            return None
        self._bytes[topic, number] += size
        return number

    def stored(self, topic: str, number: int, offset: int, size: int) -> None:
        """The record placed there has this offset."""
        self._unread[topic, number].append((offset, size))

    def failed(self, topic: str, number: int, size: int) -> None:
        """The record placed there was not stored."""
        self._bytes[topic, number] -= size

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Everything below these offsets is read."""
        for partition, offset in offsets.items():
            unread = self._unread[partition]
            while unread and unread[0][0] < offset:
                self._bytes[partition] -= unread.popleft()[1]

    def unread(self) -> tuple[Partition, ...]:
        """The partitions whose committed offsets matter now."""
        return tuple(partition for partition, records in self._unread.items() if records)

"""Keeps the embedded broker from forgetting webhooks that nobody has read yet, and tells which are in the lake.

A partition of that broker keeps only its newest 5 MB, in memory. So this counts, for each partition, the bytes that
were produced and that the worker's group has not committed, and says no before they come near that.
"""

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import NamedTuple

from pipeline.collect.received import partition_of

#: under the 5 MB, because the broker counts whole record batches and other producers may write as well
PARTITION_LIMIT_BYTES = 3_500_000

Partition = tuple[str, int]


class _Sent(NamedTuple):
    webhook_id: int
    partition: Partition
    offset: int


class HoldBack:
    """Chooses each record's partition, knows how much of it is still unread, and what has reached the lake.

    A webhook is in the lake when its own offset is committed (its events are then in the lake, or on the topic of
    call events), and what that topic held at this moment is committed as well. `webhook_id` are numbers that rise.
    """

    def __init__(self, partitions: int) -> None:
        self._numbers = list(range(partitions))
        self._unread: dict[Partition, deque[tuple[int, int]]] = defaultdict(deque)
        self._bytes: dict[Partition, int] = defaultdict(int)
        self._committed: dict[Partition, int] = {}
        self._sent: deque[_Sent] = deque()
        self._normalised: deque[tuple[int, Mapping[Partition, int]]] = deque()

    def place(self, topic: str, key: bytes | None, size: int) -> int | None:
        """The partition that takes a record of this size now, its room reserved; None if it has to wait."""
        if key is None:
            number = min(self._numbers, key=lambda number: self._bytes[topic, number])
        else:
            number = partition_of(key, self._numbers, self._numbers)
        held_bytes = self._bytes[topic, number]
        # One that is over the limit by itself has the partition for itself.
        if held_bytes and held_bytes + size > PARTITION_LIMIT_BYTES:
            return None
        self._bytes[topic, number] += size
        return number

    def stored(self, webhook_id: int, topic: str, number: int, offset: int, size: int) -> None:
        """The record placed there has this offset."""
        self._unread[topic, number].append((offset, size))
        self._sent.append(_Sent(webhook_id, (topic, number), offset))

    def failed(self, topic: str, number: int, size: int) -> None:
        """The record placed there was not stored."""
        self._bytes[topic, number] -= size

    def unread(self) -> tuple[Partition, ...]:
        """The partitions whose committed offsets matter now."""
        return tuple(partition for partition, records in self._unread.items() if records)

    @property
    def is_settled(self) -> bool:
        """Whether all that was stored is in the lake."""
        return not self._sent and not self._normalised

    @property
    def is_assembling(self) -> bool:
        """Whether there are webhooks whose events are not all in the lake."""
        return bool(self._normalised)

    def committed(self, offsets: Mapping[Partition, int]) -> int | None:
        """Everything below these offsets is read. The newest webhook for which that is so and was not before."""
        self._committed.update(offsets)
        for partition, offset in offsets.items():
            unread = self._unread[partition]
            while unread and unread[0][0] < offset:
                self._bytes[partition] -= unread.popleft()[1]
        newest = None
        while self._sent and self._sent[0].offset < self._committed.get(self._sent[0].partition, 0):
            newest = self._sent.popleft().webhook_id
        return newest

    def normalised(self, webhook_id: int, call_events_ends: Mapping[Partition, int]) -> None:
        """The webhooks up to this one are events, all of them below these offsets."""
        self._normalised.append((webhook_id, call_events_ends))

    def assembled(self, offsets: Mapping[Partition, int]) -> int | None:
        """The call events below these offsets are in the lake; the newest webhook that is, if any more are."""
        newest = None
        while self._normalised and all(
            offsets.get(partition, 0) >= end for partition, end in self._normalised[0][1].items()
        ):
            newest = self._normalised.popleft()[0]
        return newest

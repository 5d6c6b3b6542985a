"""When streams want to be looked at next, so that a flush looks at those and at no others.

Each partition has a time of its own, which may also go back. Times are kept to about a second (`bucket_of`): what is
given out may be a little too early, and whoever takes it looks at the exact time.
"""

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from typing import Final

_BITS: Final = 20


def bucket_of(us: int) -> int:
    """The second or so (2**20 us) that an instant is in."""
    return us >> _BITS


class Timetable:
    """Keys by bucket. A key stands in one bucket at most, and whoever puts it there remembers in which."""

    def __init__(self) -> None:
        self._partitions: dict[Hashable, _Buckets] = {}

    def partitions(self) -> list[Hashable]:
        """Those with any keys, or with keys not long ago."""
        return list(self._partitions)

    def put(self, partition: Hashable, key: str, bucket: int) -> None:
        """Notes the key, which is in no bucket."""
        if partition not in self._partitions:
            self._partitions[partition] = _Buckets()
        self._partitions[partition].put(key, bucket)

    def discard(self, partition: Hashable, key: str, bucket: int) -> None:
        """Forgets the key, which is in this bucket."""
        self._partitions[partition].discard(key, bucket)

    def take_due(self, partition: Hashable, now_us: int) -> Iterator[str]:
        """Takes out the keys of all buckets that have begun by now: earlier buckets first."""
        return self._partitions[partition].take_until(bucket_of(now_us))

    def drop(self, partition: Hashable) -> None:
        """Forgets all keys of a partition."""
        self._partitions.pop(partition, None)


class _Buckets:
    """A partition's keys. Dicts serve as sets, since they keep an order that does not change from run to run."""

    def __init__(self) -> None:
        self._keys: dict[int, dict[str, None] | None] = {}
        """None: was emptied, but its number is in the heap yet."""
        self._numbers: list[int] = []
        """A heap of the keys of `_keys`."""

    def put(self, key: str, bucket: int) -> None:
        keys = self._keys.get(bucket)
        if keys is not None:
            keys[key] = None
            return
        if bucket not in self._keys:
            heappush(self._numbers, bucket)
        self._keys[bucket] = {key: None}

    def discard(self, key: str, bucket: int) -> None:
        keys = self._keys[bucket]
        if keys is None or key not in keys:
            raise KeyError(key)
        del keys[key]
        left = len(keys)
        if left & (left - 1) == 0:
            # A dict that is emptied key by key keeps its room: most calls end, and leave, long before the
            # timeout that they were noted under. So it is made anew each time that half has gone.
            self._keys[bucket] = dict.fromkeys(keys) if keys else None

    def take_until(self, bucket: int) -> Iterator[str]:
        while self._numbers and self._numbers[0] <= bucket:
            yield from self._keys.pop(heappop(self._numbers)) or ()

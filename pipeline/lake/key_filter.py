"""A Bloom filter over keys, by hashes of 64 bits: right about all that are there, wrong about one in 700 others."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

BITS_A_KEY: Final = 16
PROBES: Final = 5
FEW: Final = 32
"""Keys up to which numpy takes longer than one after the other: 40 instead of 2 us for a few."""
_LOW: Final = 0xFFFF_FFFF

Hashes = npt.NDArray[np.uint64]


def hashes_of(told: Iterable[int]) -> Hashes:
    """Whole numbers of up to 64 bits, with a sign or without, as an array."""
    return np.fromiter((number & 0xFFFF_FFFF_FFFF_FFFF for number in told), np.uint64)


class Asked:
    """Hashes that are looked for, made ready for many filters."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes
        self.few = [(h & _LOW, h >> 32) for h in hashes.tolist()] if len(hashes) <= FEW else None


class KeyFilter:
    """No key that was put in is ever denied."""

    def __init__(self, hashes: Hashes) -> None:
        self._bits = max(64, BITS_A_KEY * len(hashes))
        flags = np.zeros(self._bits, np.bool_)
        flags[_places(hashes, self._bits)] = True
        self._packed = np.packbits(flags).tobytes()

    def places(self, asked: Asked, start: int = 0, end: int | None = None) -> list[int]:
        """Which of the hashes between two places may have been put in, by their places among all that are asked for."""
        if asked.few is not None:
            found = (self._may_hold(first, step) for first, step in asked.few[start:end])
            return [start + place for place, may_hold in enumerate(found) if may_hold]
        places = _places(asked.hashes[start:end], self._bits)
        packed = np.frombuffer(self._packed, np.uint8)
        bits = (packed[places >> np.uint64(3)] << (places & np.uint64(7)).astype(np.uint8)) & 0x80
        told: list[int] = (start + np.flatnonzero(bits.astype(np.bool_).all(axis=0))).tolist()
        return told

    def _may_hold(self, first: int, step: int) -> bool:
        packed, bits = self._packed, self._bits
        for _ in range(PROBES):
            place = first % bits
            if not packed[place >> 3] << (place & 7) & 0x80:
                return False
            first += step
        return True


def _places(hashes: Hashes, bits: int) -> Hashes:
    """The bits of each hash, a row for each probe."""
    first, step = hashes & np.uint64(_LOW), hashes >> np.uint64(32)
    return (first + np.arange(PROBES, dtype=np.uint64)[:, None] * step) % np.uint64(bits)

"""Chance, with everything drawn from one seeded generator: the same seed gives the same bytes everywhere."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import exp
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

T = TypeVar("T")
SECOND: Final = 1_000_000
MILLISECOND: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AREAS: Final = ("1212", "1312", "1415", "1702", "4420", "4930", "8133", "9180", "3361", "6128")


class Mix(NamedTuple):
    """Things to pick from, each with its share."""

    names: tuple[str, ...]
    shares: tuple[float, ...]


def mix(**shares: float) -> Mix:
    """A mix in which `name=share`; the shares need not add up to 1."""
    total, cumulated = 0.0, []
    for share in shares.values():
        total += share
        cumulated.append(total)
    return Mix(tuple(shares), tuple(cumulated))


class Dice(random.Random):
    """A `random.Random` that also knows ids, numbers and waiting times."""

    def pick(self, choice: Mix) -> str:
        """One name of a mix."""
        return self.choices(choice.names, cum_weights=choice.shares)[0]

    def one(self, items: Sequence[T]) -> T:
        """One of the items, all alike."""
        return items[int(self.random() * len(items))]

    def happens(self, share: float) -> bool:
        """True in this share of cases."""
        return self.random() < share

    def hex(self, digits: int) -> str:
        """Random hexadecimal digits."""
        return f"{self.getrandbits(4 * digits):0{digits}x}"

    def uuid(self) -> str:
        """A random UUID, version 4 in form."""
        text = self.hex(32)
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def phone(self) -> str:
        """A number in E.164."""
        return f"+{self.one(_AREAS)}{self.getrandbits(32) % 10_000_000:07d}"

    def wait(self, median_seconds: float, spread: float = 0.6, most_seconds: float = 7200) -> int:
        """A log-normal waiting time in whole milliseconds, given in microseconds; at least 1 ms."""
        seconds = min(median_seconds * exp(spread * self.gauss(0, 1)), most_seconds)
        return max(1, round(seconds * 1000)) * MILLISECOND


def iso_us(us: int) -> str:
    """`…T09:21:19.627000Z`."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds")[:-6] + "Z"


def iso_ms(us: int) -> str:
    """`…T09:21:19.627Z`."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="milliseconds")[:-6] + "Z"


_ENCODER: Final = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return _ENCODER.encode(value)

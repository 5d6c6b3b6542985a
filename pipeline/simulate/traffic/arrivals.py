"""When calls begin: a daily and a weekly rhythm, in order, without keeping them all in memory."""

from collections.abc import Iterator
from typing import Final

from pipeline.simulate.traffic.chance import MILLISECOND, SECOND, Dice

_HOURS: Final = (3, 2, 1, 1, 1, 2, 4, 8, 14, 19, 21, 19, 15, 17, 20, 20, 18, 15, 12, 10, 9, 8, 7, 5)
_WEEKDAYS: Final = (1.1, 1.0, 1.0, 0.95, 0.9, 0.4, 0.25)
_HOUR_US: Final = 3600 * SECOND
_THURSDAY: Final = 3
"""1970 began on one."""


def arrivals(calls: int, start_us: int, end_us: int, dice: Dice) -> Iterator[int]:
    """`calls` instants in [start_us, end_us), ascending: uniform in the mass of the rhythm, drawn in order."""
    total = _mass(start_us, end_us)
    done, hour_us, spent = 0.0, start_us, 0.0
    for left in range(calls, 0, -1):
        done = 1 - (1 - done) * (1 - dice.random()) ** (1 / left)
        while True:
            until_us = min((hour_us // _HOUR_US + 1) * _HOUR_US, end_us)
            rate = _rate(hour_us)
            weight = rate * (until_us - hour_us)
            if spent + weight >= done * total or until_us >= end_us:
                break
            spent += weight
            hour_us = until_us
        at_us = hour_us + int((done * total - spent) / rate)
        yield min(at_us, end_us - 1) // MILLISECOND * MILLISECOND


def _rate(us: int) -> float:
    hours = us // _HOUR_US
    return _HOURS[hours % 24] * _WEEKDAYS[(hours // 24 + _THURSDAY) % 7]


def _mass(start_us: int, end_us: int) -> float:
    total, hour_us = 0.0, start_us
    while hour_us < end_us:
        until_us = min((hour_us // _HOUR_US + 1) * _HOUR_US, end_us)
        total += _rate(hour_us) * (until_us - hour_us)
        hour_us = until_us
    return total

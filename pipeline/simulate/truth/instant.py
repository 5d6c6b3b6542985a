"""Instants of the oracle: whole microseconds since 1970 UTC, and the words providers write them in."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2100, 1, 1, tzinfo=UTC)


def from_text(value: Any) -> int | None:
    """An ISO 8601 text; one without a zone is taken as UTC. None if it is no time or an impossible one."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return (moment - EPOCH) // timedelta(microseconds=1) if _FIRST <= moment < _LAST else None


def from_count(value: Any, per_second: int) -> int | None:
    """A count since 1970 of units of which `per_second` make a second."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    us = (
        round(value * 1_000_000 / per_second) if isinstance(value, float) else value * 1_000_000 // per_second
    )
    first = (_FIRST - EPOCH) // timedelta(microseconds=1)
    last = (_LAST - EPOCH) // timedelta(microseconds=1)
    return us if first <= us < last else None


def to_text(us: int | None) -> str | None:
    """`YYYY-MM-DDTHH:MM:SS.ffffffZ`."""
    if us is None:
        return None
    return (EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_date(us: int) -> str:
    """The UTC date, `YYYY-MM-DD`."""
    return (EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%d")

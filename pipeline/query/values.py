"""What a DuckDB value looks like outside: plain JSON values, instants as ISO 8601 in UTC."""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  a naive instant stays naive: its zone is the query's business
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def rows_of(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch as plain values: None, bool, int, float, str, list, dict."""
    return zip(*(_column(column) for column in batch.columns), strict=True)


def plain(value: Any) -> Any:
    """One value, nested or not, as what JSON can say. NaN and infinities are None, bytes are text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and _is_whole(value) else float(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return _plain_list(value)
    return str(value)


def instant_text(value: datetime) -> str:
    """An instant with microseconds and Z; a datetime without a zone keeps its digits and gets no Z."""
    if value.tzinfo is None:
        return value.isoformat(timespec="microseconds")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _column(column: pa.Array) -> Iterator[Any]:
    if not pa.types.is_timestamp(column.type):
        return (plain(value) for value in column.to_pylist())
    # Reckoned from the integers: Python's datetime cannot hold DuckDB's infinities.
    zone = "Z" if column.type.tz else ""
    per_second = _PER_SECOND[column.type.unit]
    return (_from_epoch(count, per_second, zone) for count in column.cast(pa.int64()).to_pylist())


def _from_epoch(count: int | None, per_second: int, zone: str) -> str | None:
    if count is None:
        return None
    try:
        moment = _EPOCH + timedelta(microseconds=count * 1_000_000 // per_second)
    except OverflowError:
        return None
    return moment.isoformat(timespec="microseconds") + zone


def _is_whole(value: Decimal) -> bool:
    return value.as_tuple().exponent == 0


def _plain_list(values: list[Any] | tuple[Any, ...]) -> Any:
    # A MAP comes as a list of (key, value) pairs, and a pair occurs nowhere else.
    if values and all(isinstance(item, tuple) and len(item) == 2 for item in values):
        return {str(plain(key)): plain(item) for key, item in values}
    return [plain(item) for item in values]

"""Turns one HTTP request into the record that stands for it on Kafka and in the spool."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

from pipeline.topic_names import home_partition

KeyOf = Callable[[str, bytes, Mapping[str, str]], bytes | None]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: what a record costs a broker beside key, value and headers, at most: a record batch of its own
RECORD_OVERHEAD_BYTES = 120


class WebhookRecord(msgspec.Struct, frozen=True, array_like=True):
    """One Kafka record to be: the provider's untouched bytes and what was seen around them.

    The spool keeps it in this form: a field may be added at the end, with a default, and nothing else may change.
    """

    provider: str
    received_us: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """Bytes it takes on a broker, rather too many than too few."""
        around = sum(len(name) + len(value) + 10 for name, value in self.headers)
        return len(self.value) + len(self.key or b"") + around + RECORD_OVERHEAD_BYTES


class ReceiptClock:
    """Times of receipt, in microseconds since the epoch, no two of them alike in this process."""

    def __init__(self) -> None:
        self._last_us = 0

    def now_us(self) -> int:
        """The current time, or the next free microsecond."""
        self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
        return self._last_us


def partition_of(key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
    """The partition that the key is at home in. A worker folds what it finds there without a detour.

    Nothing but speed hangs on it, so a partition without a leader is passed over.
    """
    if key is None:
        return random.choice(available or every)
    number = every[home_partition(key, len(every))]
    if available and number not in available:
        return available[home_partition(key, len(available))]
    return number


def iso_utc(at_us: int) -> str:
    """`2026-03-05T09:21:19.627000Z`."""
    seconds, microseconds = divmod(at_us, 1_000_000)
    return f"{_iso_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=8)
def _iso_second(seconds: int) -> str:
    # Thousands of webhooks share their second, and formatting it costs more than all else of the record.
    return (EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")


def webhook_record(
    provider: str,
    key: bytes | None,
    body: bytes,
    received_us: int,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    kept_headers: tuple[str, ...] = (),
) -> WebhookRecord:
    """The record: body untouched, and in its headers what was seen around it."""
    seen = [("provider", provider), ("received-at", iso_utc(received_us))]
    if query:
        seen.append(("query", json.dumps(dict(query), ensure_ascii=False, separators=(",", ":"))))
    seen += [(f"http.{name}", headers[name]) for name in kept_headers if name in headers]
    encoded = [(name, value.encode("utf-8", "surrogateescape")) for name, value in seen]
    return WebhookRecord(provider, received_us, key, body, encoded)

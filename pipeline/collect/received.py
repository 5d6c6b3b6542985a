"""Turns one HTTP request into the record that stands for it on Kafka."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from pipeline.collect.sink import StoredWebhook
from pipeline.topic_names import webhooks_topic

KeyOf = Callable[[str, bytes, Mapping[str, str]], bytes | None]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ReceiptClock:
    """Times of receipt, in microseconds since the epoch, no two of them alike in this process."""

    def __init__(self) -> None:
        self._last_us = 0

    def now_us(self) -> int:
        """The current time, or the next free microsecond."""
        self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
        return self._last_us


def iso_utc(at_us: int) -> str:
    """`2026-03-05T09:21:19.627000Z`."""
    return (EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def webhook_record(
    prefix: str,
    provider: str,
    key: bytes | None,
    body: bytes,
    received_us: int,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    kept_headers: tuple[str, ...] = (),
) -> StoredWebhook:
    """The record: body untouched, and in its headers what was seen around it."""
    seen = [("provider", provider), ("received-at", iso_utc(received_us))]
    if query:
        seen.append(("query", json.dumps(dict(query), ensure_ascii=False, separators=(",", ":"))))
    seen += [(f"http.{name}", headers[name]) for name in kept_headers if name in headers]
    encoded = [(name, value.encode("utf-8", "surrogateescape")) for name, value in seen]
    return StoredWebhook(webhooks_topic(prefix, provider), key, body, encoded)

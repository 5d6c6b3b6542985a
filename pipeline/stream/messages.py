"""What stands on the topics: Kafka records as webhooks and events, and records and rejections as messages."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from pipeline.lake.rows import RECORD_FIELDS, StoredRejection, column_of
from pipeline.model import CallEvent, CallRecord, Webhook
from pipeline.providers import read_instant
from pipeline.stream.handler import Record

HTTP_HEADER = "http."
"""What the collector puts before the names of the request headers that it passes on."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER = msgspec.json.Encoder()
_EVENTS = msgspec.json.Decoder(CallEvent)


def webhook_from(record: Record, provider: str) -> Webhook:
    """A record of `webhooks.<provider>`, also one that somebody else put there without any headers."""
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    received_us = None
    for name, raw in record.headers or ():
        value = (raw or b"").decode("utf-8", "replace")
        if name == "received-at":
            received_us = read_instant(value)
        elif name == "query":
            query = _texts(value)
        elif name != "provider":
            # Whoever else produces here may call the provider's headers by their own names.
            headers[name.removeprefix(HTTP_HEADER).lower()] = value
    if received_us is None:
        # Kafka's own time of the message. A broken one is taken as it is: it is no reason to lose the webhook.
        received_us = read_instant(record.timestamp) or time_zero_us(record.timestamp)
    return Webhook(provider, received_us, record.value or b"", headers, query)


def time_zero_us(timestamp_ms: int | None) -> int:
    """A time for a record that has none, or none of this century."""
    return 946_684_800_000_000 if timestamp_ms is None else max(0, min(timestamp_ms * 1000, 2**52))


def _texts(value: str) -> dict[str, str]:
    try:
        found = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def event_message(event: CallEvent) -> bytes:
    """An event as JSON; instants are microseconds since the epoch."""
    return _ENCODER.encode(event)


def event_from(value: bytes | None) -> CallEvent:
    """The event of a message; msgspec.DecodeError if it is none."""
    return _EVENTS.decode(value or b"")


def _iso(us: int | None) -> str | None:
    if us is None:
        return None
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def _converter(field: str) -> Callable[[Any], Any] | None:
    if field.endswith("_us"):
        return _iso
    return _date if field == "date_day" else None


_COLUMNS = [(name, column_of(name), _converter(name)) for name in RECORD_FIELDS]


def record_message(record: CallRecord) -> bytes:
    """A call record as a JSON object with the columns of `calls`; instants in ISO 8601."""
    told = {}
    for name, column, convert in _COLUMNS:
        value = getattr(record, name)
        told[column] = value if convert is None else convert(value)
    return _ENCODER.encode(told)


def quarantine_message(stored: StoredRejection) -> bytes:
    """A rejected webhook as a JSON object; the body in Base64, since it may be anything."""
    webhook, rejection = stored.webhook, stored.rejection
    return _ENCODER.encode(
        {
            "webhook_id": stored.webhook_id,
            "provider": webhook.provider,
            "received_at": _iso(webhook.received_us),
            "stage": rejection.stage,
            "code": rejection.code,
            "field": rejection.field,
            "message": rejection.message,
            "headers": webhook.headers,
            "query": webhook.query,
            "body_base64": base64.b64encode(webhook.body).decode(),
        }
    )

"""What stands on the topics: Kafka records as webhooks and events, and records and rejections as messages."""

import base64
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec
from msgspec.structs import astuple

from pipeline import native
from pipeline.durable import AnyChanges
from pipeline.lake.rows import RECORD_FIELDS, StoredRejection, column_of
from pipeline.model import CallEvent, CallRecord, Webhook
from pipeline.providers import read_instant
from pipeline.stream.producer import AnyMessages, Message
from pipeline.stream.records import Record

HTTP_HEADER = "http."
"""What the collector puts before the names of the request headers that it passes on."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER = msgspec.json.Encoder()
_EVENTS = msgspec.json.Decoder(CallEvent)


class WebhookReader:
    """Reads the records of `webhooks.<provider>`, also those that somebody else put there without any headers."""

    def __init__(self, provider: str) -> None:
        self._provider = provider

    def webhook(self, record: Record) -> Webhook:
        """What the record stands for."""
        headers: dict[str, str] = {}
        query: dict[str, str] = {}
        received_us = None
        for name, raw in record.headers or ():
            if name == "received-at":
                received_us = _received_us(raw or b"")
            elif name == "query":
                query = _query(raw or b"")
            elif name != "provider":
                # Whoever else produces here may call the provider's headers by their own names.
                headers[name.removeprefix(HTTP_HEADER).lower()] = (raw or b"").decode("utf-8", "replace")
        if received_us is None:
            # Kafka's own time of the message. A broken one is taken as it is: it is no reason to lose the webhook.
            received_us = read_instant(record.timestamp) or time_zero_us(record.timestamp)
        return Webhook(self._provider, received_us, record.value or b"", headers, query)


_POINT, _Z = b".Z"


def _received_us(told: bytes) -> int | None:
    # As our own collector writes it, to the microsecond: only the second has to be looked up.
    if len(told) == 27 and told[19] == _POINT and told[26] == _Z:
        fraction, second_us = told[20:26], _second_us(told[:19])
        if second_us is not None and fraction.isdigit():
            return second_us + int(fraction)
    return read_instant(told.decode("utf-8", "replace"))


@lru_cache(maxsize=1024)
def _second_us(told: bytes) -> int | None:
    return read_instant(told.decode("utf-8", "replace") + "Z")


def time_zero_us(timestamp_ms: int | None) -> int:
    """A time for a record that has none, or none of this century."""
    return 946_684_800_000_000 if timestamp_ms is None else max(0, min(timestamp_ms * 1000, 2**52))


def _query(told: bytes) -> dict[str, str]:
    # An agent's relay sends the same with each of its webhooks.
    return _known_texts(told).copy() if len(told) <= 256 else _texts(told)


def _texts(told: bytes) -> dict[str, str]:
    value = told.decode("utf-8", "replace")
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


_known_texts = lru_cache(maxsize=1024)(_texts)


def event_message(event: CallEvent) -> bytes:
    """An event as JSON; instants are microseconds since the epoch."""
    return _ENCODER.encode(event)


def event_from(value: bytes | None) -> CallEvent:
    """The event of a message; msgspec.DecodeError if it is none."""
    return _EVENTS.decode(value or b"")


_MINUTES = [f"T{minute // 60:02d}:{minute % 60:02d}:" for minute in range(24 * 60)]
_SECONDS = [f"{second:02d}." for second in range(60)]
_THREE = [f"{number:03d}" for number in range(1000)]


def _iso(us: int) -> str:
    day, of_day = divmod(us, 86_400_000_000)
    minute, of_minute = divmod(of_day, 60_000_000)
    thousands, last = divmod(of_minute, 1_000)
    second, first = divmod(thousands, 1_000)
    return f"{_date(day)}{_MINUTES[minute]}{_SECONDS[second]}{_THREE[first]}{_THREE[last]}Z"


@lru_cache(maxsize=64)
def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


# The columns of `calls`, encoded as they stand; instants and dates are filled in as texts.
_RecordMessage = msgspec.defstruct("_RecordMessage", [column_of(name) for name in RECORD_FIELDS], gc=False)
_INSTANTS = [place for place, name in enumerate(RECORD_FIELDS) if name.endswith("_us")]
_DATE = RECORD_FIELDS.index("date_day")


def record_message(record: CallRecord) -> bytes:
    """A call record as a JSON object with the columns of `calls`; instants in ISO 8601."""
    values = list(astuple(record))
    for place in _INSTANTS:
        us = values[place]
        if us is not None:
            values[place] = _iso(us)
    values[_DATE] = _date(values[_DATE])
    return _ENCODER.encode(_RecordMessage(*values))


def messages_before_files(changes: AnyChanges) -> AnyMessages:
    """Records of calls that are sure to be calls, by call key."""
    if isinstance(changes, native.Changes):
        return changes.messages_before_files()
    records = (record for _, record in changes.records)
    return [(r.call_key, record_message(r)) for r in records if r.call_key not in changes.uncertain]


def messages_after_files(changes: AnyChanges) -> AnyMessages:
    """The others, the tombstones, and what is to be told again."""
    if isinstance(changes, native.Changes):
        return changes.messages_after_files()
    records = (record for _, record in changes.records)
    told: list[Message] = [
        (r.call_key, record_message(r)) for r in records if r.call_key in changes.uncertain
    ]
    told += [(record.call_key, None) for _, record in changes.retracted]
    told += [(call, None if record is None else record_message(record)) for call, record in changes.repeated]
    return told


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

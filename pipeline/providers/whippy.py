"""Whippy: https://docs.whippy.ai/docs/calls (looked at 2026-11-21).

Two generations of payload are on that page, the newer with `metadata` and an envelope `created_at`. `data.id` is
the call; `conversation_id` spans many calls with one contact, and `request_id` may repeat over different events.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from pipeline.model import CallEvent, Outcome, Rejection, State, Webhook, call_key
from pipeline.model.vocabulary import EndTrigger
from pipeline.providers._payload import (
    Text,
    bad_shape,
    decode,
    decode_exactly,
    id_of,
    instant,
    is_blank,
    loosened,
    mapping,
    missing,
    seconds,
    text,
)
from pipeline.providers._redacted import Redacted
from pipeline.providers._signature import is_recent, is_same, timed_digest

KEYED_BY: Final[Literal["call", "agent"]] = "call"
KEPT_HEADERS: Final[tuple[str, ...]] = ()
REDACTED: Final = Redacted(
    numbers=frozenset({"from", "to"}),
    transcripts=frozenset({"body", "translated_body", "placeholders_data", "analysis", "summary"}),
    keys=(("data", "id"),),
)

# https://docs.whippy.ai/docs/calls. `call.analyzed` may come first or last and moves nothing.
STATE: Final[dict[str, State | None]] = {
    "call.started": "in_progress",
    "call.ended": "ended",
    "call.analyzed": None,
}
# The reason is what follows the dot of `delivery_status`. No list is published: what is not here is a completed
# call of which nobody knows who hung up. True/False: the call was answered for certain / was not.
Reason = tuple[Outcome, EndTrigger, bool | None]
REASON: Final[dict[str, Reason]] = {
    "user_hangup": ("completed", "customer", True),
    "agent_hangup": ("completed", "agent", True),
    "inactivity": ("completed", "system", True),
    "max_duration_reached": ("completed", "system", True),
    "call_transfer": ("forwarded", "unknown", True),
    "dial_busy": ("busy", "unknown", False),
    "dial_no_answer": ("no_answer", "unknown", False),
    "dial_failed": ("failed", "unknown", False),
    "invalid_destination": ("failed", "unknown", False),
    "voicemail_reached": ("voicemail", "unknown", True),
    "user_declined": ("rejected", "unknown", False),
    "concurrency_limit_reached": ("limit_reached", "unknown", False),
}
# 32 bytes are 43 characters of Base64.
SIGNATURE: Final = re.compile(r"\s*\w+=([0-9]{1,12})\s*,\s*\w+=([A-Za-z0-9+/_-]{43})=?\s*", re.ASCII)
DIRECTION: Final[dict[str, Literal["inbound", "outbound"]]] = {"INBOUND": "inbound", "OUTBOUND": "outbound"}
CHANNEL: Final[dict[str, Literal["phone", "web"]]] = {"phone": "phone", "web": "web", "web_call": "web"}


class _Data(msgspec.Struct, gc=False):
    id: Text | None = None
    delivery_status: Text | None = None
    direction: Text | None = None
    from_number: Text | None = msgspec.field(name="from", default=None)
    to: Text | None = None
    channel_id: Text | None = None
    created_at: Any = None
    updated_at: Any = None
    user_id: Any = None
    metadata: Any = None
    attachments: Any = None


class _Body(msgspec.Struct, gc=False):
    data: _Data | None = None
    event: Text | None = None
    request_id: Text | None = None
    created_at: Any = None


_EXACT: Final = msgspec.json.Decoder(_Body)
_LOOSE: Final = loosened(_Body)
_TEXTS: Final = [field.name for field in msgspec.structs.fields(_Data) if field.type is not Any]


def is_signed(secret: bytes, headers: Mapping[str, str], body: bytes, now_us: int) -> bool:
    """`<name>=<seconds>,<name>=<Base64 without padding>` over `<seconds>.<body>`; the names are not documented.

    Nor is which Base64, so both alphabets are right (but no mixture), and a padding does no harm.
    """
    parts = SIGNATURE.fullmatch(headers.get("x-whippy-signature", ""))
    if parts is None or not is_recent(parts[1], now_us):
        return False
    digest = timed_digest(secret, parts[1], body)
    writings = (base64.b64encode(digest), base64.urlsafe_b64encode(digest))
    return sum(is_same(parts[2], writing.rstrip(b"=")) for writing in writings) > 0


def stream_key(body: bytes, query: Mapping[str, str]) -> str | None:
    """The call key, if the body says which call it is about."""
    found = decode(body, _LOOSE)
    call_id = None if isinstance(found, Rejection) or found.data is None else text(found.data.id)
    return None if call_id is None else call_key("whippy", call_id)


def events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """One event for a `call.*` webhook; none for any other, which is no call and no mistake."""
    body = decode_exactly(_EXACT, webhook.body)
    if body is not None and body.event and body.event.startswith("call."):
        data = body.data
        if data is not None and data.id and not _is_any_blank(data, data.id, body.request_id):
            return [_event(webhook, body, data, data.id, body.event)]
    return _plain_events(webhook)


def _is_any_blank(data: _Data, call_id: str, request_id: str | None) -> bool:
    # One by one: a loop over them takes four times as long (0.5 against 0.1 µs for six).
    return (
        is_blank(call_id)
        or is_blank(request_id or "")
        or is_blank(data.delivery_status or "")
        or is_blank(data.from_number or "")
        or is_blank(data.to or "")
        or is_blank(data.channel_id or "")
    )


def _plain_events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """The same for a webhook of any shape."""
    body = decode(webhook.body, _LOOSE)
    if isinstance(body, Rejection):
        return body
    body.event, body.request_id = text(body.event), text(body.request_id)
    if body.event is None:
        return bad_shape("event", "a Whippy webhook names its `event`")
    if not body.event.startswith("call."):
        return []
    data = body.data
    if data is None:
        return bad_shape("data", "`data` must be an object")
    for name in _TEXTS:
        setattr(data, name, text(getattr(data, name)))
    if data.id is None:
        return missing("data.id", "no call id")
    return [_event(webhook, body, data, data.id, body.event)]


def _event(webhook: Webhook, body: _Body, data: _Data, call_id: str, kind: str) -> CallEvent:
    """The event of a webhook whose texts are such, or empty."""
    status, metadata = data.delivery_status or None, mapping(data.metadata)
    sent_us, created_us = instant(body.created_at), instant(data.created_at)
    updated_us = instant(data.updated_at)
    at_us = webhook.received_us if sent_us is None else sent_us
    identity = id_of(
        f"whippy\x1f{call_id}\x1f{body.request_id or ''}\x1f{kind}\x1f{status or ''}"
        f"\x1f{'' if updated_us is None else updated_us}\x1f{'' if sent_us is None else sent_us}"
    )
    event = CallEvent(
        event_id=identity,
        provider="whippy",
        stream_key=call_key("whippy", call_id),
        call_id=call_id,
        event_type=kind,
        at_us=at_us,
        received_us=webhook.received_us,
        at_source="received" if sent_us is None else "provider",
        raw_status=status,
        is_unknown=kind not in STATE,
        state=STATE.get(kind),
        started_us=created_us,
        reported_seconds=seconds(metadata.get("duration"), per_second=1000),
        direction=DIRECTION.get(data.direction.upper()) if data.direction else None,
        channel=CHANNEL.get(text(metadata.get("type")) or "phone", "phone"),
    )
    event.from_number, event.to_number = data.from_number or None, data.to or None
    event.account_id = data.channel_id or None
    event.agent_id = text(metadata.get("agent_id")) or text(data.user_id)
    if kind == "call.started":
        event.answered_us, event.answer_evidence = at_us, True
    elif kind == "call.ended":
        _add_end(event, updated_us, created_us, status or "")
    elif kind == "call.analyzed":
        event.has_analysis = True
    if data.attachments:
        event.recording_url = _recording_url(data.attachments)
    return event


def _add_end(event: CallEvent, updated_us: int | None, created_us: int | None, status: str) -> None:
    event.ended_us = event.at_us
    if updated_us is not None and created_us is not None and updated_us > created_us:
        # The row's last change is the hang-up, on this event only: the analysis changes the row again.
        event.ended_us, event.at_source = updated_us, "provider"
    event.hangup_us = event.ended_us
    reason = status.partition(".")[2]
    event.outcome, event.end_trigger, event.answer_evidence = _meaning(reason)
    event.transferred = event.outcome == "forwarded"
    event.failure_reason = reason or None
    event.is_unknown = bool(reason) and reason not in REASON and not reason.startswith("error_")


def _meaning(reason: str) -> Reason:
    if reason.startswith("error_"):
        return "failed", "unknown", None
    return REASON.get(reason, ("completed", "unknown", True))


def _recording_url(attachments: Any) -> str | None:
    # The paths' UUIDs are the files' own, so the file is told by its content type.
    for attachment in attachments if isinstance(attachments, list) else ():
        if (text(mapping(attachment).get("content_type")) or "").startswith("audio/"):
            url = mapping(attachment).get("url")
            return url if isinstance(url, str) and url else None
    return None

"""FreeClimb: https://docs.freeclimb.com/reference/callstatus (looked at 2026-11-21).

One terminal `callStatus` webhook for each leg. The body holds no time: the only clock of the sender's is `t` in
the signature header. `callDuration` is a string of seconds, and whether it counts from the answer is not said.
"""

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
    event_id,
    instant,
    is_blank,
    loosened,
    missing,
    seconds,
    text,
)
from pipeline.providers._redacted import Redacted
from pipeline.providers._signature import is_recent, is_same, timed_digest

KEYED_BY: Final[Literal["call", "agent"]] = "call"
KEPT_HEADERS: Final[tuple[str, ...]] = ("freeclimb-signature",)
REDACTED: Final = Redacted(
    numbers=frozenset({"from", "to"}),
    # What the caller said or keyed in (requestType getSpeech, getDigits, transcribe, messageDelivery).
    transcripts=frozenset({"recognitionResult", "digits", "transcriptionText", "text"}),
    keys=(("callId",), ("parentCallId",)),
)
SIGNATURE_HEADER: Final = "freeclimb-signature"
MAX_SIGNATURE_PARTS: Final = 32
"""The time and a signature for each secret in use: two, or three. The bound keeps a long header from being work."""

# https://docs.freeclimb.com/reference/callstatus
OUTCOME: Final[dict[str, Outcome]] = {
    "completed": "completed",
    "busy": "busy",
    "failed": "failed",
    "noAnswer": "no_answer",
    "canceled": "canceled",
}
# The earlier life of a call, in other requests: it moves an open call along and decides nothing.
STATE: Final[dict[str, State]] = {"queued": "queued", "ringing": "ringing", "inProgress": "in_progress"}
# callEndedReason, https://github.com/FreeClimbAPI/python-sdk (docs/CallEndedReason.md); the others are the system's
END_TRIGGER: Final[dict[str, EndTrigger]] = {
    "farEndHangup": "customer",
    "appHangup": "agent",
    "appReject": "agent",
}
# requestType, https://github.com/FreeClimbAPI/python-sdk: kept as events, they tell who and where
OTHER_REQUESTS: Final = frozenset(
    {
        "inboundCall",
        "record",
        "getDigits",
        "getSpeech",
        "redirect",
        "pause",
        "outDialStart",
        "outDialConnect",
        "outDialApiConnect",
        "machineDetected",
        "dequeue",
        "queueWait",
        "addToQueueNotification",
        "removeFromQueueNotification",
        "createConference",
        "conferenceStatus",
        "leaveConference",
        "addToConferenceNotification",
        "conferenceRecordingStatus",
        "conferenceCallControl",
        "callControl",
    }
)
DIRECTION: Final[dict[str, Literal["inbound", "outbound"]]] = {
    "inbound": "inbound",
    "outbound": "outbound",
    "outboundAPI": "outbound",
    "outboundDial": "outbound",
}


class _Body(msgspec.Struct, rename="camel", gc=False):
    request_type: Text | None = None
    call_id: Text | None = None
    account_id: Text | None = None
    from_number: Text | None = msgspec.field(name="from", default=None)
    to: Text | None = None
    call_status: Text | None = None
    direction: Text | None = None
    call_ended_reason: Text | None = None
    parent_call_id: Text | None = None
    recording_url: Text | None = None
    call_duration: Any = None


_EXACT: Final = msgspec.json.Decoder(_Body)
_LOOSE: Final = loosened(_Body)
_TEXTS: Final = [field.name for field in msgspec.structs.fields(_Body) if field.type is not Any]


def is_signed(secret: bytes, headers: Mapping[str, str], body: bytes, now_us: int) -> bool:
    """`t=<seconds>,v1=<hex>,v1=<hex>` over `<seconds>.<body>`; while a secret is changed any v1 may be the right one.

    https://docs.freeclimb.com/docs/verifying-request-signatures
    """
    parts = headers.get(SIGNATURE_HEADER, "").split(",", MAX_SIGNATURE_PARTS)
    if len(parts) > MAX_SIGNATURE_PARTS:
        return False
    # Cut up as `_signed_us` does: what the signature covers is what the event's time is taken from.
    fields = [part.strip().partition("=")[::2] for part in parts]
    times = [value for name, value in fields if name == "t"]
    if len(times) != 1 or not is_recent(times[0], now_us):
        return False
    digest = timed_digest(secret, times[0], body).hex().encode()
    return sum(is_same(value, digest) for name, value in fields if name == "v1") > 0


def stream_key(body: bytes, query: Mapping[str, str]) -> str | None:
    """The call key, if the body says which call it is about."""
    found = decode(body, _LOOSE)
    call_id = None if isinstance(found, Rejection) else text(found.call_id)
    return None if call_id is None else call_key("freeclimb", call_id)


def events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """One event for one webhook."""
    body = decode_exactly(_EXACT, webhook.body)
    if body is not None and body.call_id and not _is_any_blank(body, body.call_id):
        return [_event(webhook, body, body.call_id)]
    return _plain_events(webhook)


def _is_any_blank(body: _Body, call_id: str) -> bool:
    # One by one: a loop over them takes four times as long (0.5 against 0.1 µs for six).
    return (
        is_blank(call_id)
        or is_blank(body.request_type or "")
        or is_blank(body.account_id or "")
        or is_blank(body.from_number or "")
        or is_blank(body.to or "")
        or is_blank(body.call_status or "")
        or is_blank(body.direction or "")
        or is_blank(body.call_ended_reason or "")
        or is_blank(body.parent_call_id or "")
        or is_blank(body.recording_url or "")
    )


def _plain_events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """The same for a webhook of any shape."""
    body = decode(webhook.body, _LOOSE)
    if isinstance(body, Rejection):
        return body
    if body.call_id is None and body.request_type is None:
        return bad_shape(None, "a FreeClimb webhook has a `requestType` and a `callId`")
    for name in _TEXTS:
        setattr(body, name, text(getattr(body, name)))
    if body.call_id is None:
        return missing("callId", "no call id")
    return [_event(webhook, body, body.call_id)]


def _event(webhook: Webhook, body: _Body, call_id: str) -> CallEvent:
    """The event of a webhook whose texts are such, or empty."""
    kind, status, reason = body.request_type or None, body.call_status or None, body.call_ended_reason or None
    signed_us = _signed_us(webhook.headers)
    duration = seconds(body.call_duration)
    is_end = kind == "callStatus" and status in OUTCOME
    identity = event_id(
        "freeclimb",
        call_id,
        kind,
        status,
        reason,
        duration,
        body.recording_url,
        body.account_id,
        body.direction,
        body.parent_call_id,
        signed_us,
    )
    event = CallEvent(
        event_id=identity,
        provider="freeclimb",
        stream_key=call_key("freeclimb", call_id),
        call_id=call_id,
        event_type=kind or "unknown",
        at_us=webhook.received_us if signed_us is None else signed_us,
        received_us=webhook.received_us,
        at_source="received" if signed_us is None else "provider",
        raw_status=status,
        is_unknown=not is_end and kind not in OTHER_REQUESTS,
        state="ended" if is_end else STATE.get(status or ""),
        account_id=body.account_id or None,
        direction=DIRECTION.get(body.direction or ""),
        channel="phone",
        from_number=body.from_number or None,
    )
    event.to_number, event.parent_call_id = body.to or None, body.parent_call_id or None
    if status == "inProgress":
        event.answer_evidence = True
    if is_end and status is not None:
        _add_end(event, body, status, reason, duration)
    return event


def _add_end(event: CallEvent, body: _Body, status: str, reason: str | None, duration: float | None) -> None:
    event.ended_us = event.at_us
    if duration is not None:
        # The start is no better than the duration: one that would lie before 2000 is as if there were none.
        event.started_us = instant(event.at_us - round(duration * 1_000_000))
    event.reported_seconds, event.total_is_reported = duration, True
    # A recording of no length leaves its fields empty.
    event.recording_url = body.recording_url or None
    event.outcome = OUTCOME[status]
    if status == "completed" and reason == "machineDetected":
        event.outcome = "voicemail"
    if event.outcome != "completed":
        event.failure_reason = reason or status
    if reason is not None:
        event.end_trigger = END_TRIGGER.get(reason, "system")


def _signed_us(headers: Mapping[str, str]) -> int | None:
    # t=<unix seconds>,v1=<hex>[,v1=<hex>]: several while a secret is being changed
    for part in headers.get(SIGNATURE_HEADER, "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            return instant(value)
    return None

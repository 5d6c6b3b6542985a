"""What a competent user would write to read the five providers: typed decoding of what is needed, one event a webhook.

Shared by all peers, so that only the framework around it differs. Times are microseconds, UTC.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
from bodies import DECODERS, PROVIDERS, Bus, FreeClimb, Interactly, Recho, Whippy

Headers = Iterable[tuple[str, bytes]]


class Event(NamedTuple):
    """What one webhook says; None where it does not say."""

    provider: str
    stream: str
    at: int
    state: str | None = None
    direction: str | None = None
    started: int | None = None
    answered: int | None = None
    hangup: int | None = None
    ended: int | None = None
    outcome: str | None = None
    if_unanswered: str | None = None
    is_answer: bool | None = None
    talk_seconds: float | None = None
    is_redial: bool = False
    step: str | None = None
    call_id: str | None = None


def microseconds(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1_000_000)


def received_at(headers: Mapping[str, bytes]) -> int:
    return round(datetime.fromisoformat(headers["received-at"].decode()).timestamp() * 1_000_000)


INTERACTLY_STATE = {
    "queued": "queued",
    "ongoing": "in_progress",
    "finished": "ended",
    "forwarded": "ended",
}
INTERACTLY_TYPES = frozenset({"status-update", "conversation-update", "end-of-call-report", "hang", "error"})
INTERACTLY_UNANSWERED = {"busy": "busy", "no-answer": "no_answer", "failed": "failed", "canceled": "canceled"}


def read_interactly(body: Interactly, headers: Mapping[str, bytes]) -> Event:
    message, call = body.message, body.message.call
    state = INTERACTLY_STATE.get(call.status or "") if message.type in INTERACTLY_TYPES else None
    at, is_update = message.timestamp * 1000, message.type == "status-update"
    talk = call.assistant_call_duration / 1000
    ended = microseconds(call.end_at) or (at if is_update else None) if state == "ended" else None
    is_forwarded = state == "ended" and call.status == "forwarded"
    return Event(
        "interactly",
        call.id,
        at,
        state,
        call.direction,
        started=microseconds(call.start_at),
        answered=at if state == "in_progress" and is_update else None,
        hangup=ended,
        ended=ended,
        outcome="forwarded" if is_forwarded else None,
        if_unanswered=INTERACTLY_UNANSWERED.get(call.phone_call_status or "", "unknown"),
        is_answer=True if state == "in_progress" or talk > 0 or is_forwarded else None,
        talk_seconds=talk if talk > 0 or state == "ended" else None,
    )


RECHO_STATE = {
    "OUTBOUND_CALL_PENDING": "queued",
    "OUTBOUND_CALL_REQUESTED": "queued",
    "OUTBOUND_CALL_CALLING": "ringing",
    "OUTBOUND_CALL_CLOSING": "wrap_up",
    "INBOUND_CALL_CONNECTING": "ringing",
    "INBOUND_CALL_CALLING": "in_progress",
    "INBOUND_CALL_CLOSING": "wrap_up",
}
RECHO_OUTCOME = {
    "OUTBOUND_CALL_COMPLETED": "completed",
    "OUTBOUND_CALL_NO_RESPONSE": "no_answer",
    "OUTBOUND_CALL_BUSY": "busy",
    "OUTBOUND_CALL_UNREACHABLE": "unreachable",
    "OUTBOUND_CALL_EXPIRED": "expired",
    "OUTBOUND_CALL_CANCELED": "canceled",
    "OUTBOUND_CALL_MAX_ATTEMPTS_REACHED": "max_attempts",
    "OUTBOUND_CALL_ERROR": "failed",
    "INBOUND_CALL_COMPLETED": "completed",
    "INBOUND_CALL_CONCURRENCY_LIMIT_EXCEEDED": "limit_reached",
    "INBOUND_CALL_ERROR": "failed",
}
RECHO_ERROR = {
    "VOICEMAIL_REACHED": "voicemail",
    "LIMIT_REACHED": "limit_reached",
    "CONCURRENCY_LIMIT_EXCEEDED": "limit_reached",
}


def read_recho(body: Recho, headers: Mapping[str, bytes]) -> Event:
    kind, data, at = body.event_type, body.body.data, received_at(headers)
    direction = "inbound" if kind.startswith("INBOUND") else "outbound"
    outcome = RECHO_OUTCOME.get(kind)
    if outcome is None:
        state = RECHO_STATE.get(kind)
        return Event(
            "recho",
            data.call_id,
            at,
            state,
            direction,
            started=at,
            answered=at if state == "in_progress" else None,
            hangup=at if state == "wrap_up" else None,
            is_answer=True if state in ("in_progress", "wrap_up") else None,
            is_redial=kind == "OUTBOUND_CALL_REQUESTED",
        )
    if kind.endswith("_ERROR"):
        outcome = RECHO_ERROR.get(data.call_status or "", "failed")
    is_answer = False if outcome == "failed" and direction == "outbound" else None
    return Event(
        "recho", data.call_id, at, "ended", direction, at, None, None, at, outcome, is_answer=is_answer
    )


WHIPPY_STATE = {"call.started": "in_progress", "call.ended": "ended"}
WHIPPY_OUTCOME = {
    "call_transfer": "forwarded",
    "dial_busy": "busy",
    "dial_no_answer": "no_answer",
    "dial_failed": "failed",
    "invalid_destination": "failed",
    "voicemail_reached": "voicemail",
    "user_declined": "rejected",
    "concurrency_limit_reached": "limit_reached",
}


def read_whippy(body: Whippy, headers: Mapping[str, bytes]) -> Event | None:
    if not body.event.startswith("call."):
        return None
    data, kind = body.data, body.event
    at = microseconds(body.created_at) or received_at(headers)
    started, direction = microseconds(data.created_at), (data.direction or "").lower() or None
    state = WHIPPY_STATE.get(kind)
    if kind == "call.started":
        return Event("whippy", data.id, at, state, direction, started, at, is_answer=True)
    if kind != "call.ended":
        return Event("whippy", data.id, at, None, direction, started)
    updated = microseconds(data.updated_at)
    ended = updated if updated is not None and started is not None and updated > started else at
    reason = (data.delivery_status or "").partition(".")[2]
    outcome = "failed" if reason.startswith("error_") else WHIPPY_OUTCOME.get(reason, "completed")
    is_answer = False if outcome == "failed" and not reason.startswith("error_") else None
    return Event(
        "whippy", data.id, at, state, direction, started, None, ended, ended, outcome, is_answer=is_answer
    )


BUS_STEP = {  # state, step, direction
    "connecting": ("queued", "begin", "outbound"),
    "accepting": ("ringing", "begin", "inbound"),
    "ringing": ("ringing", None, None),
    "connected": ("in_progress", "connected", None),
    "hanging": ("wrap_up", None, None),
    "mandatoryTagging": ("wrap_up", None, None),
    "merging": (None, "merging", None),
    "ended": ("ended", "end", None),
    "idle": ("ended", "end", None),
}


def read_bus(body: Bus, headers: Mapping[str, bytes]) -> Event | None:
    if body.event is not None:
        agent, kind, told = body.agent_id, body.event.type, body.event.payload
        at = microseconds(body.sent_at) or received_at(headers)
    elif body.payload is not None:
        kind, told, at = body.type, body.payload, received_at(headers)
        agent = msgspec.json.decode(headers["query"])["agent_id"]
    else:
        return None
    stream = str(agent)
    if kind == "DIALER.CALL_STATUS":
        state, step, direction = BUS_STEP.get(told.status or "", (None, None, None))
        is_transfer = told.flow == "warmTransfer"
        if is_transfer and told.status == "ringing":
            state = None
        return Event(
            "aircall_bus",
            stream,
            at,
            state,
            direction,
            answered=at if step == "connected" and not is_transfer else None,
            hangup=at if state in ("wrap_up", "ended") else None,
            ended=at if state == "ended" else None,
            if_unanswered="no_answer",
            is_answer=True if step == "connected" else None,
            step=step,
        )
    if kind == "DIALER.DIALING":
        return Event("aircall_bus", stream, at, "queued", "outbound", step="begin")
    if kind == "DIALER.INCOMING":
        direction = "internal" if told.type == "internal" else "inbound"
        return Event("aircall_bus", stream, at, "ringing", direction, step="begin", call_id=told.uuid)
    if kind == "DIALER.SYNC":
        uuid = told.metadata.get("callUuid") if told.metadata else told.uuid
        return Event("aircall_bus", stream, at, step="sync", call_id=uuid)
    return Event("aircall_bus", stream, at)


FREECLIMB_OUTCOME = {
    "completed": "completed",
    "busy": "busy",
    "failed": "failed",
    "noAnswer": "no_answer",
    "canceled": "canceled",
}
FREECLIMB_STATE = {"queued": "queued", "ringing": "ringing", "inProgress": "in_progress"}
FREECLIMB_DIRECTION = {
    "inbound": "inbound",
    "outbound": "outbound",
    "outboundAPI": "outbound",
    "outboundDial": "outbound",
}


def read_freeclimb(body: FreeClimb, headers: Mapping[str, bytes]) -> Event:
    signed = headers.get("http.freeclimb-signature")
    at = int(signed[2 : signed.index(b",")]) * 1_000_000 if signed else received_at(headers)
    direction = FREECLIMB_DIRECTION.get(body.direction or "")
    outcome = FREECLIMB_OUTCOME.get(body.call_status or "") if body.request_type == "callStatus" else None
    if outcome is None:
        state = FREECLIMB_STATE.get(body.call_status or "")
        is_answer = True if state == "in_progress" else None
        return Event("freeclimb", body.call_id, at, state, direction, is_answer=is_answer)
    if body.call_ended_reason == "machineDetected" and outcome == "completed":
        outcome = "voicemail"
    started = at - int(float(body.call_duration) * 1_000_000) if body.call_duration else None
    return Event("freeclimb", body.call_id, at, "ended", direction, started, None, at, at, outcome)


READERS = dict(
    zip(PROVIDERS, (read_interactly, read_recho, read_whippy, read_bus, read_freeclimb), strict=True)
)


def event_of(provider: str, body: bytes, headers: Headers) -> Event | None:
    """The event of one webhook as it stands on Kafka; None if it is about no call."""
    return READERS[provider](DECODERS[provider].decode(body), dict(headers))

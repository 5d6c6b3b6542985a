"""Interactly: https://docs.interactly.ai/webhooks/events/introduction (looked at 2026-11-21).

`message.call.status` alone decides the state; `phoneCallStatus` is already `in-progress` while a call is queued.
Nothing is ever sent twice by Interactly, so any event may be lost: a report alone makes a complete record.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from pipeline.model import CallEvent, Outcome, Rejection, State, Webhook, call_key
from pipeline.model.vocabulary import EndTrigger
from pipeline.providers._payload import (
    bad_shape,
    canonical,
    decode,
    event_id,
    instant,
    mapping,
    missing,
    number,
    seconds,
    text,
)
from pipeline.providers._redacted import Redacted
from pipeline.providers._signature import is_same

KEYED_BY: Final[Literal["call", "agent"]] = "call"
KEPT_HEADERS: Final[tuple[str, ...]] = ()
REDACTED: Final = Redacted(
    # `assistantServer` is the receiver's own webhook configuration, its Authorization header included.
    secrets=frozenset({"assistantServer", "x-interactly-secret", "secret"}),
    numbers=frozenset({"userNumber", "assistantNumber", "number"}),
    transcripts=frozenset(
        {"messages", "summary", "structuredData", "outcome", "assistantSystemPrompt", "prompt"}
        | {"welcomeMessage", "endCallMessage", "endCallPhrases", "dynamicVariables"}
    ),
    no_numbers=("web-",),
    ids={"assistantNumber": "assistantId"},
    keys=(("message", "call", "id"),),
)

# https://docs.interactly.ai/webhooks/events/status-update
STATE: Final[dict[str, State]] = {
    "queued": "queued",
    "ongoing": "in_progress",
    "finished": "ended",
    "forwarded": "ended",
}
# https://docs.interactly.ai/webhooks/events/introduction: any other type is kept and decides nothing
TYPES: Final = frozenset({"status-update", "conversation-update", "end-of-call-report", "hang", "error"})
# Why a call that nobody answered ended: the telephony side's word. The list of values is not published.
UNANSWERED: Final[dict[str, Outcome]] = {
    "busy": "busy",
    "no-answer": "no_answer",
    "failed": "failed",
    "canceled": "canceled",
}
NO_FAILURE: Final = frozenset({"completed", "in-progress", "ringing", "queued"})
END_TRIGGER: Final[dict[str, EndTrigger]] = {"bot": "agent", "user": "customer", "system": "system"}
DIRECTION: Final[dict[str, Literal["inbound", "outbound"]]] = {"inbound": "inbound", "outbound": "outbound"}
CHANNEL: Final[dict[str, Literal["phone", "web"]]] = {"phone": "phone", "web": "web"}


class _Call(msgspec.Struct, rename="camel"):
    id: Any = None
    team_id: Any = None
    assistant_id: Any = None
    call_type: Any = None
    direction: Any = None
    start_at: Any = None
    end_at: Any = None
    user_number: Any = None
    assistant_number: Any = None
    status: Any = None
    phone_call_status: Any = None
    phone_call_status_reason: Any = None
    call_end_trigger_by: Any = None
    assistant_call_duration: Any = None
    recording: Any = None
    cost: Any = None


class _Message(msgspec.Struct):
    timestamp: Any = None
    type: Any = None
    call: _Call | None = None
    error: Any = None
    analysis: Any = None


class _Body(msgspec.Struct):
    message: _Message | None = None


def is_signed(secret: bytes, headers: Mapping[str, str], body: bytes, now_us: int) -> bool:
    """Interactly sends the secret itself, as `x-interactly-secret`, and signs nothing."""
    return is_same(headers.get("x-interactly-secret", ""), secret)


def stream_key(body: bytes, query: Mapping[str, str]) -> str | None:
    """The call key, if the body says which call it is about."""
    found = decode(body, _Body)
    if isinstance(found, Rejection) or found.message is None or found.message.call is None:
        return None
    call_id = text(found.message.call.id)
    return None if call_id is None else call_key("interactly", call_id)


def events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """One event for one webhook."""
    body = decode(webhook.body, _Body)
    if isinstance(body, Rejection):
        return body
    message = body.message
    if message is None:
        return bad_shape("message", "an Interactly webhook is an object with an object `message`")
    call = message.call
    if call is None:
        return bad_shape("message.call", "`message.call` must be an object")
    call_id = text(call.id)
    if call_id is None:
        return missing("message.call.id", "no call id")
    return [_event(webhook, message, call, call_id)]


def _event(webhook: Webhook, message: _Message, call: _Call, call_id: str) -> CallEvent:
    kind, status, phone_status = text(message.type), text(call.status), text(call.phone_call_status)
    is_report = kind == "end-of-call-report"
    state = STATE.get(status or "") if kind in TYPES else None
    at_us = instant(message.timestamp)
    cost = mapping(call.cost)
    reported = _reported_seconds(call, cost, is_over=state == "ended")
    error = mapping(message.error) if kind == "error" else {}
    event = CallEvent(
        event_id=_identity(message, call, call_id, cost, error, reported),
        provider="interactly",
        stream_key=call_key("interactly", call_id),
        call_id=call_id,
        event_type=kind or "unknown",
        at_us=webhook.received_us if at_us is None else at_us,
        received_us=webhook.received_us,
        at_source="received" if at_us is None else "provider",
        raw_status=status,
        is_unknown=kind not in TYPES or status not in STATE,
        state=state,
        fact_rank=1 if is_report else 0,
        started_us=instant(call.start_at),
        reported_seconds=reported,
        talk_is_reported=reported is not None,
        answer_evidence=True if state == "in_progress" or (reported or 0) > 0 else None,
        account_id=text(call.team_id),
        agent_id=text(call.assistant_id),
        channel=CHANNEL.get(text(call.call_type) or ""),
        recording_url=_recording_url(mapping(call.recording)),
        cost_total=number(cost.get("totalCost")),
    )
    if error:
        event.errors = (event.event_id,)
    _add_parties(event, call)
    _add_analysis(event, mapping(message.analysis))
    if state == "queued" and kind == "status-update":
        event.queued_us = event.at_us
    if state == "in_progress" and kind == "status-update":
        event.answered_us = event.at_us
    if state == "ended":
        _add_end(event, call, status, phone_status)
    return event


def _identity(
    message: _Message,
    call: _Call,
    call_id: str,
    cost: Mapping[str, Any],
    error: Mapping[str, Any],
    reported: float | None,
) -> str:
    # No event id is sent. Numbers are left out: they tell no two events apart, and privacy settings change them.
    return event_id(
        "interactly",
        call_id,
        text(message.type),
        instant(message.timestamp),
        text(call.status),
        text(call.phone_call_status),
        text(call.phone_call_status_reason),
        text(call.call_end_trigger_by),
        instant(call.start_at),
        instant(call.end_at),
        reported,
        number(cost.get("totalCost")),
        canonical([text(error.get("type")), text(error.get("code")), text(error.get("message"))])
        if error
        else "",
    )


def _reported_seconds(call: _Call, cost: Mapping[str, Any], is_over: bool) -> float | None:
    # Milliseconds in one field, seconds in the other; 0 before the end stands for "not known yet".
    found = seconds(call.assistant_call_duration, per_second=1000)
    if found is None or (found == 0 and not is_over):
        found = seconds(cost.get("callDuration"))
    return None if found == 0 and not is_over else found


def _add_parties(event: CallEvent, call: _Call) -> None:
    event.direction = DIRECTION.get(text(call.direction) or "")
    user, assistant = _phone_number(call.user_number, call), _phone_number(call.assistant_number, call)
    if event.direction == "outbound":
        event.from_number, event.to_number = assistant, user
    elif event.direction == "inbound":
        event.from_number, event.to_number = user, assistant


def _phone_number(value: Any, call: _Call) -> str | None:
    # Web callers come as "web-<display name>" and assistants without a number as their own id: neither is a number.
    found = text(value)
    if found is None or found.startswith("web-") or found == text(call.assistant_id):
        return None
    return found


def _add_analysis(event: CallEvent, analysis: Mapping[str, Any]) -> None:
    # The filled analysis is `message.analysis`; `message.call.analysis` stays empty in the same report.
    event.success_evaluation = text(analysis.get("successEvaluation"))
    said = (analysis.get("summary"), analysis.get("outcome"))
    event.has_analysis = event.success_evaluation is not None or any(isinstance(x, str) and x for x in said)


def _add_end(event: CallEvent, call: _Call, status: str | None, phone_status: str | None) -> None:
    event.ended_us = instant(call.end_at)
    if event.ended_us is None and event.event_type == "status-update":
        # Only this type tells of the change as it happens; a report comes seconds later, after post-processing.
        event.ended_us = event.at_us
    event.hangup_us = event.ended_us
    event.end_trigger = END_TRIGGER.get(text(call.call_end_trigger_by) or "")
    if status == "forwarded":
        event.outcome, event.end_rank, event.transferred, event.answer_evidence = "forwarded", 1, True, True
        return
    event.unanswered_outcome = UNANSWERED.get(phone_status or "", "unknown")
    event.failure_reason = None if phone_status in NO_FAILURE else phone_status


def _recording_url(recording: Mapping[str, Any]) -> str | None:
    bucket, path = text(recording.get("s3Bucket")), text(recording.get("path"))
    return f"s3://{bucket}/{path}" if bucket and path else None

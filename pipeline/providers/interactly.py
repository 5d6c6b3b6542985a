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
    Text,
    bad_shape,
    canonical,
    decode,
    decode_exactly,
    id_of,
    instant,
    is_blank,
    loosened,
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


# Words that are on the lists are quicker read than texts. Others are read as well, the plain way.
_Kind = Literal["status-update", "conversation-update", "end-of-call-report", "hang", "error"]
_PhoneStatus = Literal[
    "", "queued", "ringing", "in-progress", "completed", "busy", "no-answer", "failed", "canceled"
]


class _Call(msgspec.Struct, rename="camel", gc=False):
    id: Text | None = None
    team_id: Text | None = None
    assistant_id: Text | None = None
    call_type: Text | None = None
    direction: Text | None = None
    user_number: Text | None = None
    assistant_number: Text | None = None
    status: Literal["queued", "ongoing", "finished", "forwarded"] | None = None
    phone_call_status: _PhoneStatus | None = None
    phone_call_status_reason: Text | None = None
    call_end_trigger_by: Literal["", "bot", "user", "system"] | None = None
    start_at: Any = None
    end_at: Any = None
    assistant_call_duration: Any = None
    recording: Any = None
    cost: Any = None


class _Message(msgspec.Struct, gc=False):
    timestamp: Any = None
    type: _Kind | None = None
    call: _Call | None = None
    error: Any = None
    analysis: Any = None


class _Body(msgspec.Struct, gc=False):
    message: _Message | None = None


_EXACT: Final = msgspec.json.Decoder(_Body)
_LOOSE: Final = loosened(_Body)
_TEXTS: Final = [field.name for field in msgspec.structs.fields(_Call) if field.type is not Any]


def is_signed(secret: bytes, headers: Mapping[str, str], body: bytes, now_us: int) -> bool:
    """Interactly sends the secret itself, as `x-interactly-secret`, and signs nothing."""
    return is_same(headers.get("x-interactly-secret", ""), secret)


def stream_key(body: bytes, query: Mapping[str, str]) -> str | None:
    """The call key, if the body says which call it is about."""
    found = decode(body, _LOOSE)
    if isinstance(found, Rejection) or found.message is None or found.message.call is None:
        return None
    call_id = text(found.message.call.id)
    return None if call_id is None else call_key("interactly", call_id)


def events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """One event for one webhook."""
    exact = decode_exactly(_EXACT, webhook.body)
    message = None if exact is None else exact.message
    if message is not None:
        call = message.call
        if call is not None and call.id and not _is_any_blank(call, call.id):
            return [_event(webhook, message, call, call.id)]
    return _plain_events(webhook)


def _is_any_blank(call: _Call, call_id: str) -> bool:
    # One by one: a loop over them takes four times as long (0.5 against 0.1 µs for six).
    return (
        is_blank(call_id)
        or is_blank(call.team_id or "")
        or is_blank(call.assistant_id or "")
        or is_blank(call.user_number or "")
        or is_blank(call.assistant_number or "")
        or is_blank(call.phone_call_status_reason or "")
    )


def _plain_events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """The same for a webhook of any shape."""
    body = decode(webhook.body, _LOOSE)
    if isinstance(body, Rejection):
        return body
    message = body.message
    if message is None:
        return bad_shape("message", "an Interactly webhook is an object with an object `message`")
    call = message.call
    if call is None:
        return bad_shape("message.call", "`message.call` must be an object")
    setattr(message, "type", text(message.type))  # noqa: B010  any text
    for name in _TEXTS:
        setattr(call, name, text(getattr(call, name)))
    if call.id is None:
        return missing("message.call.id", "no call id")
    return [_event(webhook, message, call, call.id)]


def _event(webhook: Webhook, message: _Message, call: _Call, call_id: str) -> CallEvent:
    """The event of a webhook whose texts are such, or empty."""
    kind, status, trigger = message.type, call.status or None, call.call_end_trigger_by
    assistant_id = call.assistant_id or None
    state = STATE.get(status or "") if kind in TYPES else None
    sent_us, start_us, end_us = instant(message.timestamp), instant(call.start_at), instant(call.end_at)
    cost = mapping(call.cost) if call.cost else {}
    reported = _reported_seconds(call, cost, is_over=state == "ended")
    total = number(cost.get("totalCost")) if cost else None
    error = mapping(message.error) if kind == "error" else {}
    # No event id is sent. Numbers are left out: they tell no two events apart, and privacy settings change them.
    # As `event_id` joins them, in 1.0 instead of 1.6 µs.
    identity = id_of(
        f"interactly\x1f{call_id}\x1f{kind or ''}\x1f{'' if sent_us is None else sent_us}"
        f"\x1f{status or ''}\x1f{call.phone_call_status or ''}\x1f{call.phone_call_status_reason or ''}"
        f"\x1f{trigger or ''}\x1f{'' if start_us is None else start_us}\x1f{'' if end_us is None else end_us}"
        f"\x1f{'' if reported is None else reported}\x1f{'' if total is None else total}"
        f"\x1f{_error_told(error) if error else ''}"
    )
    at_us = webhook.received_us if sent_us is None else sent_us
    event = CallEvent(
        event_id=identity,
        provider="interactly",
        stream_key=call_key("interactly", call_id),
        call_id=call_id,
        event_type=kind or "unknown",
        at_us=at_us,
        received_us=webhook.received_us,
        at_source="received" if sent_us is None else "provider",
        raw_status=status,
        is_unknown=kind not in TYPES or status not in STATE,
        state=state,
        started_us=start_us,
        channel=CHANNEL.get(call.call_type or ""),
        account_id=call.team_id or None,
        agent_id=assistant_id,
    )
    if total is not None:
        event.cost_total = total
    if reported is not None:
        event.reported_seconds, event.talk_is_reported = reported, True
        event.answer_evidence = True if reported > 0 else None
    if error:
        event.errors = (identity,)
    if call.recording:
        event.recording_url = _recording_url(mapping(call.recording))
    if message.analysis:
        _add_analysis(event, mapping(message.analysis))
    _add_parties(event, call, assistant_id)
    if kind == "end-of-call-report":
        event.fact_rank = 1
    is_update = kind == "status-update"
    if state == "in_progress":
        event.answer_evidence = True
        event.answered_us = at_us if is_update else None
    elif state == "queued":
        event.queued_us = at_us if is_update else None
    elif state == "ended":
        # Only a status update tells of the change as it happens; a report comes seconds later, after post-processing.
        event.ended_us = event.hangup_us = at_us if end_us is None and is_update else end_us
        event.end_trigger = END_TRIGGER.get(trigger or "")
        _add_end(event, status, call.phone_call_status or None)
    return event


def _error_told(error: Mapping[str, Any]) -> str:
    return canonical([text(error.get("type")), text(error.get("code")), text(error.get("message"))])


def _reported_seconds(call: _Call, cost: Mapping[str, Any], is_over: bool) -> float | None:
    # Milliseconds in one field, seconds in the other; 0 before the end stands for "not known yet".
    found = seconds(call.assistant_call_duration, per_second=1000)
    if cost and (found is None or (found == 0 and not is_over)):
        found = seconds(cost.get("callDuration"))
    return None if found == 0 and not is_over else found


def _add_parties(event: CallEvent, call: _Call, assistant_id: str | None) -> None:
    event.direction = DIRECTION.get(call.direction or "")
    if event.direction is None:
        return
    # Web callers come as "web-<display name>" and assistants without a number as their own id: neither is a number.
    user, assistant = call.user_number or None, call.assistant_number or None
    if user == assistant_id or (user is not None and user.startswith("web-")):
        user = None
    if assistant == assistant_id or (assistant is not None and assistant.startswith("web-")):
        assistant = None
    if event.direction == "outbound":
        event.from_number, event.to_number = assistant, user
    else:
        event.from_number, event.to_number = user, assistant


def _add_analysis(event: CallEvent, analysis: Mapping[str, Any]) -> None:
    # The filled analysis is `message.analysis`; `message.call.analysis` stays empty in the same report.
    event.success_evaluation = text(analysis.get("successEvaluation"))
    said = (analysis.get("summary"), analysis.get("outcome"))
    event.has_analysis = event.success_evaluation is not None or any(isinstance(x, str) and x for x in said)


def _add_end(event: CallEvent, status: str | None, phone_status: str | None) -> None:
    if status == "forwarded":
        event.outcome, event.end_rank, event.transferred, event.answer_evidence = "forwarded", 1, True, True
        return
    event.unanswered_outcome = UNANSWERED.get(phone_status or "", "unknown")
    event.failure_reason = None if phone_status in NO_FAILURE else phone_status


def _recording_url(recording: Mapping[str, Any]) -> str | None:
    bucket, path = recording.get("s3Bucket"), recording.get("path")
    if bucket == "" or path == "":  # as long as nothing is recorded
        return None
    bucket, path = text(bucket), text(path)
    return f"s3://{bucket}/{path}" if bucket and path else None

"""Recho, told the slow way. No times but those of receipt; `eventType` decides, the last end wins."""

from typing import Any, Final

from pipeline.simulate.truth.hook import Event, Hook, canonical, fingerprint, section, text
from pipeline.simulate.truth.story import Story, first_of, moment_of

_OUT_STATE: Final = {"PENDING": "queued", "REQUESTED": "queued", "CALLING": "ringing", "CLOSING": "wrap_up"}
_IN_STATE: Final = {"CONNECTING": "ringing", "CALLING": "in_progress", "CLOSING": "wrap_up"}
_OUT_END: Final = {
    "COMPLETED": "completed",
    "NO_RESPONSE": "no_answer",
    "BUSY": "busy",
    "UNREACHABLE": "unreachable",
    "EXPIRED": "expired",
    "CANCELED": "canceled",
    "MAX_ATTEMPTS_REACHED": "max_attempts",
}
_IN_END: Final = {"COMPLETED": "completed", "CONCURRENCY_LIMIT_EXCEEDED": "limit_reached"}
_ERROR_END: Final = {
    "VOICEMAIL_REACHED": "voicemail",
    "LIMIT_REACHED": "limit_reached",
    "CONCURRENCY_LIMIT_EXCEEDED": "limit_reached",
}


def read(hook: Hook) -> tuple[str, Event] | None:
    """The event of a webhook, by call id. Which endpoint it was sent to is not part of the event."""
    body = section(hook.body.get("body"))
    data = section(body.get("data"))
    call_id = text(data.get("callId"))
    if call_id is None:
        return None
    kind = text(hook.body.get("eventType")) or ""
    payload = {key: value for key, value in hook.body.items() if key not in ("webhookEndpoint", "authConfig")}
    errors = body.get("errors")
    facts: dict[str, Any] = {
        "project": text(hook.body.get("projectId")),
        "status": text(data.get("callStatus")),
        "sid": text(data.get("callSid")),
        "errors": [section(error) for error in errors] if isinstance(errors, list) else [],
    }
    return call_id, Event(fingerprint(payload), hook.received_us, "received", hook.received_us, kind, facts)


def tell(call_id: str, events: list[Event]) -> Story:
    """The call that these distinct events tell of."""
    ordered = sorted(events, key=lambda event: (event.received_us, _state(event) or "", event.identity))
    story = Story("recho", call_id, events, provider_call_id=call_id)
    kinds = [event.kind.split("_CALL_")[0].lower() for event in ordered if "_CALL_" in event.kind]
    story.direction = next((kind for kind in kinds if kind in ("inbound", "outbound")), "unknown")
    story.account_id = next((e.facts["project"] for e in ordered if e.facts["project"]), None)
    story.raw_status = ordered[-1].facts["status"] or ordered[-1].kind or None
    story.started = moment_of(ordered[0])
    story.queued = first_of([event for event in ordered if event.kind == "OUTBOUND_CALL_PENDING"])
    story.ringings = [moment_of(event) for event in ordered if _state(event) == "ringing"]
    story.answered = first_of([event for event in ordered if event.kind == "INBOUND_CALL_CALLING"])
    story.attempts = max(1, _attempts(ordered))
    story.error_count = len({_error_key(error) for event in ordered for error in event.facts["errors"]})
    _tell_end(story, ordered)
    return story


def _tell_end(story: Story, ordered: list[Event]) -> None:
    ends = [index for index, event in enumerate(ordered) if _outcome(event)]
    last = ends[-1] if ends else -1
    story.answer_evidence = story.answered is not None
    if not ends or _is_redialled(ordered, last, len(ends)):
        current = ordered[last + 1 :]
        states = [state for state in map(_state, current) if state]
        story.state = states[-1] if states else "queued"
        closings = [event for event in current if event.kind.endswith("_CALL_CLOSING")]
        story.answer_evidence |= bool(closings)
    else:
        end = ordered[last]
        story.raw_status = end.facts["status"] or end.kind or None
        story.state, story.outcome, story.ended = "ended", _outcome(end), moment_of(end)
        errors = end.facts["errors"]
        story.failure_reason = text(errors[0].get("code")) if errors else None
        story.failure_reason = story.failure_reason or end.facts["status"]
        attempt = ordered[ends[-2] + 1 if len(ends) > 1 else 0 : last]
        closings = [event for event in attempt if event.kind.endswith("_CALL_CLOSING")]
    if closings:
        story.hangup_us = story.talk_until_us = closings[-1].received_us


def _is_redialled(ordered: list[Event], last: int, ends: int) -> bool:
    """Whether the call was dialled again after its last end."""
    dials = ("OUTBOUND_CALL_REQUESTED", "OUTBOUND_CALL_CALLING")
    later = [event for event in ordered[last + 1 :] if event.kind in dials]
    known = {event.facts["sid"] for event in ordered[: last + 1]} | {None}
    counts = [sum(event.kind == kind for event in ordered) for kind in dials]
    return any(event.facts["sid"] not in known for event in later) or (bool(later) and max(counts) > ends)


def _attempts(ordered: list[Event]) -> int:
    sids = [event.facts["sid"] for event in ordered if event.kind == "OUTBOUND_CALL_REQUESTED"]
    return len({sid for sid in sids if sid}) + sum(sid is None for sid in sids)


def _state(event: Event) -> str | None:
    side, _, word = event.kind.partition("_CALL_")
    return {"OUTBOUND": _OUT_STATE, "INBOUND": _IN_STATE}.get(side, {}).get(word)


def _outcome(event: Event) -> str | None:
    side, _, word = event.kind.partition("_CALL_")
    if word == "ERROR" and side in ("OUTBOUND", "INBOUND"):
        return _ERROR_END.get(event.facts["status"] or "", "failed")
    return {"OUTBOUND": _OUT_END, "INBOUND": _IN_END}.get(side, {}).get(word)


def _error_key(error: dict[str, Any]) -> str:
    return canonical([error.get(key) for key in ("code", "message", "timestamp", "where", "phase")])

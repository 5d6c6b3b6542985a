"""FreeClimb, told the slow way. One webhook ends a leg; the only sender's clock is in the signature."""

import re
from typing import Any, Final

from pipeline.simulate.truth import instant
from pipeline.simulate.truth.hook import Event, Hook, fingerprint, number, text
from pipeline.simulate.truth.story import Moment, Story, moment_of

_END: Final = {
    "completed": "completed",
    "busy": "busy",
    "failed": "failed",
    "noAnswer": "no_answer",
    "canceled": "canceled",
}
_STATE: Final = {"queued": "queued", "ringing": "ringing", "inProgress": "in_progress"}
_TRIGGER: Final = {"farEndHangup": "customer", "appHangup": "agent", "appReject": "agent"}
_FIELDS: Final = (
    "accountId",
    "callStatus",
    "callEndedReason",
    "callDuration",
    "direction",
    "from",
    "to",
    "parentCallId",
    "recordingUrl",
)


def read(hook: Hook) -> tuple[str, Event] | None:
    """The event of a webhook, by call id."""
    call_id = text(hook.body.get("callId"))
    if call_id is None:
        return None
    kind = text(hook.body.get("requestType")) or ""
    signed = re.search(r"(?:^|,)\s*t=(\d+)", hook.headers.get("freeclimb-signature", ""))
    at_us = instant.from_count(int(signed[1]), per_second=1) if signed else None
    facts = {name: text(hook.body.get(name)) for name in _FIELDS}
    duration = hook.body.get("callDuration")
    facts["callDuration"] = str(duration) if number(duration) is not None else text(duration)
    identity = fingerprint([kind, facts, at_us])
    source = "received" if at_us is None else "provider"
    return call_id, Event(
        identity, hook.received_us if at_us is None else at_us, source, hook.received_us, kind, facts
    )


def tell(call_id: str, events: list[Event]) -> Story:
    """The leg that these distinct events tell of."""
    ordered = sorted(events, key=lambda e: (e.at_us, _is_end(e), e.received_us, e.identity))

    def fact(name: str) -> Any:
        return next((event.facts[name] for event in reversed(ordered) if event.facts[name]), None)

    story = Story("freeclimb", call_id, events, provider_call_id=call_id)
    story.account_id, story.parent_call_id = fact("accountId"), fact("parentCallId")
    story.from_number, story.to_number = fact("from"), fact("to")
    direction = fact("direction") or ""
    story.direction = "outbound" if direction.startswith("outbound") else "unknown"
    story.direction = "inbound" if direction == "inbound" else story.direction
    story.raw_status, story.recording_url = fact("callStatus"), fact("recordingUrl")
    states = [_STATE[e.facts["callStatus"]] for e in ordered if e.facts["callStatus"] in _STATE]
    story.state = max(states, key=["queued", "ringing", "in_progress"].index, default="queued")
    story.answer_evidence = "in_progress" in states
    ends = [event for event in ordered if _is_end(event)]
    if ends:
        story.raw_status = ends[-1].facts["callStatus"]
        _tell_end(story, ends[-1])
    return story


def _is_end(event: Event) -> bool:
    return event.kind == "callStatus" and event.facts["callStatus"] in _END


def _tell_end(story: Story, end: Event) -> None:
    status, reason = end.facts["callStatus"], end.facts["callEndedReason"]
    story.state, story.outcome, story.ended = "ended", _END[status], moment_of(end)
    if status == "completed" and reason == "machineDetected":
        story.outcome = "voicemail"
    story.failure_reason = reason or status
    story.end_trigger = _TRIGGER.get(reason, "system") if reason else "unknown"
    seconds = _seconds(end.facts["callDuration"])
    story.reported_seconds = story.stated_total_seconds = seconds
    started_us = (
        None
        if seconds is None
        else instant.from_count(end.at_us - round(seconds * 1_000_000), per_second=1_000_000)
    )
    if started_us is not None:
        story.started = Moment(started_us, end.at_source)


def _seconds(value: str | None) -> float | None:
    try:
        return number(float(value)) if value else None
    except ValueError:
        return None

"""From a call's story to the columns of `calls`: what is the same for every provider."""

from itertools import pairwise
from typing import Any, Final, NamedTuple

from pipeline.simulate.truth import instant
from pipeline.simulate.truth.story import Story

FAILURE_CLASS: Final[dict[str, str | None]] = {
    "completed": None,
    "forwarded": None,
    **dict.fromkeys(
        ["no_answer", "busy", "rejected", "unreachable", "voicemail", "max_attempts"], "recipient"
    ),
    **dict.fromkeys(["canceled", "expired", "abandoned"], "caller"),
    "limit_reached": "capacity",
    "failed": "technical",
    "unknown": "unknown",
}


class Rules(NamedTuple):
    """When an open call is given up."""

    idle_us: int
    as_of_us: int
    close_open: bool


def to_record(story: Story, rules: Rules) -> dict[str, Any]:
    """All the columns of `calls`; times as ISO 8601 texts in UTC."""
    receipts = sorted(event.received_us for event in story.events)
    is_timed_out = story.outcome is None and (
        story.is_timed_out or rules.close_open or rules.as_of_us - receipts[-1] >= rules.idle_us
    )
    if is_timed_out:
        story.state, story.outcome, story.failure_reason = "ended", "unknown", None
        story.end_trigger, story.ended = "unknown", None
    is_answered = _is_answered(story)
    if is_answered is False:
        story.answered = None
    gaps = sum(b - a >= rules.idle_us for a, b in pairwise(receipts))
    revised_by = len(receipts) if story.revised_by is None else story.revised_by
    is_over = story.outcome is not None
    return {
        "call_key": f"{story.provider}:{story.call_id}",
        "provider": story.provider,
        "call_id": story.call_id,
        "provider_call_id": story.provider_call_id,
        "parent_call_id": story.parent_call_id,
        "is_root": story.parent_call_id is None,
        "account_id": story.account_id,
        "agent_id": story.agent_id,
        "direction": story.direction,
        "channel": story.channel,
        "from_number": story.from_number,
        "to_number": story.to_number,
        "state": story.state,
        "outcome": story.outcome,
        "failure_class": FAILURE_CLASS[story.outcome] if story.outcome else None,
        "failure_reason": None if story.outcome in (None, "completed", "forwarded") else story.failure_reason,
        "raw_status": story.raw_status,
        "end_trigger": story.end_trigger if is_over else None,
        "is_answered": is_answered,
        "answered_by": _answered_by(story, is_answered),
        "is_transferred": story.is_transferred,
        "attempts": story.attempts,
        "error_count": story.error_count,
        **_times(story, is_answered),
        "reported_seconds": story.reported_seconds,
        "time_source": _time_source(story),
        "recording_url": story.recording_url,
        "has_analysis": story.has_analysis,
        "success_evaluation": story.success_evaluation,
        "cost_total": story.cost_total,
        "first_event_at": instant.to_text(min(event.at_us for event in story.events)),
        "last_event_at": instant.to_text(max(event.at_us for event in story.events)),
        "event_count": len(story.events),
        "revision": revised_by + gaps + is_timed_out,
        "closed_by": ("timeout" if is_timed_out else "terminal") if is_over else None,
        "date": instant.to_date(story.started.us if story.started else min(e.at_us for e in story.events)),
    }


def _is_answered(story: Story) -> bool | None:
    if story.outcome in ("completed", "forwarded", "voicemail"):
        return True
    if story.outcome == "failed":
        return story.answer_evidence
    if story.outcome in (None, "unknown"):
        return True if story.answer_evidence else None
    return False


def _answered_by(story: Story, is_answered: bool | None) -> str | None:
    if not is_answered:
        return None
    return "machine" if story.outcome == "voicemail" else "unknown"


def _times(story: Story, is_answered: bool | None) -> dict[str, Any]:
    started, answered, ended = (m.us if m else None for m in (story.started, story.answered, story.ended))
    talk = story.stated_talk_seconds
    total = story.stated_total_seconds
    return {
        "queued_at": instant.to_text(story.queued.us if story.queued else None),
        "ringing_at": instant.to_text(min(story.ringings).us if story.ringings else None),
        "started_at": instant.to_text(started),
        "answered_at": instant.to_text(answered),
        "ended_at": instant.to_text(ended),
        "ring_seconds": _ring_seconds(story, is_answered),
        "talk_seconds": (_span(answered, story.talk_until_us) if talk is None else talk)
        if is_answered
        else None,
        "wrap_up_seconds": _span(story.hangup_us, ended),
        "total_seconds": _span(started, ended) if total is None else total,
    }


def _ring_seconds(story: Story, is_answered: bool | None) -> float | None:
    until = {True: story.answered, False: story.ended, None: None}[is_answered]
    if until is None:
        return None
    before = [ringing.us for ringing in story.ringings if ringing.us <= until.us]
    return _span(max(before), until.us) if before else None


def _span(from_us: int | None, until_us: int | None) -> float | None:
    if from_us is None or until_us is None or until_us < from_us:
        return None
    return (until_us - from_us) / 1_000_000


def _time_source(story: Story) -> str:
    ringing = min(story.ringings, default=None)
    used = [m for m in (story.queued, ringing, story.started, story.answered, story.ended) if m is not None]
    sources = {moment.source for moment in used} or {event.at_source for event in story.events}
    return "received" if "received" in sources else "provider"

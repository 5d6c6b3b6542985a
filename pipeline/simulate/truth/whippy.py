"""Whippy, told the slow way. `call.started` answers, `call.ended` ends, `call.analyzed` adds."""

from typing import Any, Final

from pipeline.simulate.truth import instant
from pipeline.simulate.truth.hook import Event, Hook, fingerprint, number, section, text
from pipeline.simulate.truth.story import Moment, Story, first_of, moment_of

_RANK: Final = {"call.started": 1, "call.ended": 2, "call.analyzed": 3}
_REASON: Final = {
    "user_hangup": ("completed", "customer"),
    "agent_hangup": ("completed", "agent"),
    "inactivity": ("completed", "system"),
    "max_duration_reached": ("completed", "system"),
    "call_transfer": ("forwarded", "unknown"),
    "dial_busy": ("busy", "unknown"),
    "dial_no_answer": ("no_answer", "unknown"),
    "dial_failed": ("failed", "unknown"),
    "invalid_destination": ("failed", "unknown"),
    "voicemail_reached": ("voicemail", "unknown"),
    "user_declined": ("rejected", "unknown"),
    "concurrency_limit_reached": ("limit_reached", "unknown"),
}


def read(hook: Hook) -> tuple[str, Event] | None:
    """The event of a webhook, by message id; events that are not of calls are none."""
    data, kind = section(hook.body.get("data")), text(hook.body.get("event")) or ""
    call_id = text(data.get("id"))
    if call_id is None or not kind.startswith("call."):
        return None
    names = [hook.body.get("request_id"), kind, data.get("delivery_status"), data.get("updated_at")]
    at_us = instant.from_text(hook.body.get("created_at"))
    source = "received" if at_us is None else "provider"
    identity = fingerprint([*names, hook.body.get("created_at")])
    facts = _facts(data)
    return call_id, Event(
        identity, hook.received_us if at_us is None else at_us, source, hook.received_us, kind, facts
    )


def _facts(data: dict[str, Any]) -> dict[str, Any]:
    metadata = section(data.get("metadata"))
    user = data.get("user_id")
    attachments = data.get("attachments")
    files = [section(file) for file in attachments] if isinstance(attachments, list) else []
    audio = [file for file in files if (text(file.get("content_type")) or "").startswith("audio/")]
    duration_ms = number(metadata.get("duration"))
    facts: dict[str, Any] = {
        "status": text(data.get("delivery_status")),
        "created_us": instant.from_text(data.get("created_at")),
        "updated_us": instant.from_text(data.get("updated_at")),
        "direction": (text(data.get("direction")) or "").lower() or None,
        "from": text(data.get("from")),
        "to": text(data.get("to")),
        "channel_id": text(data.get("channel_id")),
        "agent": text(metadata.get("agent_id")) or (str(user) if isinstance(user, int) else text(user)),
        "channel": text(metadata.get("type")),
        "duration": None if duration_ms is None else duration_ms / 1000,
        "recording": text(audio[0].get("url")) if audio else None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def tell(call_id: str, events: list[Event]) -> Story:
    """The call that these distinct events tell of."""
    ordered = sorted(events, key=lambda e: (e.at_us, _RANK.get(e.kind, 0), e.received_us, e.identity))

    def fact(name: str) -> Any:
        return next((event.facts[name] for event in reversed(ordered) if name in event.facts), None)

    started = [event for event in ordered if event.kind == "call.started"]
    ends = [event for event in ordered if event.kind == "call.ended"]
    story = Story("whippy", call_id, events, provider_call_id=call_id)
    story.account_id, story.agent_id = fact("channel_id"), fact("agent")
    story.direction = fact("direction") if fact("direction") in ("inbound", "outbound") else "unknown"
    story.channel = fact("channel") if fact("channel") in ("phone", "web") else "phone"
    story.from_number, story.to_number = fact("from"), fact("to")
    story.raw_status, story.recording_url, story.reported_seconds = (
        fact("status"),
        fact("recording"),
        fact("duration"),
    )
    story.has_analysis = any(event.kind == "call.analyzed" for event in events)
    created_us = fact("created_us")
    story.started = None if created_us is None else Moment(created_us, "provider")
    story.answered = first_of(started)
    story.answer_evidence = bool(started)
    story.state = "in_progress" if started else "queued"
    if ends:
        story.raw_status = ends[-1].facts.get("status")
        _tell_end(story, ends[-1])
    return story


def _tell_end(story: Story, end: Event) -> None:
    updated_us, created_us = end.facts.get("updated_us"), end.facts.get("created_us")
    is_later = updated_us is not None and created_us is not None and updated_us > created_us
    story.ended = Moment(updated_us, "provider") if is_later and updated_us else moment_of(end)
    story.talk_until_us = story.ended.us
    story.state = "ended"
    _, _, reason = end.facts.get("status", "").partition(".")
    default = ("failed", "unknown") if reason.startswith("error_") else ("completed", "unknown")
    story.outcome, story.end_trigger = _REASON.get(reason, default)
    story.failure_reason = reason or None
    story.is_transferred = story.outcome == "forwarded"
    if reason in ("dial_failed", "invalid_destination"):
        story.answer_evidence = False

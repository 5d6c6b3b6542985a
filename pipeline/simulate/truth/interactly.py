"""Interactly, told the slow way. `call.status` alone moves the call; a report alone is enough."""

from typing import Any, Final

from pipeline.simulate.truth import instant
from pipeline.simulate.truth.hook import Event, Hook, fingerprint, number, section, text
from pipeline.simulate.truth.story import Moment, Story, first_of, moment_of

_TYPES: Final = {"status-update", "conversation-update", "end-of-call-report", "hang", "error"}
_STATE: Final = {"queued": "queued", "ongoing": "in_progress", "finished": "ended", "forwarded": "ended"}
_RANK: Final = {"queued": 1, "ongoing": 2, "finished": 3, "forwarded": 3}
_UNANSWERED: Final = {"busy": "busy", "no-answer": "no_answer", "failed": "failed", "canceled": "canceled"}
_NO_REASON: Final = {"completed", "in-progress", "ringing", "queued"}
_TRIGGER: Final = {"bot": "agent", "user": "customer", "system": "system"}


def read(hook: Hook) -> tuple[str, Event] | None:
    """The event of a webhook, by call id."""
    message = section(hook.body.get("message"))
    call = section(message.get("call"))
    call_id = text(call.get("id"))
    if call_id is None:
        return None
    kind = text(message.get("type")) or ""
    facts = _facts(kind, message, call)
    at_us = instant.from_count(message.get("timestamp"), per_second=1000)
    decided = {key: value for key, value in facts.items() if key not in ("user", "line")}
    identity = fingerprint([kind, message.get("timestamp"), call.get("phoneCallStatusReason"), decided])
    source = "received" if at_us is None else "provider"
    return call_id, Event(
        identity, hook.received_us if at_us is None else at_us, source, hook.received_us, kind, facts
    )


def _facts(kind: str, message: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    cost, analysis = section(call.get("cost")), section(message.get("analysis"))
    recording, error = section(call.get("recording")), section(message.get("error"))
    bucket, path = text(recording.get("s3Bucket")), text(recording.get("path"))
    facts: dict[str, Any] = {
        "status": text(call.get("status")),
        "phone_status": text(call.get("phoneCallStatus")),
        "team": text(call.get("teamId")),
        "assistant": text(call.get("assistantId")),
        "call_type": text(call.get("callType")),
        "direction": text(call.get("direction")),
        "start_us": instant.from_text(call.get("startAt")),
        "end_us": instant.from_text(call.get("endAt")),
        "user": text(call.get("userNumber")),
        "line": text(call.get("assistantNumber")),
        "trigger": text(call.get("callEndTriggerBy")),
        "duration": _stated_seconds(kind, call, cost),
        "cost": number(cost.get("totalCost")),
        "recording": f"s3://{bucket}/{path}" if bucket and path else None,
        "evaluation": text(analysis.get("successEvaluation")),
        "analysed": any(text(analysis.get(key)) for key in ("summary", "successEvaluation", "outcome")),
    }
    if kind == "error":
        facts["error"] = [error.get(key) for key in ("type", "code", "message")]
    return {key: value for key, value in facts.items() if value is not None and value is not False}


def _stated_seconds(kind: str, call: dict[str, Any], cost: dict[str, Any]) -> float | None:
    """0 means unknown until the call is over; an unknown kind of message decides nothing."""
    if kind not in _TYPES:
        return None
    over = call.get("status") in ("finished", "forwarded")
    ms, seconds = number(call.get("assistantCallDuration")), number(cost.get("callDuration"))
    if ms is not None and (ms > 0 or over):
        return ms / 1000
    return seconds if seconds is not None and (seconds > 0 or over) else None


def tell(call_id: str, events: list[Event]) -> Story:
    """The call that these distinct events tell of."""
    in_time = sorted(
        events, key=lambda e: (e.at_us, _RANK.get(e.facts.get("status", ""), 0), e.received_us, e.identity)
    )
    by_trust = [e for e in reversed(in_time) if e.kind == "end-of-call-report"]
    by_trust += [e for e in reversed(in_time) if e.kind != "end-of-call-report"]
    known = [event for event in in_time if event.kind in _TYPES]
    ongoing = [event for event in known if event.facts.get("status") == "ongoing"]

    def fact(name: str) -> Any:
        return next((event.facts[name] for event in by_trust if name in event.facts), None)

    story = Story("interactly", call_id, events, provider_call_id=call_id)
    story.account_id, story.agent_id = fact("team"), fact("assistant")
    story.direction = fact("direction") if fact("direction") in ("inbound", "outbound") else "unknown"
    story.channel = fact("call_type") if fact("call_type") in ("web", "phone") else "unknown"
    user, line = _phone(fact("user"), story.agent_id), _phone(fact("line"), story.agent_id)
    if story.direction != "unknown":
        story.from_number, story.to_number = (user, line) if story.direction == "inbound" else (line, user)
    story.raw_status = next((e.facts["status"] for e in reversed(in_time) if "status" in e.facts), None)
    states = [_STATE[e.facts["status"]] for e in known if e.facts.get("status") in _STATE]
    story.state = max(states, key=["queued", "in_progress", "ended"].index, default="queued")
    story.queued = first_of([event for event in known if event.facts.get("status") == "queued"])
    story.answered = first_of([event for event in ongoing if event.kind == "status-update"])
    started_us = fact("start_us")
    story.started = Moment(started_us, "provider") if started_us is not None else None
    story.reported_seconds = story.stated_talk_seconds = fact("duration")
    story.answer_evidence = bool(ongoing) or (story.reported_seconds or 0) > 0
    story.error_count = len({e.identity for e in events if "error" in e.facts})
    story.recording_url, story.cost_total = fact("recording"), fact("cost")
    story.has_analysis, story.success_evaluation = bool(fact("analysed")), fact("evaluation")
    _tell_end(story, [event for event in by_trust if event in known and _is_end(event)])
    return story


def _is_end(event: Event) -> bool:
    return event.facts.get("status") in ("finished", "forwarded")


def _tell_end(story: Story, ends: list[Event]) -> None:
    if not ends:
        return
    stated = next((e.facts["end_us"] for e in ends if "end_us" in e.facts), None)
    story.ended = Moment(stated, "provider") if stated is not None else min(map(moment_of, ends))
    story.talk_until_us = story.ended.us
    story.end_trigger = next(
        (_TRIGGER.get(e.facts["trigger"], "unknown") for e in ends if "trigger" in e.facts), "unknown"
    )
    word = ends[0].facts.get("phone_status")
    story.failure_reason = None if word in _NO_REASON else word
    if any(event.facts["status"] == "forwarded" for event in ends):
        story.outcome, story.is_transferred, story.answer_evidence = "forwarded", True, True
    elif story.answer_evidence:
        story.outcome = "completed"
    else:
        story.outcome = _UNANSWERED.get(word or "", "unknown")


def _phone(value: str | None, assistant: str | None) -> str | None:
    """Web callers have a name and assistants an id where a number should be."""
    return None if value is None or value.startswith("web-") or value == assistant else value

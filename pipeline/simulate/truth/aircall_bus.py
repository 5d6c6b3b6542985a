"""The Aircall bus, told the slow way: one agent's events in their order, cut into calls."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pipeline.simulate.truth import instant
from pipeline.simulate.truth.hook import Event, Hook, section, text
from pipeline.simulate.truth.story import Moment, Story, first_of, moment_of

_BEGINS: Final = {"connecting", "accepting"}
_ENDS: Final = {"ended", "idle"}
_STATE: Final = {
    "connecting": "queued",
    "ringing": "ringing",
    "accepting": "ringing",
    "connected": "in_progress",
    "hanging": "wrap_up",
    "mandatoryTagging": "wrap_up",
}
_STATES: Final = ["queued", "ringing", "in_progress", "wrap_up"]


@dataclass(slots=True)
class _Cut:
    """A call being cut out of the stream."""

    events: list[Event]
    uuid: str | None = None
    is_over: bool = False
    is_timed_out: bool = False
    takes_id: str = ""
    start: int = 0
    """Where in the agent's stream the call's first event stands."""
    ended_before: int | None = None
    """Where the next call's first event stands."""


def read(hook: Hook) -> tuple[str, Event] | None:
    """The event of a webhook, by agent: out of the relay's envelope, or bare with the agent in the query."""
    is_enveloped = isinstance(hook.body.get("event"), dict)
    event = hook.body["event"] if is_enveloped else hook.body
    agent = _agent(hook.body.get("agent_id")) if is_enveloped else None
    agent = agent or _agent(hook.query.get("agent_id"))
    if agent is None and not is_enveloped:
        agent = _agent(section(event.get("payload")).get("userId"))
    kind = text(event.get("type"))
    if agent is None or kind is None:
        return None
    session, seq = hook.body.get("session_id"), hook.body.get("seq")
    has_place = is_enveloped and text(session) is not None and isinstance(seq, int)
    at_us = instant.from_text(hook.body.get("sent_at")) if is_enveloped else None
    if has_place:
        names = [agent, str(session), str(seq)]
    else:
        told = msgspec.json.encode(_less_numbers(event), order="sorted").decode()
        names = [agent, str(hook.received_us), told]
    facts = _facts(section(event.get("payload")), kind)
    facts |= {"session": session if has_place else "", "seq": seq if has_place else 0}
    source = "received" if at_us is None else "provider"
    at_us = hook.received_us if at_us is None else at_us
    return agent, Event(_digest("aircall_bus", *names), at_us, source, hook.received_us, kind, facts)


def _facts(payload: dict[str, Any], kind: str) -> dict[str, Any]:
    metadata = section(payload.get("metadata")) if kind == "DIALER.SYNC" else payload
    is_about_call = kind in ("DIALER.INCOMING", "DIALER.DIALING", "DIALER.SYNC")
    is_status = kind == "DIALER.CALL_STATUS"
    return {
        "status": text(payload.get("status")) if is_status else None,
        "flow": (text(payload.get("flow")) or "regular") if is_status else None,
        "uuid": text(metadata.get("callUuid")) if is_about_call else None,
        "from": _number(metadata.get("from")) if is_about_call else None,
        "to": _number(metadata.get("to")) if is_about_call else None,
        "internal": kind == "DIALER.INCOMING" and payload.get("type") == "internal",
    }


def _number(value: Any) -> str | None:
    """A telephone number; agents are addressed as `client:<id>`, which is none."""
    found = text(value)
    return None if found is None or found.startswith("client:") else found


def _less_numbers(value: Any) -> Any:
    """An event stays the same one when a privacy setting has masked the numbers in it."""
    if isinstance(value, list):
        return [_less_numbers(item) for item in value]
    if not isinstance(value, dict):
        return value
    numbers = ("from", "to", "external", "transferer", "number", "normalized")
    return {key: _less_numbers(item) for key, item in value.items() if key not in numbers}


def _agent(value: Any) -> str | None:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)


def _digest(*names: str) -> str:
    return hashlib.blake2b(b"\x1f".join(name.encode() for name in names), digest_size=16).hexdigest()


def tell_all(agent: str, events: list[Event], idle_us: int) -> list[Story]:
    """The calls in one agent's stream; a call is given up where the next begins `idle_us` after the last event."""
    ordered = _in_order(events)
    earliest_from = [event.received_us for event in ordered]
    for index in range(len(ordered) - 2, -1, -1):
        earliest_from[index] = min(earliest_from[index], earliest_from[index + 1])
    stories = []
    before: _Cut | None = None
    for cut in _cut(ordered, idle_us):
        stories.append(_tell(agent, cut, _revised_by(cut, before, ordered, earliest_from)))
        before = cut
    return stories


def _revised_by(cut: _Cut, before: _Cut | None, ordered: list[Event], earliest_from: list[int]) -> int:
    """The agent's events from the call's first on, received no later than the last that shaped the call."""
    last_us = max(event.received_us for event in cut.events)
    returns = list(_returns(cut, before, ordered))
    last_us = max([last_us, *_losses(cut, ordered, earliest_from), *returns])
    # The event that took the details away is one of the call before.
    count, index = len(set(returns)), cut.start
    while index < len(ordered) and earliest_from[index] <= last_us:
        count += ordered[index].received_us <= last_us
        index += 1
    return count


def _losses(cut: _Cut, ordered: list[Event], earliest_from: list[int]) -> Iterator[int]:
    """When events that had been taken for this call's went to a later call, whose begin had not been there yet."""
    if cut.ended_before is None:
        return
    begins: list[int] = []
    for event, nothing_before in zip(
        ordered[cut.ended_before :], earliest_from[cut.ended_before :], strict=True
    ):
        if begins and nothing_before >= min(begins):
            return
        if _begins(event):
            begins.append(event.received_us)
        elif event.received_us < min(begins) and (event.kind == "DIALER.SYNC" or not cut.is_over):
            yield min(begins)


def _returns(cut: _Cut, before: _Cut | None, ordered: list[Event]) -> Iterator[int]:
    """When details that had been taken for this call's went to the call before, whose id had not been there yet."""
    if before is None:
        return
    later = {event.identity for event in ordered[cut.start :]}
    for event in before.events:
        if event.identity in later:
            known = [
                other.received_us
                for other in before.events
                if other.identity not in later and other.facts["uuid"] == event.facts["uuid"]
            ]
            if known and event.received_us < min(known):
                yield min(known)


def _begins(event: Event) -> bool:
    return event.kind in ("DIALER.DIALING", "DIALER.INCOMING") or event.facts["status"] in _BEGINS


def _in_order(events: list[Event]) -> list[Event]:
    """Within a session by `seq`, whatever its clock says; sessions among each other by time."""
    placed = []
    for session in {event.facts["session"] for event in events}:
        latest_us = 0
        for event in sorted((e for e in events if e.facts["session"] == session), key=_place):
            latest_us = max(latest_us, event.at_us)
            placed.append(((latest_us, session, event.facts["seq"], event.identity), event))
    return [event for _, event in sorted(placed, key=lambda pair: pair[0])]


def _place(event: Event) -> tuple[int, int, str]:
    return event.facts["seq"], event.at_us, event.identity


def _cut(ordered: list[Event], idle_us: int) -> list[_Cut]:
    cuts: list[_Cut] = []
    before_us: int | None = None
    for index, event in enumerate(ordered):
        now = cuts[-1] if cuts else None
        is_stale = before_us is not None and event.at_us - before_us >= idle_us
        before_us = event.at_us
        if _begins(event) and (now is None or now.is_over or is_stale):
            if now is not None and not now.is_over:
                now.is_timed_out = True
            if now is not None:
                now.ended_before = index
            cuts.append(_begin(event, now, index))
        elif now is not None:
            _add(event, now, cuts[-2] if len(cuts) > 1 else None)
    return cuts


def _begin(event: Event, before: _Cut | None, start: int) -> _Cut:
    uuid = event.facts["uuid"] if event.kind == "DIALER.INCOMING" else None
    is_own = uuid is not None and (before is None or before.uuid != uuid)
    call_id = uuid if uuid is not None and is_own else "bus-" + _digest(event.identity)
    return _Cut([event], uuid=uuid, takes_id=call_id, start=start)


def _add(event: Event, now: _Cut, before: _Cut | None) -> None:
    uuid = event.facts["uuid"]
    if event.kind == "DIALER.SYNC" and before and uuid and uuid == before.uuid and uuid != now.uuid:
        before.events.append(event)
    elif not now.is_over or event.kind == "DIALER.SYNC":
        now.events.append(event)
        now.uuid = now.uuid or uuid
        now.is_over = now.is_over or event.facts["status"] in _ENDS


def _tell(agent: str, cut: _Cut, revised_by: int) -> Story:
    first, events = cut.events[0], cut.events
    told = _of_first_party(events)
    story = Story("aircall_bus", cut.takes_id, events, provider_call_id=_uuid(cut, told), agent_id=agent)
    is_outbound = first.kind == "DIALER.DIALING" or first.facts["status"] == "connecting"
    story.direction = "outbound" if is_outbound else "inbound"
    story.direction = "internal" if first.facts["internal"] else story.direction
    story.from_number = next((e.facts["from"] for e in told if e.facts["from"]), None)
    story.to_number = next((e.facts["to"] for e in told if e.facts["to"]), None)
    story.raw_status = next((e.facts["status"] for e in reversed(events) if e.facts["status"]), None)
    story.started, story.is_timed_out = moment_of(first), cut.is_timed_out
    story.ringings = _ringings(told, is_outbound)
    connected = [event for event in events if event.facts["status"] == "connected"]
    story.answered = first_of([event for event in connected if event.facts["flow"] == "regular"])
    story.answer_evidence = bool(connected)
    hanging = _hangups(events)
    lasting = [e for e in events if _state(e) != "wrap_up" or e in hanging]
    story.state = max(filter(None, map(_state, lasting)), key=_STATES.index, default="queued")
    story.revised_by = revised_by
    story.hangup_us = min((event.at_us for event in hanging), default=None)
    story.talk_until_us = story.hangup_us
    if cut.is_over:
        _tell_end(story, events)
    return story


def _hangups(events: list[Event]) -> list[Event]:
    """Hang-ups of the call: those after which it is not connected again before another call begins."""
    found = []
    for index, event in enumerate(events):
        if event.facts["status"] not in ("hanging", "mandatoryTagging"):
            continue
        after = [e for e in events[index + 1 :] if _begins(e) or e.facts["status"] == "connected"]
        if not after or _begins(after[0]):
            found.append(event)
    return found


def _of_first_party(events: list[Event]) -> list[Event]:
    """The events without those that begin another party's leg once the call is connected."""
    connected = next(
        (i for i, event in enumerate(events) if event.facts["status"] == "connected"), len(events)
    )
    begins = ("DIALER.DIALING", "DIALER.INCOMING")
    return [event for i, event in enumerate(events) if i < connected or event.kind not in begins]


def _uuid(cut: _Cut, told: list[Event]) -> str | None:
    return next((event.facts["uuid"] for event in told if event.facts["uuid"]), None)


def _tell_end(story: Story, events: list[Event]) -> None:
    statuses = [event.facts["status"] for event in events]
    end = next(event for event in events if event.facts["status"] in _ENDS)
    story.state, story.ended = "ended", moment_of(end)
    if story.talk_until_us is None:
        story.talk_until_us = end.at_us
    merges = [index for index, status in enumerate(statuses) if status == "merging"]
    if merges and "connected" not in statuses[merges[-1] :]:
        story.outcome, story.is_transferred = "forwarded", True
    else:
        story.outcome = "completed" if story.answer_evidence else "no_answer"


def _ringings(events: list[Event], is_outbound: bool) -> list[Moment]:
    if not is_outbound:
        return [moment_of(event) for event in events if event.kind == "DIALER.INCOMING"]
    return [moment_of(e) for e in events if e.facts["status"] == "ringing" and e.facts["flow"] == "regular"]


def _state(event: Event) -> str | None:
    if event.kind in ("DIALER.DIALING", "DIALER.INCOMING"):
        return "queued" if event.kind == "DIALER.DIALING" else "ringing"
    if event.facts["flow"] == "warmTransfer" and event.facts["status"] == "ringing":
        return None
    return _STATE.get(event.facts["status"] or "")

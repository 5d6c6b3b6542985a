"""Cutting an agent's stream into calls: a fold too, over the set of the agent's events.

The events name no call. A call begins with a `begin` event at the start, after an end, or after so long a silence
that the call before it was closed by timeout; it ends with an `end` event. What belongs to no call is left out.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from itertools import accumulate
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from pipeline.assemble.fold import FOREVER_US, fold
from pipeline.model import FORGOTTEN, STATE_RANK, CallEvent, CallRecord

_PLACE_IN_SESSION: Final = attrgetter("seq", "event_id")


class Cut(NamedTuple):
    """One call of the stream, and where it stands in it."""

    call_id: str
    events: list[CallEvent]
    start: int
    """Index of its first event in the ordered stream."""
    closer: int | None
    """Index of the event that began the next call."""


def in_stream_order(events: Iterable[CallEvent]) -> list[CallEvent]:
    """The agent's events as they happened: by `seq` within a session of the relay, by time across sessions.

    A browser's clock may be set back; within a session it is then taken to stand still until it has caught up.
    """
    by_session: dict[str, list[CallEvent]] = {}
    keyed: list[tuple[int, str, int, int, str, CallEvent]] = []
    for event in events:
        if event.session_id is not None and event.seq is not None:
            by_session.setdefault(event.session_id, []).append(event)
        else:
            keyed.append((event.at_us, "", 0, STATE_RANK.get(event.state or "", 0), event.event_id, event))
    for session, members in by_session.items():
        members.sort(key=_PLACE_IN_SESSION)
        if len(by_session) == 1 and not keyed:
            return members
        clock = 0
        for event in members:
            clock = max(clock, event.at_us)
            keyed.append((clock, session, event.seq or 0, 0, event.event_id, event))
    keyed.sort(key=lambda entry: entry[:5])
    return [entry[5] for entry in keyed]


def cut(ordered: Sequence[CallEvent], idle_us: int) -> list[Cut]:
    """The calls of an agent's stream, in their order. `ordered` starts at the stream's or at a call's start."""
    calls: list[Cut] = []
    is_open = False
    uuids: list[str | None] = []
    last_us = 0
    for index, event in enumerate(ordered):
        silent = index > 0 and event.at_us - last_us >= idle_us
        last_us = max(last_us, event.at_us)
        if event.cut == "begin" and (not is_open or silent):
            if calls:
                calls[-1] = calls[-1]._replace(closer=index)
            uuid = event.provider_call_id
            taken = bool(uuids) and uuids[-1] == uuid
            calls.append(Cut(uuid if uuid and not taken else _derived_id(event), [event], index, None))
            uuids.append(uuid)
            is_open = True
        elif event.cut == "sync" and calls:
            place = _sync_place(event, uuids)
            calls[place].events.append(event)
            uuids[place] = uuids[place] or event.provider_call_id
        elif is_open:
            calls[-1].events.append(event)
            uuids[-1] = uuids[-1] or event.provider_call_id
            is_open = event.cut != "end"
    return calls


def _sync_place(event: CallEvent, uuids: Sequence[str | None]) -> int:
    """Details of a call keep coming after its end, at times when the next one has already begun."""
    uuid = event.provider_call_id
    if len(uuids) > 1 and uuid is not None and uuid == uuids[-2] and uuid != uuids[-1]:
        return -2
    return -1


def _derived_id(first: CallEvent) -> str:
    return "bus-" + hashlib.blake2b(first.event_id.encode(), digest_size=16).hexdigest()


class Settled(NamedTuple):
    """The record of a call that can change by its events only, no longer by time, and what it was folded from."""

    events: list[CallEvent]
    shaped_by: int
    record: CallRecord


def fold_stream(
    events: Iterable[CallEvent], *, as_of_us: int, idle_us: int, settled: dict[str, Settled] | None = None
) -> list[tuple[CallRecord, list[CallEvent]]]:
    """The records of all calls in an agent's stream, each with the events that belong to it.

    `settled`, by call id, spares the calls of an earlier fold of the same stream that are as they were; it is brought
    up to date.
    """
    ordered = in_stream_order(events)
    # The earliest receipt from each event on: where nothing can follow any more that was there in time.
    earliest = list(accumulate((event.received_us for event in reversed(ordered)), min))[::-1]
    folded = []
    place = {event.event_id: index for index, event in enumerate(ordered)}
    before: Cut | None = None
    still: dict[str, Settled] = {}
    for call in cut(ordered, idle_us):
        if call.events[0].event_type == FORGOTTEN:
            # It was erased. What is left of it keeps the place of its neighbours' events, and is told to nobody.
            before = call
            continue
        shaped_by = _shaped_by(call, before, ordered, earliest, place)
        known = None if settled is None else settled.get(call.call_id)
        if known is not None and _is_as_it_was(call, shaped_by, known):
            still[call.call_id] = known
            record = copy(known.record)
        else:
            record = fold(
                _told(call.events),
                # Another call began, so this one, if it never ended, was closed by silence.
                as_of_us=as_of_us if call.closer is None else FOREVER_US,
                idle_us=idle_us,
                call_id=call.call_id,
                shaped_by=shaped_by,
            )
            if call.closer is not None or record.closed_by == "terminal":
                # A copy, because whoever publishes a record may raise its revision.
                still[call.call_id] = Settled(call.events, shaped_by, copy(record))
        folded.append((record, call.events))
        before = call
    if settled is not None:
        settled.clear()
        settled.update(still)
    return folded


def _is_as_it_was(call: Cut, shaped_by: int, known: Settled) -> bool:
    can_time_out = call.closer is None and known.record.closed_by != "terminal"
    return not can_time_out and known.shaped_by == shaped_by and known.events == call.events


def _told(events: Sequence[CallEvent]) -> list[CallEvent]:
    """The call's events as the fold may take them: a second party's details left out, a merge told by its end."""
    told: list[CallEvent] = [events[0]]
    resumed = _resumed(events)
    is_outbound = events[0].direction == "outbound"
    connected = merging = False
    for event in events[1:]:
        if event.cut == "connected":
            # Connected again: the merge did not come about.
            connected, merging = True, False
        elif event.cut == "merging":
            merging = True
        if event.event_id in resumed:
            told.append(msgspec.structs.replace(event, state=None, hangup_us=None))
        elif event.cut == "begin" and connected:
            told.append(_as_second_party(event))
        elif event.cut == "end" and merging:
            told.append(msgspec.structs.replace(event, outcome="forwarded", transferred=True))
        elif event.direction is not None or event.ringing_us is not None:
            told.append(_as_of(event, is_outbound))
        else:
            told.append(event)
    return told


def _resumed(events: Sequence[CallEvent]) -> set[str]:
    """Hang-ups after which the call was connected again: those of a transfer's second leg, not of the call."""
    found, goes_on = set(), False
    for event in reversed(events):
        if event.cut in ("connected", "begin"):
            goes_on = event.cut == "connected"
        elif event.state == "wrap_up" and goes_on:
            found.add(event.event_id)
    return found


def _as_of(event: CallEvent, is_outbound: bool) -> CallEvent:
    """Which way the call goes is told by its first event; an outbound call rings there, an inbound one here."""
    rings_here = event.cut == "begin"
    ringing_us = None if rings_here == is_outbound else event.ringing_us
    return msgspec.structs.replace(event, direction=None, ringing_us=ringing_us)


def _as_second_party(event: CallEvent) -> CallEvent:
    return msgspec.structs.replace(
        event,
        state=None,
        direction=None,
        from_number=None,
        to_number=None,
        provider_call_id=None,
        ringing_us=None,
    )


def _shaped_by(
    call: Cut,
    before: Cut | None,
    ordered: Sequence[CallEvent],
    earliest: Sequence[int],
    place: Mapping[str, int],
) -> int:
    """How many of the agent's events, from the call's first on, were there when the call took its shape.

    In an undisturbed stream that is the number of its own events. A late event that moves a border between calls
    can leave a call with fewer events than before; this number rises all the same, because the late event was
    received after those that it displaced. `before` is the call before, `earliest` the earliest receipt from each
    place on.
    """
    shaped_us = max(event.received_us for event in call.events)
    handed_back_us = 0 if before is None else _last_handing_back_us(call, before, place)
    shaped_us = max(shaped_us, handed_back_us)
    if call.closer is not None:
        shaped_us = max(shaped_us, _last_loss_us(call, call.closer, ordered, earliest))
    # What made it hand details back stands before it, and is not among its events.
    count = int(handed_back_us > 0)
    for index in range(call.start, len(ordered)):
        if earliest[index] > shaped_us:
            break
        count += ordered[index].received_us <= shaped_us
    return count


def _last_loss_us(call: Cut, closer: int, ordered: Sequence[CallEvent], earliest: Sequence[int]) -> int:
    """When the call last lost an event to a later call, because a begin came late; 0 if it never did.

    An event that follows belonged to this call from its receipt until the first receipt of any begin between them.
    """
    has_ended = any(event.cut == "end" for event in call.events)
    begun_us, lost_us = ordered[closer].received_us, 0
    for index in range(closer + 1, len(ordered)):
        if earliest[index] >= begun_us:
            break
        event = ordered[index]
        if event.cut == "begin":
            begun_us = min(begun_us, event.received_us)
        elif event.received_us < begun_us and (event.cut == "sync" or not has_ended):
            lost_us = max(lost_us, begun_us)
    return lost_us


def _last_handing_back_us(call: Cut, before: Cut, place: Mapping[str, int]) -> int:
    """When the call last lost details to the call before it, because that one's id came late; 0 if it never did."""
    handed_back = [event for event in before.events if place[event.event_id] > call.start]
    if not handed_back:
        return 0
    uuid = handed_back[-1].provider_call_id
    told_us = min(
        (
            event.received_us
            for event in before.events
            if event.provider_call_id == uuid and place[event.event_id] < call.start
        ),
        default=0,
    )
    return max((told_us for event in handed_back if event.received_us < told_us), default=0)

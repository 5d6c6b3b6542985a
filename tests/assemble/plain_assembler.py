"""An assembler that looks at every stream at every flush, and folds all of it: the oracle of the one that is sparing.

What both share is what was not made faster: the cut itself, what a call was shaped by, and letting go.
"""

import runpy
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from pipeline.assemble.assembler import Assembler, Changes, PlacedEvent
from pipeline.assemble.cut import Cut, _shaped_by, _told, cut
from pipeline.assemble.memory import Folded, Stream
from pipeline.model import STATE_RANK, CallEvent, CallRecord, Remembered, call_key

plain = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "plain_fold.py")))


def in_stream_order(events: Iterable[CallEvent]) -> list[CallEvent]:
    """By `seq` within a session of the relay, by time across sessions."""
    by_session: dict[str, list[CallEvent]] = {}
    keyed: list[tuple[int, str, int, int, str, CallEvent]] = []
    for event in events:
        if event.session_id is not None and event.seq is not None:
            by_session.setdefault(event.session_id, []).append(event)
        else:
            keyed.append((event.at_us, "", 0, STATE_RANK.get(event.state or "", 0), event.event_id, event))
    for session, members in by_session.items():
        members.sort(key=lambda e: (e.seq or 0, e.event_id))
        clock = 0
        for event in members:
            clock = max(clock, event.at_us)
            keyed.append((clock, session, event.seq or 0, 0, event.event_id, event))
    keyed.sort(key=lambda entry: entry[:5])
    return [entry[5] for entry in keyed]


def fold_stream(events: Iterable[CallEvent], *, as_of_us: int, idle_us: int) -> list[Folded]:
    """The records of all calls in an agent's stream, each with its events: every call folded anew."""
    ordered = in_stream_order(events)
    earliest = list(accumulate((event.received_us for event in reversed(ordered)), min))[::-1]
    place = {event.event_id: index for index, event in enumerate(ordered)}
    folded = []
    before: Cut | None = None
    for call in cut(ordered, idle_us):
        record = plain.fold(
            _told(call.events),
            as_of_us=as_of_us if call.closer is None else plain.FOREVER_US,
            idle_us=idle_us,
            call_id=call.call_id,
            shaped_by=_shaped_by(call, before, ordered, earliest, place),
        )
        folded.append((record, call.events))
        before = call
    return folded


def fold_events(
    events: Iterable[CallEvent],
    published: Mapping[str, CallRecord],
    *,
    is_agent: bool,
    as_of_us: int,
    idle_us: int,
) -> list[Folded]:
    """The records of a stream, each with its events; what was closed by timeout stays closed without news."""
    every = list(events)

    def folded_at(us: int) -> list[Folded]:
        if is_agent:
            return fold_stream(every, as_of_us=us, idle_us=idle_us)
        return [(plain.fold(every, as_of_us=us, idle_us=idle_us), every)]

    folded = folded_at(as_of_us)
    for record, _ in folded:
        before = published.get(record.call_key)
        if (
            record.state != "ended"
            and before is not None
            and before.closed_by == "timeout"
            and before.event_count == record.event_count
        ):
            return folded_at(plain.FOREVER_US)
    return folded


def is_change(record: CallRecord, before: CallRecord | None) -> bool:
    """Whether the record says something new; its revision never goes down."""
    if before is None or record.revision >= before.revision:
        return record != before
    record.revision = before.revision
    if record == before:
        return False
    record.revision += 1
    return True


def told_of_again(taken_again: set[str], folded: list[Folded]) -> set[str]:
    """Calls with an event that was taken again, and their neighbours."""
    found = set()
    for place, (record, _) in enumerate(folded):
        near = folded[max(0, place - 1) : place + 2]
        if any(event.event_id in taken_again for _, events in near for event in events):
            found.add(record.call_key)
    return found


class PlainStream(Stream):
    """A stream whose events are left as they come, and folded anew each time."""

    def take(self, event: CallEvent) -> bool:
        known = self.events.get(event.event_id)
        if known is not None and known.received_us <= event.received_us:
            if self.is_agent and event.event_id not in (self.fresh or ()):
                self.taken_again = {*(self.taken_again or ()), event.event_id}
            return False
        self.events[event.event_id] = event
        self.fresh = {*(self.fresh or ()), event.event_id}
        self.last_us = max(self.last_us, event.received_us)
        return True

    def merge(self, past: Remembered) -> None:
        for event in past.events:
            known = self.events.get(event.event_id)
            if known is None or event.received_us <= known.received_us:
                self.events[event.event_id] = event
                if self.is_agent and event.event_id in (self.fresh or ()):
                    self.taken_again = {*(self.taken_again or ()), event.event_id}
                self.fresh = {*(self.fresh or ())} - {event.event_id}
            self.last_us = max(self.last_us, event.received_us)
        self.published.update({record.call_key: record for record in past.records})
        self.retracted = {record.call_key: record for record in past.retracted}
        self.kept_from, self.let_go, self.uuid_before, self.is_trimmed = None, {}, None, False
        if not self.is_agent:
            self._note_due(past.events)
            return
        calls = cut(in_stream_order(past.events), self.idle_us)
        self.placed = {event.event_id: None for event in past.events} | {
            event.event_id: call_key(call.events[0].provider, call.call_id)
            for call in calls
            for event in call.events
        }
        self._note_due(calls[-1].events if calls else [])

    def is_settled(self, folded: list[Folded]) -> None:
        self.fresh, self.taken_again = set(), set()
        if self.is_agent:
            self.placed = dict.fromkeys(self.events) | {
                event.event_id: record.call_key for record, events in folded for event in events
            }
        self._note_due(folded[-1][1] if folded else [])
        self.is_trimmed = False

    def _let_go(self, ordered: list[CallEvent], calls: list[Cut], border: int) -> None:
        newest = dict(self.let_go)
        for event in ordered[: calls[border].start]:
            if event.session_id is not None and event.seq is not None:
                newest[event.session_id] = max(event.seq, newest.get(event.session_id, -1))
        super()._let_go(ordered, calls, border)
        self.let_go = newest

    def _note_due(self, last_call: Iterable[CallEvent]) -> None:
        is_open = any(record.state != "ended" for record in self.published.values())
        newest_us = max((event.received_us for event in last_call), default=self.last_us)
        self.due_us = newest_us + self.idle_us if is_open else None

    def fold(self, as_of_us: int) -> list[Folded]:
        return fold_events(
            self.events.values(),
            self.published,
            is_agent=self.is_agent,
            as_of_us=as_of_us,
            idle_us=self.idle_us,
        )


class PlainAssembler(Assembler):
    """The same in what it takes and forgets; all streams are looked at, and settled in one way."""

    def _new(self, partition: Hashable, event: CallEvent) -> Stream:
        return PlainStream(partition, event.provider in self._agent_providers, self._idle_us)

    def collect(self, as_of_us: Callable[[Any], int], *, only_settled: bool = False) -> Changes:
        if self._to_remember:
            for key, past in self._history.remember(self._to_remember).items():
                self._streams[key].merge(past)
            self._to_remember.clear()
        self._just_gone.clear()
        changes = Changes.none()
        now_of = cache(as_of_us)
        for key, stream in list(self._streams.items()):
            now_us = now_of(stream.partition)
            is_silent = now_us - stream.last_us >= self._grace_us
            is_due = stream.due_us is not None and now_us >= stream.due_us
            waits = only_settled and not stream.is_agent
            if (key in self._dirty or is_due) and (is_silent or not waits):
                folded = stream.fold(now_us)
                if waits and any(record.state != "ended" for record, _ in folded):
                    continue
                self._settle_plainly(key, stream, folded, changes)
                self._dirty.pop(key, None)
            if stream.is_agent:
                if not stream.is_trimmed and key not in self._dirty:
                    stream.trim(now_us - self._grace_us)
            elif is_silent and stream.due_us is None and key not in self._dirty:
                self._just_gone.add(key)
                del self._streams[key]
        return changes

    def _schedule(self, key: str, stream: Stream) -> None:
        """There is nothing to note."""

    def _settle_plainly(self, key: str, stream: Stream, folded: list[Folded], changes: Changes) -> None:
        place = {event.event_id: record.call_key for record, events in folded for event in events}
        fresh = stream.fresh or ()
        for event_id, event in stream.events.items():
            has_moved = event_id in stream.placed and stream.placed[event_id] != place.get(event_id)
            if event_id in fresh or has_moved:
                changes.events.append(PlacedEvent(event, place.get(event_id)))
        is_new = bool(fresh)
        again = told_of_again(stream.taken_again or set(), folded)
        for record, _ in folded:
            before = stream.published.get(record.call_key)
            gone = dict(stream.retracted)
            if before is None and record.call_key in gone:
                # It comes back, and readers must not take the retraction for the newer of the two.
                retracted = gone.pop(record.call_key)
                if record.revision < retracted.revision:
                    is_as_it_was = replace(record, revision=0) == replace(retracted, revision=0)
                    record.revision = retracted.revision + (not is_as_it_was)
                stream.retracted = gone
            if is_change(record, before):
                stream.published[record.call_key] = record
                changes.records.append((key, record))
                if stream.is_agent and is_new:
                    changes.uncertain.add(record.call_key)
            elif record.call_key in again:
                changes.repeated.append((record.call_key, record))
        standing = {record.call_key for record, _ in folded}
        for call in [call for call in stream.published if call not in standing]:
            stream.retracted = {**stream.retracted, call: stream.published.pop(call)}
            changes.retracted.append((key, stream.retracted[call]))
        if stream.taken_again:
            changes.repeated.extend((call, None) for call in stream.retracted if call not in standing)
        stream.is_settled(folded)

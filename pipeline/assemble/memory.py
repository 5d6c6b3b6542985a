"""One stream as a worker holds it in memory: its events, what was published of it, and what of it may be let go.

A stream is what one Kafka key holds: the events of one call, or of one agent whose calls are cut out.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pipeline.assemble.changes import let_show
from pipeline.assemble.cut import Cut, Settled, cut, fold_stream, in_stream_order
from pipeline.assemble.fold import FOREVER_US, fold
from pipeline.model import FORGOTTEN, CallEvent, CallRecord, Remembered, call_key

KEPT_CALLS: Final = 2
"""Calls of an agent that stay in memory after their end: later details may still belong to them."""
BORDERS_TRIED: Final = 3
"""Borders between calls at which letting go is tried: at the newest ones details may still cross them."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
"""Of what most streams never have: an empty dict or set of its own for each would be 600 bytes a call."""

Folded = tuple[CallRecord, list[CallEvent]]


def fold_events(
    events: Iterable[CallEvent],
    published: Mapping[str, CallRecord],
    *,
    is_agent: bool,
    as_of_us: int,
    idle_us: int,
    settled: dict[str, Settled] | None = None,
) -> list[Folded]:
    """The records of a stream, each with its events, by call key in `published` what was told of them before.

    A call that was closed by timeout stays closed until it has another event: a repeat of the same events, seen
    at an earlier time (after a restart, by another run), must not reopen it.
    """
    every = list(events)
    folded = _fold(every, is_agent, as_of_us, idle_us, settled)
    for record, _ in folded:
        before = published.get(record.call_key)
        if (
            record.state != "ended"
            and before is not None
            and before.closed_by == "timeout"
            and before.event_count == record.event_count
        ):
            # At most the last call of a stream is open, so this closes no other.
            return _fold(every, is_agent, FOREVER_US, idle_us, settled)
    return folded


def _fold(
    events: list[CallEvent], is_agent: bool, as_of_us: int, idle_us: int, settled: dict[str, Settled] | None
) -> list[Folded]:
    if is_agent:
        return fold_stream(events, as_of_us=as_of_us, idle_us=idle_us, settled=settled)
    return [(fold(events, as_of_us=as_of_us, idle_us=idle_us), events)]


def _share_texts(event: CallEvent, other: CallEvent) -> None:
    # Each event comes with texts of its own, and most events of a call repeat these: 1.1 KB of 7 KB a call.
    event.stream_key = other.stream_key
    if event.provider == other.provider:
        event.provider = other.provider
    if event.call_id == other.call_id:
        event.call_id = other.call_id
    if event.account_id == other.account_id:
        event.account_id = other.account_id


class Stream:
    """The events of one key. `fresh` are the ids of those that are not durable yet (None: there are none)."""

    __slots__ = (
        "bucket",
        "due_us",
        "events",
        "fresh",
        "idle_us",
        "is_agent",
        "is_trimmed",
        "kept_from",
        "last_us",
        "let_go",
        "partition",
        "placed",
        "published",
        "retracted",
        "settled",
        "taken_again",
        "uuid_before",
    )

    def __init__(self, partition: Hashable, is_agent: bool, idle_us: int) -> None:
        self.partition = partition
        self.is_agent = is_agent
        self.idle_us = idle_us
        self.events: dict[str, CallEvent] = {}
        self.fresh: set[str] | None = None
        self.placed: Mapping[str, str | None] = _NOTHING
        """Agents only: the call that a durable event was last written under."""
        self.published: dict[str, CallRecord] = {}
        self.settled: dict[str, Settled] | None = {} if is_agent else None
        """Agents only: calls that need not be folded again, unless their events change."""
        self.retracted: Mapping[str, CallRecord] = _NOTHING
        """Agents only: the last record of each call that, by a late event, never was, by call key."""
        self.taken_again: set[str] | None = None
        """Agents only: events that came again though they are durable: a worker before us did not commit them."""
        self.last_us = 0
        self.due_us: int | None = None
        """When the call that is going on will have been silent for too long."""
        self.bucket: int | None = None
        """Where the stream stands in its assembler's timetable."""
        self.is_trimmed = False
        # Agents only: the first event in memory, if older ones were let go of; the newest `seq` of each session
        # among those; and the provider's id of the last call among them.
        self.kept_from: CallEvent | None = None
        self.let_go: Mapping[str, int] = _NOTHING
        self.uuid_before: str | None = None

    def take(self, event: CallEvent) -> bool:
        """Adds an event; whether it was news."""
        known = self.events.get(event.event_id)
        if known is not None and known.received_us <= event.received_us:
            if self.is_agent and event.event_id not in (self.fresh or ()):
                self._take_again(event)
            return False
        if self.events:
            _share_texts(event, next(iter(self.events.values())))
        self.events[event.event_id] = event
        if self.fresh is None:
            self.fresh = {event.event_id}
        else:
            self.fresh.add(event.event_id)
        self.last_us = max(self.last_us, event.received_us)
        return True

    def _take_again(self, event: CallEvent) -> None:
        if self.taken_again is None:
            self.taken_again = set()
        self.taken_again.add(event.event_id)

    def reaches_back_to(self, event: CallEvent) -> bool:
        """Whether the event's place, and the call that it belongs to, are surely in memory."""
        kept = self.kept_from
        if kept is None or event.event_id in self.events:
            return True
        if event.cut == "sync" and event.provider_call_id and event.provider_call_id == self.uuid_before:
            return False
        if event.session_id is not None and event.seq is not None:
            if kept.seq is not None and kept.session_id == event.session_id:
                return event.seq >= kept.seq
            if event.seq <= self.let_go.get(event.session_id, -1):
                return False
        return event.at_us > kept.at_us

    def merge(self, past: Remembered) -> None:
        """Takes up what is durable of the stream."""
        for event in past.events:
            known = self.events.get(event.event_id)
            if known is None or event.received_us <= known.received_us:
                # What is durable already, and no newer than what just came, need not be written again.
                self.events[event.event_id] = event
                if self.fresh is not None and event.event_id in self.fresh:
                    if self.is_agent:
                        self._take_again(event)
                    self.fresh.discard(event.event_id)
            self.last_us = max(self.last_us, event.received_us)
        self.published.update({record.call_key: record for record in past.records})
        self.retracted = {record.call_key: record for record in past.retracted} or _NOTHING
        self.kept_from, self.let_go, self.uuid_before, self.is_trimmed = None, _NOTHING, None, False
        if not self.is_agent:
            self._note_due(past.events)
            return
        calls = cut(in_stream_order(past.events), self.idle_us)
        placed: dict[str, str | None] = {event.event_id: None for event in past.events}
        for call in calls:
            if call.events[0].event_type == FORGOTTEN:
                continue
            key = call_key(call.events[0].provider, call.call_id)
            placed.update((event.event_id, key) for event in call.events)
        self.placed = placed
        self._note_due(calls[-1].events if calls else [])

    def fold(self, as_of_us: int) -> list[Folded]:
        """The records of the calls in memory, each with its events."""
        return fold_events(
            self.events.values(),
            self.published,
            is_agent=self.is_agent,
            as_of_us=as_of_us,
            idle_us=self.idle_us,
            settled=self.settled,
        )

    def is_settled(self, folded: list[Folded]) -> None:
        """Takes note of what `fold` gave: it is written now."""
        self.fresh = self.taken_again = None
        if self.is_agent:
            placed: dict[str, str | None] = dict.fromkeys(self.events)
            for record, events in folded:
                placed.update((event.event_id, record.call_key) for event in events)
            self.placed = placed
        self._note_due(folded[-1][1] if folded else [])
        self.is_trimmed = False

    def retract(self, call: str) -> CallRecord:
        """A published call never was: its record, which is remembered in case that the call comes back."""
        record = self.published.pop(call)
        self.retracted = {**self.retracted, call: record}
        return record

    def bring_back(self, record: CallRecord) -> None:
        """A call is there that is not published: perhaps again, and then readers must see that it is."""
        retracted = self.retracted.get(record.call_key)
        if retracted is not None:
            let_show(record, retracted)
            self.retracted = {call: gone for call, gone in self.retracted.items() if gone is not retracted}

    def next_us(self, grace_us: int) -> int | None:
        """When time alone will change something, if nothing is received: a timeout, or leaving memory."""
        if self.due_us is not None:
            return self.due_us
        return None if self.is_agent else self.last_us + grace_us

    def _note_due(self, last_call: Iterable[CallEvent]) -> None:
        self.due_us = None
        if any(record.state != "ended" for record in self.published.values()):
            newest_us = max((event.received_us for event in last_call), default=self.last_us)
            self.due_us = newest_us + self.idle_us

    def trim(self, silent_since_us: int, folded: Sequence[Folded] | None = None) -> None:
        """Lets go of an agent's older calls, if nothing was received of them after `silent_since_us`.

        What is kept must be cut into the same calls without what came before it. What the stream was just folded to,
        if it was, shows sooner that there is nothing to let go of.
        """
        self.is_trimmed = True
        if len(self.published) <= KEPT_CALLS:
            return
        if folded and any(event.received_us > silent_since_us for event in folded[0][1]):
            return
        ordered = in_stream_order(self.events.values())
        calls = cut(ordered, self.idle_us)
        over = 0
        while over < len(calls) - KEPT_CALLS and all(
            event.received_us <= silent_since_us for event in calls[over].events
        ):
            over += 1
        for border in range(over, max(0, over - BORDERS_TRIED), -1):
            if self._stands_alone(ordered, calls, border):
                self._let_go(ordered, calls, border)
                return

    def _stands_alone(self, ordered: list[CallEvent], calls: list[Cut], border: int) -> bool:
        start = calls[border].start
        before, kept = ordered[:start], ordered[start:]
        if max(event.at_us for event in before) > min(event.at_us for event in kept):
            # A clock was set back there: the order hangs on what would be let go of.
            return False
        again = cut(kept, self.idle_us)
        return [(call.call_id, call.events) for call in again] == [
            (call.call_id, call.events) for call in calls[border:]
        ]

    def _let_go(self, ordered: list[CallEvent], calls: list[Cut], border: int) -> None:
        start, let_go = calls[border].start, dict(self.let_go)
        for event in ordered[:start]:
            if event.session_id is not None and event.seq is not None:
                let_go[event.session_id] = max(event.seq, let_go.get(event.session_id, -1))
        self.let_go = let_go
        before = calls[border - 1].events
        self.uuid_before = next((e.provider_call_id for e in before if e.provider_call_id), None)
        kept = ordered[start:]
        self.kept_from = kept[0]
        self.events = {event.event_id: event for event in kept}
        # It would hold the others until the agent's next event, which may never come.
        self.settled = {
            call: known
            for call, known in (self.settled or {}).items()
            if known.events[0].event_id in self.events
        }
        self.placed = {event.event_id: self.placed.get(event.event_id) for event in kept}
        keys = {call_key(kept[0].provider, call.call_id) for call in calls[border:]}
        self.published = {key: record for key, record in self.published.items() if key in keys}

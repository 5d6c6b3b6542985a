"""The open calls of a worker: events go in, and at each flush the records that changed come out.

No I/O: what has left memory is brought back through a `History` that the caller gives, and time is an argument.
A stream is what one Kafka key holds: the events of one call, or of one agent whose calls are cut out.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from pipeline.assemble.cut import cut, fold_stream, in_stream_order
from pipeline.assemble.fold import fold
from pipeline.model import CallEvent, CallRecord, Remembered, call_key

KEPT_CALLS = 2
"""Calls of an agent that stay in memory after their end: later details may still belong to them."""


class History(Protocol):
    """Where events and records are found again that are no longer in memory."""

    def knows(self, stream_key: str) -> bool:
        """False only if nothing of this stream was ever made durable."""
        ...

    def remember(self, stream_keys: Collection[str]) -> Mapping[str, Remembered]:
        """Everything durable of these streams."""
        ...


class NoHistory:
    """A history of nothing, for streams that are whole in memory."""

    def knows(self, stream_key: str) -> bool:
        """Never."""
        return False

    def remember(self, stream_keys: Collection[str]) -> Mapping[str, Remembered]:
        """Nothing."""
        return {}


class PlacedEvent(NamedTuple):
    """An event to be made durable, with the call that it belongs to (none between an agent's calls)."""

    event: CallEvent
    call_key: str | None


class Changes(NamedTuple):
    """What a flush has to make durable. Nothing in it is lost if it is written twice."""

    events: list[PlacedEvent]
    records: list[tuple[str, CallRecord]]
    """Stream key and record, of every record that is new or changed."""
    retracted: list[tuple[str, CallRecord]]
    """Records of calls that, by a late event, never were."""

    def __bool__(self) -> bool:
        return bool(self.events or self.records or self.retracted)


class _Stream:
    __slots__ = ("agent", "events", "fresh", "kept_from", "last_us", "partition", "placed", "published")

    def __init__(self, partition: int, agent: bool) -> None:
        self.partition = partition
        self.agent = agent
        self.events: dict[str, CallEvent] = {}
        self.fresh: set[str] = set()  # event ids that are not durable yet
        self.placed: dict[str, str | None] = {}  # agents only: the call that an event was last written under
        self.published: dict[str, CallRecord] = {}
        self.last_us = 0
        self.kept_from: CallEvent | None = None  # agents only: what came before it was let go of

    def reaches_back_to(self, event: CallEvent) -> bool:
        """Whether the event falls into the part of the stream that is in memory."""
        kept = self.kept_from
        if kept is None:
            return True
        if kept.session_id == event.session_id and kept.seq is not None and event.seq is not None:
            return event.seq >= kept.seq
        return event.at_us >= kept.at_us


class Assembler:
    """Folds events by stream. `agent_providers` are those whose streams are cut into calls."""

    def __init__(
        self,
        *,
        idle_us: int,
        grace_us: int,
        agent_providers: Collection[str],
        history: History | None = None,
    ) -> None:
        self._idle_us = idle_us
        self._grace_us = grace_us
        self._agent_providers = frozenset(agent_providers)
        self._history: History = history or NoHistory()
        self._streams: dict[str, _Stream] = {}
        self._dirty: set[str] = set()
        self._to_remember: set[str] = set()

    def __len__(self) -> int:
        """Streams in memory."""
        return len(self._streams)

    def open_calls(self) -> int:
        """Calls in memory that were published and have not ended."""
        streams = self._streams.values()
        return sum(record.state != "ended" for stream in streams for record in stream.published.values())

    def add(self, partition: int, events: Iterable[CallEvent]) -> None:
        """Takes events of a partition, in any order and with repeats."""
        for event in events:
            key = event.stream_key
            stream = self._streams.get(key)
            if stream is None:
                stream = self._open(partition, event)
            elif not stream.reaches_back_to(event):
                # Older than what was kept of the agent's stream: the cut needs all of it again.
                self._to_remember.add(key)
            if self._take(stream, event):
                self._dirty.add(key)

    def _open(self, partition: int, event: CallEvent) -> _Stream:
        stream = _Stream(partition, event.provider in self._agent_providers)
        self._streams[event.stream_key] = stream
        if self._history.knows(event.stream_key):
            self._to_remember.add(event.stream_key)
        return stream

    def _take(self, stream: _Stream, event: CallEvent) -> bool:
        known = stream.events.get(event.event_id)
        if known is not None and known.received_us <= event.received_us:
            return False
        stream.events[event.event_id] = event
        stream.fresh.add(event.event_id)
        stream.last_us = max(stream.last_us, event.received_us)
        return True

    def restore(self, partition: int, remembered: Mapping[str, Remembered]) -> None:
        """Takes up calls that were going on when this partition was last made durable."""
        for key, past in remembered.items():
            if past.events:
                agent = past.events[0].provider in self._agent_providers
                stream = self._streams.get(key) or _Stream(partition, agent)
                self._streams[key] = stream
                self._merge(stream, past)

    def _merge(self, stream: _Stream, past: Remembered) -> None:
        for event in past.events:
            known = stream.events.get(event.event_id)
            if known is None or event.received_us <= known.received_us:
                # What is durable already, and no newer than what just came, need not be written again.
                stream.events[event.event_id] = event
                stream.fresh.discard(event.event_id)
            stream.last_us = max(stream.last_us, event.received_us)
        for record in past.records:
            stream.published[record.call_key] = record
        stream.kept_from = None

    def drop(self, partitions: Collection[int]) -> None:
        """Forgets the streams of partitions that another worker has taken over."""
        gone = set(partitions)
        for key in [key for key, stream in self._streams.items() if stream.partition in gone]:
            del self._streams[key]
            self._dirty.discard(key)
            self._to_remember.discard(key)

    def collect(self, as_of_us: Callable[[int], int], *, only_settled: bool = False) -> Changes:
        """The changes since the last call, seen at a partition's time; calls that are long over leave memory.

        `only_settled` leaves alone what is still going on or within its grace (a backfill's halfway flush).
        """
        for key, past in self._history.remember(self._to_remember).items() if self._to_remember else ():
            self._merge(self._streams[key], past)
        self._to_remember.clear()
        changes = Changes([], [], [])
        shortest_us = min(self._grace_us, self._idle_us)
        for key in list(self._streams):
            stream = self._streams[key]
            now_us = as_of_us(stream.partition)
            silent_us = now_us - stream.last_us
            if silent_us < shortest_us and key not in self._dirty:
                continue
            due = silent_us >= self._idle_us and any(r.state != "ended" for r in stream.published.values())
            if only_settled and silent_us < max(self._grace_us, 1):
                continue
            if key in self._dirty or due:
                if only_settled and not self._is_over(stream, now_us):
                    continue
                self._settle(key, stream, now_us, changes)
                self._dirty.discard(key)
            if silent_us >= self._grace_us:
                self._let_go(key, stream)
        return changes

    def _is_over(self, stream: _Stream, now_us: int) -> bool:
        return all(record.state == "ended" for record, _ in self._fold(stream, now_us))

    def _fold(self, stream: _Stream, now_us: int) -> list[tuple[CallRecord, list[CallEvent]]]:
        events = list(stream.events.values())
        if stream.agent:
            return fold_stream(events, as_of_us=now_us, idle_us=self._idle_us)
        return [(fold(events, as_of_us=now_us, idle_us=self._idle_us), events)]

    def _settle(self, key: str, stream: _Stream, now_us: int, changes: Changes) -> None:
        folded = self._fold(stream, now_us)
        place = {event.event_id: record.call_key for record, events in folded for event in events}
        for event_id, event in stream.events.items():
            if event_id in stream.fresh or self._has_moved(stream, event_id, place):
                changes.events.append(PlacedEvent(event, place.get(event_id)))
        stream.fresh.clear()
        if stream.agent:
            stream.placed = {event_id: place.get(event_id) for event_id in stream.events}
        for record, _ in folded:
            before = stream.published.get(record.call_key)
            if before == record:
                continue
            if before is not None and record.revision < before.revision:
                # Only when receipts contradict the order of arrival: readers must see the newer state all the same.
                record.revision = before.revision + 1
            stream.published[record.call_key] = record
            changes.records.append((key, record))
        standing = {record.call_key for record, _ in folded}
        for call in [call for call in stream.published if call not in standing]:
            changes.retracted.append((key, stream.published.pop(call)))

    @staticmethod
    def _has_moved(stream: _Stream, event_id: str, place: Mapping[str, str]) -> bool:
        """Whether a moved border has put an event that is durable already into another call."""
        return event_id in stream.placed and stream.placed[event_id] != place.get(event_id)

    def _let_go(self, key: str, stream: _Stream) -> None:
        """Frees what is over. An agent keeps its last calls, from whose start the cut can go on."""
        if any(record.state != "ended" for record in stream.published.values()) or key in self._dirty:
            return
        if not stream.agent:
            del self._streams[key]
            return
        ordered = in_stream_order(stream.events.values())
        calls = cut(ordered, self._idle_us)
        if len(calls) <= KEPT_CALLS:
            return
        kept = ordered[calls[-KEPT_CALLS].start :]
        stream.events = {event.event_id: event for event in kept}
        stream.placed = {event.event_id: stream.placed.get(event.event_id) for event in kept}
        keys = {call_key(kept[0].provider, call.call_id) for call in calls[-KEPT_CALLS:]}
        stream.published = {key: record for key, record in stream.published.items() if key in keys}
        stream.kept_from = kept[0]

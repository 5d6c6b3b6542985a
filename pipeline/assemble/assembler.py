"""The open calls of a worker: events go in, and at each flush the records that changed come out.

No I/O: what has left memory is brought back through a `History` that the caller gives, and time is an argument.
What `collect` gives must be durable before it is called again.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import NamedTuple, Protocol

from pipeline.assemble.memory import Folded, Stream, is_change
from pipeline.model import CallEvent, CallRecord, Remembered


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
    uncertain: set[str]
    """Keys of calls, cut out of an agent's stream by new events, that may yet turn out never to have been."""
    repeated: list[tuple[str, CallRecord | None]]
    """Call keys with the records (None: retracted) that are durable, but may not have been told to everybody: the
    worker before us did not commit the events that they came of."""

    @classmethod
    def none(cls) -> "Changes":
        """Nothing yet."""
        return cls([], [], [], set(), [])

    def __bool__(self) -> bool:
        return bool(self.events or self.records or self.retracted)


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
        self._streams: dict[str, Stream] = {}
        self._dirty: set[str] = set()
        self._to_remember: set[str] = set()
        self._just_gone: set[str] = set()
        """Streams that left memory at the last `collect`: the history may not know all of them yet."""

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
            if stream.take(event) or stream.taken_again:
                self._dirty.add(key)

    def _open(self, partition: int, event: CallEvent) -> Stream:
        key = event.stream_key
        stream = self._streams[key] = self._new(partition, event)
        if key in self._just_gone or self._history.knows(key):
            self._to_remember.add(key)
        return stream

    def _new(self, partition: int, event: CallEvent) -> Stream:
        return Stream(partition, event.provider in self._agent_providers, self._idle_us)

    def restore(self, partition: int, remembered: Mapping[str, Remembered]) -> None:
        """Takes up calls that were going on when this partition was last made durable."""
        for key, past in remembered.items():
            if past.events:
                stream = self._streams.get(key) or self._new(partition, past.events[0])
                self._streams[key] = stream
                stream.merge(past)
                if stream.is_agent or sum(record.event_count for record in past.records) != len(past.events):
                    # A crash came between an event and its record: when the event comes again it is no news.
                    self._dirty.add(key)

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
            if (key in self._dirty or is_due) and (is_silent or not only_settled):
                folded = stream.fold(now_us)
                if only_settled and any(record.state != "ended" for record, _ in folded):
                    continue
                self._settle(key, stream, folded, changes)
                self._dirty.discard(key)
            if stream.is_agent:
                if not stream.is_trimmed and key not in self._dirty:
                    stream.trim(now_us - self._grace_us)
            elif is_silent and stream.due_us is None and key not in self._dirty:
                self._just_gone.add(key)
                del self._streams[key]
        return changes

    def _settle(self, key: str, stream: Stream, folded: list[Folded], changes: Changes) -> None:
        place = {event.event_id: record.call_key for record, events in folded for event in events}
        for event_id, event in stream.events.items():
            if event_id in stream.fresh or self._has_moved(stream, event_id, place):
                changes.events.append(PlacedEvent(event, place.get(event_id)))
        is_new = bool(stream.fresh)
        again = self._told_of_again(stream, folded)
        for record, _ in folded:
            before = stream.published.get(record.call_key)
            if is_change(record, before):
                stream.published[record.call_key] = record
                changes.records.append((key, record))
                if stream.is_agent and is_new:
                    changes.uncertain.add(record.call_key)
            elif record.call_key in again:
                changes.repeated.append((record.call_key, record))
        standing = {record.call_key for record, _ in folded}
        for call in [call for call in stream.published if call not in standing]:
            changes.retracted.append((key, stream.published.pop(call)))
        if stream.taken_again:
            changes.repeated.extend((call, None) for call in stream.retracted if call not in standing)
        stream.is_settled(folded)

    @staticmethod
    def _told_of_again(stream: Stream, folded: list[Folded]) -> set[str]:
        """Calls with an event that was taken again, and their neighbours: a border may have moved between them."""
        places = [
            place
            for place, (_, events) in enumerate(folded)
            if any(event.event_id in stream.taken_again for event in events)
        ]
        near = {place + step for place in places for step in (-1, 0, 1)}
        return {record.call_key for place, (record, _) in enumerate(folded) if place in near}

    @staticmethod
    def _has_moved(stream: Stream, event_id: str, place: Mapping[str, str]) -> bool:
        """Whether a moved border has put an event that is durable already into another call."""
        return event_id in stream.placed and stream.placed[event_id] != place.get(event_id)

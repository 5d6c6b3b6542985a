"""The open calls of a worker: events go in, and at each flush the records that changed come out.

No I/O: what has left memory is brought back through a `History` that the caller gives, and time is an argument.
What `collect` gives must be durable before it is called again.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from functools import cache, partial
from itertools import repeat
from typing import Any, Final

from pipeline.assemble.changes import Changes, History, NoHistory, PlacedEvent, is_change
from pipeline.assemble.memory import Folded, Stream
from pipeline.assemble.timetable import Timetable, bucket_of
from pipeline.model import CallEvent, Remembered

__all__ = ["Assembler", "Changes", "History", "PlacedEvent"]

#: a `PlacedEvent` of a pair, in 0.1 us: named tuples have a function of Python's for it, which takes 0.3
_PLACED: Final = partial(tuple.__new__, PlacedEvent)


class Assembler:
    """Folds events by stream. `agent_providers` are those whose streams are cut into calls.

    A partition is anything hashable: streams of one partition share a time (`collect`), and are dropped together.
    """

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
        # Dicts without values are sets that keep their order.
        self._dirty: dict[str, None] = {}
        self._to_remember: set[str] = set()
        self._timetable = Timetable()
        """When those that are not dirty want to be looked at (`Stream.next_us`); see `Stream.bucket`."""
        self._just_gone: set[str] = set()
        """Streams that left memory at the last `collect`: the history may not know all of them yet."""

    def __len__(self) -> int:
        """Streams in memory."""
        return len(self._streams)

    def open_calls(self) -> int:
        """Calls in memory that were published and have not ended."""
        streams = self._streams.values()
        return sum(record.state != "ended" for stream in streams for record in stream.published.values())

    def add(self, partition: Hashable, events: Iterable[CallEvent]) -> None:
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
                self._dirty[key] = None

    def _open(self, partition: Hashable, event: CallEvent) -> Stream:
        key = event.stream_key
        stream = self._streams[key] = self._new(partition, event)
        if key in self._just_gone or self._history.knows(key):
            self._to_remember.add(key)
        return stream

    def _new(self, partition: Hashable, event: CallEvent) -> Stream:
        return Stream(partition, event.provider in self._agent_providers, self._idle_us)

    def restore(self, partition: Hashable, remembered: Mapping[str, Remembered]) -> None:
        """Takes up calls that were going on when this partition was last made durable."""
        for key, past in remembered.items():
            if past.events:
                stream = self._streams.get(key) or self._new(partition, past.events[0])
                self._streams[key] = stream
                stream.merge(past)
                if stream.is_agent or sum(record.event_count for record in past.records) != len(past.events):
                    # A crash came between an event and its record: when the event comes again it is no news.
                    self._dirty[key] = None
                self._schedule(key, stream)

    def drop(self, partitions: Collection[Hashable]) -> None:
        """Forgets the streams of partitions that another worker has taken over."""
        gone = set(partitions)
        for key in [key for key, stream in self._streams.items() if stream.partition in gone]:
            del self._streams[key]
            self._dirty.pop(key, None)
            self._to_remember.discard(key)
        for partition in gone:
            self._timetable.drop(partition)

    def collect(self, as_of_us: Callable[[Any], int], *, only_settled: bool = False) -> Changes:
        """The changes since the last call, seen at a partition's time; calls that are long over leave memory.

        `only_settled` leaves alone what is still going on or within its grace (a backfill's halfway flush), but for
        agents' streams: around the clock there may always be a call, and they would be held from end to end.
        """
        looked_at = {key: self._streams[key] for key in self._dirty}
        if self._to_remember:
            for key, past in self._history.remember(self._to_remember).items():
                looked_at[key] = self._streams[key]
                looked_at[key].merge(past)
            self._to_remember.clear()
        self._just_gone.clear()
        changes = Changes.none()
        now_of = cache(as_of_us)
        try:
            for partition in self._timetable.partitions():
                for key in self._timetable.take_due(partition, now_of(partition)):
                    looked_at[key] = self._streams[key]
                    looked_at[key].bucket = None
            for key, stream in looked_at.items():
                self._look_at(key, stream, now_of(stream.partition), only_settled, changes)
        finally:
            for key, stream in looked_at.items():
                self._schedule(key, stream)
        return changes

    def _look_at(self, key: str, stream: Stream, now_us: int, only_settled: bool, changes: Changes) -> None:
        is_silent = now_us - stream.last_us >= self._grace_us
        is_due = stream.due_us is not None and now_us >= stream.due_us
        only_settled = only_settled and not stream.is_agent
        is_settled, folded = True, None
        if (key in self._dirty or is_due) and (is_silent or not only_settled):
            folded = stream.fold(now_us)
            is_settled = not only_settled or all(record.state == "ended" for record, _ in folded)
            if is_settled:
                self._settle(key, stream, folded, changes)
                self._dirty.pop(key, None)
        if is_settled and key not in self._dirty:
            if stream.is_agent:
                if not stream.is_trimmed:
                    stream.trim(now_us - self._grace_us, folded)
            elif is_silent and stream.due_us is None:
                self._just_gone.add(key)
                del self._streams[key]

    def _schedule(self, key: str, stream: Stream) -> None:
        """Notes when the stream wants to be looked at next; one that is dirty is looked at in any case."""
        is_waiting = key in self._streams and key not in self._dirty
        next_us = stream.next_us(self._grace_us) if is_waiting else None
        bucket = None if next_us is None else bucket_of(next_us)
        if bucket != stream.bucket:
            if stream.bucket is not None:
                self._timetable.discard(stream.partition, key, stream.bucket)
            if bucket is not None:
                self._timetable.put(stream.partition, key, bucket)
            stream.bucket = bucket

    def _settle(self, key: str, stream: Stream, folded: list[Folded], changes: Changes) -> None:
        if stream.is_agent:
            self._settle_agent(key, stream, folded, changes)
            return
        ((record, events),) = folded
        call, fresh = record.call_key, stream.fresh
        if fresh and len(fresh) == len(events):
            changes.events.extend(map(_PLACED, zip(events, repeat(call))))
        elif fresh:
            new = [event for event in events if event.event_id in fresh]
            changes.events.extend(map(_PLACED, zip(new, repeat(call))))
        before = stream.published.get(call)
        if before is None:
            stream.bring_back(record)
        if is_change(record, before):
            stream.published[call] = record
            changes.records.append((key, record))
        if len(stream.published) > 1:
            self._retract(key, stream, {call}, changes)
        stream.is_settled(folded)

    def _settle_agent(self, key: str, stream: Stream, folded: list[Folded], changes: Changes) -> None:
        place = {event.event_id: record.call_key for record, events in folded for event in events}
        fresh = stream.fresh or ()
        for event_id, event in stream.events.items():
            if event_id in fresh or self._has_moved(stream, event_id, place):
                changes.events.append(PlacedEvent(event, place.get(event_id)))
        is_new = bool(fresh)
        again = self._told_of_again(stream, folded)
        for record, _ in folded:
            before = stream.published.get(record.call_key)
            if before is None:
                stream.bring_back(record)
            if is_change(record, before):
                stream.published[record.call_key] = record
                changes.records.append((key, record))
                if is_new:
                    changes.uncertain.add(record.call_key)
            elif record.call_key in again:
                changes.repeated.append((record.call_key, record))
        standing = {record.call_key for record, _ in folded}
        self._retract(key, stream, standing, changes)
        if stream.taken_again:
            changes.repeated.extend((call, None) for call in stream.retracted if call not in standing)
        stream.is_settled(folded)

    @staticmethod
    def _retract(key: str, stream: Stream, standing: set[str], changes: Changes) -> None:
        for call in [call for call in stream.published if call not in standing]:
            changes.retracted.append((key, stream.retract(call)))

    @staticmethod
    def _told_of_again(stream: Stream, folded: list[Folded]) -> set[str]:
        """Calls with an event that was taken again, and their neighbours: a border may have moved between them."""
        taken_again = stream.taken_again
        if not taken_again:
            return set()
        places = [
            place
            for place, (_, events) in enumerate(folded)
            if any(event.event_id in taken_again for event in events)
        ]
        near = {place + step for place in places for step in (-1, 0, 1)}
        return {record.call_key for place, (record, _) in enumerate(folded) if place in near}

    @staticmethod
    def _has_moved(stream: Stream, event_id: str, place: Mapping[str, str]) -> bool:
        """Whether a moved border has put an event that is durable already into another call."""
        return event_id in stream.placed and stream.placed[event_id] != place.get(event_id)

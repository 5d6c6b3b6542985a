"""An assembler that looks at every stream at every flush: the oracle of the one that keeps a timetable."""

from collections.abc import Callable
from functools import cache
from typing import Any

from pipeline.assemble.assembler import Assembler, Changes, PlacedEvent
from pipeline.assemble.changes import is_change
from pipeline.assemble.memory import Folded, Stream


class PlainAssembler(Assembler):
    """The same in everything but how it finds what changed, and in that all streams are settled in one way."""

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
            if (key in self._dirty or is_due) and (is_silent or not only_settled):
                stream.settled = {} if stream.is_agent else None
                folded = stream.fold(now_us)
                if only_settled and any(record.state != "ended" for record, _ in folded):
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

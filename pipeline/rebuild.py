"""Rebuild: folds the calls of some dates again from the lake's own events, and mends what differs.

The same fold over the same events gives the same record, so over a sound lake nothing is written. What has no
place among events is how late it was when the stream looked: a call that it closed by timeout stays closed.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import date

from pipeline.assemble.cut import fold_stream
from pipeline.assemble.fold import FOREVER_US, fold
from pipeline.backfill import Summary
from pipeline.lake import LakeHistory, LakeSink
from pipeline.model import CallEvent, CallRecord, Remembered
from pipeline.open_lake import open_lake
from pipeline.providers import providers
from pipeline.settings import Settings

STREAMS_AT_ONCE = 20_000

Placed = tuple[CallRecord, Sequence[CallEvent]]


def rebuild(settings: Settings, first: date, last: date) -> Summary:
    """Folds every call that starts, or has an event, between the two UTC dates, both included."""
    started, summary = time.monotonic(), Summary()
    lake = open_lake(settings.lake)
    history, sink = LakeHistory(lake), LakeSink(lake)
    data_us = history.newest_received_us() or 0
    keys = history.streams_between(first, last)
    for chunk in (keys[i : i + STREAMS_AT_ONCE] for i in range(0, len(keys), STREAMS_AT_ONCE)):
        records, retracted = [], []
        for key, past in history.remember(chunk).items():
            summary.events += len(past.events)
            standing = {
                record.call_key: record for record, _ in _folded(past, data_us, settings.idle_seconds)
            }
            summary.calls += len(standing)
            published = {record.call_key: record for record in past.records}
            records += [(key, record) for record in _differing(standing, published)]
            retracted += [(key, record) for call, record in published.items() if call not in standing]
        sink.write_calls([], records, retracted, time.time_ns() // 1_000)
        summary.records += len(records)
        summary.retracted += len(retracted)
    summary.seconds = time.monotonic() - started
    return summary


def _folded(past: Remembered, data_us: int, idle_seconds: float) -> list[Placed]:
    idle_us = round(idle_seconds * 1_000_000)
    newest = max(past.records, key=lambda record: record.first_event_us, default=None)
    as_of_us = FOREVER_US if newest is not None and newest.closed_by == "timeout" else data_us
    if providers()[past.events[0].provider].keyed_by == "agent":
        return list(fold_stream(past.events, as_of_us=as_of_us, idle_us=idle_us))
    return [(fold(past.events, as_of_us=as_of_us, idle_us=idle_us), past.events)]


def _differing(standing: dict[str, CallRecord], published: dict[str, CallRecord]) -> Iterator[CallRecord]:
    for call, record in standing.items():
        before = published.get(call)
        if before is not None and before.revision > record.revision:
            # Arrivals that contradicted their receipts may have pushed the number up; it never goes down.
            record.revision = before.revision
        if record != before:
            yield record

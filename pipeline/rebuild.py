"""Rebuild: folds the calls of some dates again from the lake's own events, and mends what differs.

The same fold over the same events gives the same record, so over a sound lake nothing is written. What has no
place among events is how late it was when the stream looked: a call that it closed by timeout stays closed.
"""

import time
from collections.abc import Iterable, Iterator
from datetime import date

from pipeline.assemble.changes import let_show
from pipeline.assemble.memory import fold_events
from pipeline.backfill import Summary
from pipeline.lake import LakeHistory, LakeSink
from pipeline.model import CallRecord, Remembered
from pipeline.open_lake import open_lake
from pipeline.providers import providers
from pipeline.settings import Settings

STREAMS_AT_ONCE = 20_000


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
            published = {record.call_key: record for record in past.records}
            standing = _folded(past, published, data_us, settings.idle_seconds)
            summary.calls += len(standing)
            records += [(key, record) for record in _differing(standing, published, past.retracted)]
            retracted += [(key, record) for call, record in published.items() if call not in standing]
        sink.write_calls([], records, retracted, time.time_ns() // 1_000)
        summary.records += len(records)
        summary.retracted += len(retracted)
    summary.seconds = time.monotonic() - started
    return summary


def _folded(
    past: Remembered, published: dict[str, CallRecord], data_us: int, idle_seconds: float
) -> dict[str, CallRecord]:
    folded = fold_events(
        past.events,
        published,
        is_agent=providers()[past.events[0].provider].keyed_by == "agent",
        as_of_us=data_us,
        idle_us=round(idle_seconds * 1_000_000),
    )
    return {record.call_key: record for record, _ in folded}


def _differing(
    standing: dict[str, CallRecord], published: dict[str, CallRecord], retracted: Iterable[CallRecord]
) -> Iterator[CallRecord]:
    gone = {record.call_key: record for record in retracted}
    for call, record in standing.items():
        before = published.get(call)
        if before is None and call in gone:
            let_show(record, gone[call])
        if before is not None and before.revision > record.revision:
            # Arrivals that contradicted their receipts may have pushed the number up; it never goes down.
            record.revision = before.revision
        if record != before:
            yield record

"""Rebuild: folds the calls of some dates again from the lake's own events, and mends what differs.

The same fold over the same events gives the same record, so over a sound lake nothing is written, and where records
are missing or damaged, those are written that were there. What has no place among events is how late it was when the
stream looked: a call that it closed by timeout stays closed, as long as a row or a revision of it says so.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.assemble.changes import let_show
from pipeline.assemble.fold import FOREVER_US
from pipeline.assemble.memory import fold_events
from pipeline.backfill_archives import Progress
from pipeline.backfill_summary import Summary
from pipeline.garbage import rarely_searched
from pipeline.lake import LakeHistory, LakeSink
from pipeline.model import CallRecord, Remembered
from pipeline.open_lake import open_lake
from pipeline.providers import providers
from pipeline.settings import Settings

EVENTS_AT_ONCE: Final = 100_000
"""Rows of events in memory at a time, and those of one stream more: 2 KB each."""

Records = Mapping[str, CallRecord]
"""By call key."""


def rebuild(
    settings: Settings,
    first: date,
    last: date,
    *,
    close_open: bool = False,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Folds every call that starts, or has an event, between the two UTC dates, both included.

    Calls of an agent's stream are cut out of the whole of it, so those of other dates are folded too. `close_open`
    closes what never ended, as its timeout would. Each part is durable by itself: a run that was stopped is repeated.
    """
    started, summary = time.monotonic(), Summary()
    lake = open_lake(settings.lake)
    history, sink = LakeHistory(lake), LakeSink(lake)
    as_of_us = FOREVER_US if close_open else history.newest_receipt_us() or 0
    sizes = history.sizes_between(first, last)
    done = 0
    with rarely_searched():
        for keys in _parts(sizes):
            records, retracted = [], []
            told = history.revisions(keys)
            for key, past in history.remember(keys).items():
                published = {record.call_key: record for record in past.records}
                standing = _folded(past, {**told, **published}, as_of_us, settings.idle_seconds)
                summary.events += len(past.events)
                summary.calls += len(standing)
                summary.open_calls += sum(record.state != "ended" for record in standing.values())
                records += [(key, record) for record in _differing(standing, published, past.retracted, told)]
                retracted += [(key, record) for call, record in published.items() if call not in standing]
            # Of two rows of one revision the later counts, whatever clock wrote what is to be mended.
            published_us = max(time.time_ns() // 1_000, history.newest_published_us + 1)
            sink.write_calls([], records, retracted, published_us)
            summary.records += len(records)
            summary.retracted += len(retracted)
            done += len(keys)
            progress(done, len(sizes))
    summary.seconds = time.monotonic() - started
    return summary


def _parts(sizes: pa.Table) -> Iterator[list[str]]:
    """The streams, in their order, as many at a time as have so many events."""
    part = np.cumsum(sizes.column("events").to_numpy()) // EVENTS_AT_ONCE
    borders = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(sizes)]
    for start, end in pairwise(borders):
        if start < end:
            yield sizes.column("stream_key").slice(start, end - start).to_pylist()


def _folded(past: Remembered, known: Records, as_of_us: int, idle_seconds: float) -> dict[str, CallRecord]:
    folded = fold_events(
        past.events,
        known,
        is_agent=providers()[past.events[0].provider].keyed_by == "agent",
        as_of_us=as_of_us,
        idle_us=round(idle_seconds * 1_000_000),
    )
    return {record.call_key: record for record, _ in folded}


def _differing(
    standing: Records, published: Records, retracted: Iterable[CallRecord], told: Records
) -> Iterator[CallRecord]:
    gone = {record.call_key: record for record in retracted}
    for call, record in standing.items():
        before = published.get(call)
        if before is None and call in gone:
            let_show(record, gone[call])
        known = before or told.get(call)
        if known is not None and known.revision > record.revision:
            # Arrivals that contradicted their receipts may have pushed the number up; it never goes down.
            record.revision = known.revision
        if record != before:
            yield record

"""The way back from the lake to the fold: the events are the state, so memory can be filled from them again."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import Final, ParamSpec, TypeVar
from weakref import finalize

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.errors import DestinationUnavailable
from pipeline.lake.files import Lake, quoted, unreadable
from pipeline.lake.lookup import Lookup, file_gone, is_there, rows_in
from pipeline.lake.rows import DAY_US, events_from, key_hash, records_from
from pipeline.lake.schemas import SCHEMAS, declared
from pipeline.lake.sealed import sealed_rows
from pipeline.model import CallEvent, CallRecord, Remembered
from pipeline.storage.engine import lake_connection

RECENT_STREAMS: Final = 200_000
"""Streams kept in a set, at 70 bytes each; beyond it they join the sorted array, at 8, in 50 ms if it has 4 million."""

TRIES: Final = 4
"""A compaction may remove a merged file between its listing and its opening; a new listing does without it."""

_EPOCH: Final = date(1970, 1, 1)
_NEWEST: Final = (
    "qualify row_number() over (partition by call_key order by revision desc, published_at desc) = 1 "
    "order by call_key"
)

P = ParamSpec("P")
T = TypeVar("T")


def _tried_again(read: Callable[P, T]) -> Callable[P, T]:
    @wraps(read)
    def patiently(*args: P.args, **options: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return read(*args, **options)
            except DestinationUnavailable as error:
                if "No such file" not in str(error):
                    raise
        return read(*args, **options)

    return patiently


class LakeHistory:
    """Events and records of the lake by stream. Knows every stream by eight bytes of memory."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lookups = {name: Lookup(lake, name) for name in ("call_events", "calls", "call_revisions")}
        #: one at most, for `_rows` alone, and kept: making one takes 12 ms
        self._kept: list[duckdb.DuckDBPyConnection] = []
        # Before Python takes itself apart, or DuckDB complains of what is left of it.
        finalize(self, self._kept.clear)
        self._looking = Lock()
        #: sorted hashes; an array of Python's, since looking up one number in numpy's takes five times as long
        self._index = array("Q")
        self._recent: set[int] = set()
        self.newest_published_us = 0
        """When the newest row in the lake was written, by the clock of whoever wrote it."""
        self.refresh()

    @_tried_again
    def refresh(self) -> None:
        """Learns the streams that are in the lake now, those of other workers included."""
        with self._connect() as connection:
            hashes = connection.sql(
                f"select distinct key_hash from {self._all('calls')} where stream_key = call_key"
            ).to_arrow_table()
            agents = connection.sql(
                f"""
                select distinct stream_key from {self._all("calls")} where stream_key <> call_key
                union
                select distinct stream_key from {self._all("call_events")} where call_key is null
                """
            ).fetchall()
            (newest_us,) = connection.execute(
                f"""
                select epoch_us(greatest(
                    (select max(published_at) from {self._all("calls")}),
                    (select max(published_at) from {self._all("call_events")})
                ))
                """
            ).fetchone() or (None,)
        self.newest_published_us = newest_us or 0
        self._index = array("Q", np.sort(hashes.column(0).to_numpy()).tobytes())
        self._recent = {key_hash(stream_key) for (stream_key,) in agents}

    def note(self, stream_keys: Iterable[str]) -> None:
        """Streams that have just been written."""
        self.note_hashes(map(key_hash, stream_keys))

    def note_hashes(self, hashes: Iterable[int]) -> None:
        """The same by the `key_hash` of the streams."""
        self._recent.update(hashes)
        if len(self._recent) >= RECENT_STREAMS:
            # One after the other: `knows` is asked meanwhile, on the thread of the event loop.
            self._index = _merged(self._index, self._recent)
            self._recent = set()

    def note_file(self, dataset: str, file: Path, hashes: Iterable[int]) -> None:
        """A hot file that has just been written, with rows of the streams of these hashes."""
        self._lookups[dataset].note(file, hashes)

    def knows(self, stream_key: str) -> bool:
        """False only if the lake held nothing of this stream, when last looked at or noted."""
        wanted = key_hash(stream_key)
        if wanted in self._recent:
            return True
        place = bisect_left(self._index, wanted)
        return place < len(self._index) and self._index[place] == wanted

    @_tried_again
    def remember(self, stream_keys: Collection[str]) -> Mapping[str, Remembered]:
        """Every event and the newest record of every call of these streams."""
        if not stream_keys:
            return {}
        events = self._rows("call_events", stream_keys, "order by published_at, event_id")
        return _by_stream(events, self._rows("calls", stream_keys, _NEWEST))

    @_tried_again
    def revisions(self, stream_keys: Collection[str]) -> Mapping[str, CallRecord]:
        """The newest revision that compaction has set aside of every call of these streams, by call key."""
        records = self._rows("call_revisions", stream_keys, _NEWEST)
        return {record.call_key: record for _, record in records_from(records)}

    @_tried_again
    def open_streams(self) -> list[str]:
        """Streams with a call that had not ended when it was last published."""
        with self._connect() as connection:
            found = connection.sql(
                f"""
                select distinct stream_key
                from (
                    select stream_key, state, is_retracted
                    from {self._all("calls")}
                    qualify row_number() over (
                        partition by call_key order by revision desc, published_at desc
                    ) = 1
                )
                where state <> 'ended' and not is_retracted
                order by stream_key
                """
            ).fetchall()
        return [stream_key for (stream_key,) in found]

    @_tried_again
    def sizes_between(self, first: date, last: date) -> pa.Table:
        """`stream_key`, in order, and its number of rows `events`: 50 bytes a stream, however many there are.

        These are the streams with a call that starts, or an event that happened, between two UTC dates, both included;
        also where a call is known to have started then only by an event of a later date.
        """
        with self._connect() as connection:
            return connection.sql(
                f"""
                with those as (
                    select stream_key from {self._all("calls")} where date between $first and $last
                    union
                    select stream_key from {self._all("call_events")}
                    where date between $first and $last or epoch_us(started_at) between $first_us and $last_us
                )
                select stream_key, count(*) as events
                from {self._all("call_events")} semi join those using (stream_key)
                group by stream_key
                order by stream_key
                """,
                params={
                    "first": first,
                    "last": last,
                    "first_us": (first - _EPOCH).days * DAY_US,
                    "last_us": ((last - _EPOCH).days + 1) * DAY_US - 1,
                },
            ).to_arrow_table()

    def streams_between(self, first: date, last: date) -> list[str]:
        """The keys of `sizes_between`."""
        keys: list[str] = self.sizes_between(first, last).column("stream_key").to_pylist()
        return keys

    @_tried_again
    def newest_receipt_us(self) -> int | None:
        """The newest receipt of anything that is kept: of webhooks that said nothing new, or nothing, as well."""
        newest = [
            f"select max(received_at) as newest from {self._all(name)}"
            for name in ("call_events", "webhooks", "quarantine")
        ]
        with self._connect() as connection:
            query = f"select epoch_us(max(newest)) from ({' union all '.join(newest)})"
            found = connection.execute(query).fetchone()
        return None if found is None else found[0]

    @_tried_again
    def newest_received_us(self) -> int | None:
        """How far the data in the lake reaches."""
        with self._connect() as connection:
            newest = f"select epoch_us(max(received_at)) from {self._all('call_events')}"
            found = connection.execute(newest).fetchone()
        return None if found is None else found[0]

    def _rows(self, dataset: str, stream_keys: Collection[str], rest: str) -> pa.Table:
        """All rows of these streams, hot and sealed, read from those files that may hold them."""
        keys, schema = sorted(set(stream_keys)), SCHEMAS.get(dataset, SCHEMAS["calls"])
        with self._looking:
            lookup = self._lookups[dataset]
            files = lookup.files(keys)
            if not files:
                return schema.empty_table()
            try:
                if not self._kept:
                    self._kept.append(lake_connection(self._lake.root, threads=2))
                return rows_in(self._kept[0], files, self._lake.hot(dataset), schema, rest, lookup.is_noted)
            except duckdb.Error as error:
                # It may be spoilt.
                self._kept.clear()
                gone = next((file for file in files if not is_there(self._lake.root, file)), None)
                if gone is not None:
                    raise file_gone(self._lake.root, gone) from error
                raise unreadable(self._lake.root, error) from error

    @contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with lake_connection(self._lake.root, threads=2) as connection:
                yield connection
        except duckdb.Error as error:
            raise unreadable(self._lake.root, error) from error

    def _all(self, dataset: str) -> str:
        hot = quoted(self._lake.hot(dataset), "*.parquet")
        return (
            f"(select * from read_parquet({hot}, {declared(SCHEMAS[dataset])}) "
            f"union all by name select * from {sealed_rows(self._lake, dataset)})"
        )


def _merged(index: "array[int]", hashes: Collection[int]) -> "array[int]":
    """Sorted hashes, with others among them that may be there already. (`np.union1d` takes 4 s to find that out.)"""
    every = np.frombuffer(index, np.uint64)
    others = np.sort(np.fromiter(hashes, np.uint64, len(hashes)))
    places = np.searchsorted(every, others)
    is_new = np.ones(len(others), np.bool_)
    inside = places < len(every)
    is_new[inside] = every[places[inside]] != others[inside]
    return array("Q", np.insert(every, places[is_new], others[is_new]).tobytes())


def _by_stream(events: pa.Table, records: pa.Table) -> dict[str, Remembered]:
    found: dict[str, dict[str, CallEvent]] = {}
    for event in events_from(events):
        known = found.setdefault(event.stream_key, {})
        before = known.get(event.event_id)
        if before is None or event.received_us <= before.received_us:
            known[event.event_id] = event
    newest: dict[str, list[CallRecord]] = {}
    gone: dict[str, list[CallRecord]] = {}
    retracted = records.column("is_retracted").to_pylist()
    for (stream_key, record), is_retracted in zip(records_from(records), retracted, strict=True):
        (gone if is_retracted else newest).setdefault(stream_key, []).append(record)
    return {
        key: Remembered(list(known.values()), newest.get(key, []), gone.get(key, []))
        for key, known in found.items()
    }

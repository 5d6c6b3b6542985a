"""The sink of a worker: what a flush has to make durable goes into one hot file per dataset."""

import itertools
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import native
from pipeline.lake.files import Lake
from pipeline.lake.forgotten import Forgotten
from pipeline.lake.rows import (
    StoredRejection,
    calls_table,
    events_table,
    quarantine_table,
    table_of_buffers,
    webhooks_table,
)
from pipeline.lake.schemas import CALL_EVENTS, CALLS
from pipeline.model import CallEvent, CallRecord, Webhook


class LakeSink:
    """Writes hot files. Files are named by the time of writing, so that a listing is in order.

    What has been forgotten (`lake/forgotten.py`) is not written, by whomever it is brought back.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._forgotten = Forgotten(lake)
        self._writer = f"{os.getpid():x}-{uuid.uuid4().hex[:8]}"
        self._count = itertools.count()

    def write_calls(
        self,
        events: Sequence[tuple[CallEvent, str | None]],
        records: Sequence[tuple[str, CallRecord]],
        retracted: Sequence[tuple[str, CallRecord]],
        published_us: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Events first: a call that is seen has its events. `check` may forbid each file at the last moment."""
        events = self._forgotten.events(events) if events else events
        if events:
            self._write("call_events", events_table(events, published_us), published_us, check)
        if records or retracted:
            records, retracted = self._forgotten.records(records), self._forgotten.records(retracted)
        if records or retracted:
            self._write("calls", calls_table(records, retracted, published_us), published_us, check)

    def write_changes(
        self, changes: native.Changes, published_us: int, check: Callable[[], None] = lambda: None
    ) -> dict[str, Path]:
        """The same of changes whose columns are made without any rows. Gives the files with them, by dataset.

        Unless something was ever forgotten, or a column has more text than one array can hold: then by rows, of which
        no file is given.
        """
        files = {}
        events, *records = changes.counts()
        if events:
            table = self._table(CALL_EVENTS, events, changes.event_columns, published_us)
            if table is None:
                self.write_calls(changes.events, [], [], published_us, check)
            else:
                files["call_events"] = self._write("call_events", table, published_us, check)
        if sum(records):
            table = self._table(CALLS, sum(records), changes.record_columns, published_us)
            if table is None:
                self.write_calls([], changes.records, changes.retracted, published_us, check)
            else:
                files["calls"] = self._write("calls", table, published_us, check)
        return files

    def _table(
        self,
        schema: pa.Schema,
        rows: int,
        columns: Callable[[int], list[tuple[int, list[Any]]]],
        published_us: int,
    ) -> pa.Table | None:
        if self._forgotten.hashes():
            return None
        try:
            return table_of_buffers(schema, rows, columns(published_us))
        except OverflowError:
            return None

    def write_webhooks(self, webhooks: Sequence[tuple[str, Webhook]], published_us: int) -> None:
        """Archives webhooks, redacted already."""
        webhooks = self._forgotten.webhooks(webhooks) if webhooks else webhooks
        if webhooks:
            self._write("webhooks", webhooks_table(webhooks, published_us), published_us)

    def write_quarantine(self, stored: Sequence[StoredRejection], published_us: int) -> None:
        """Keeps webhooks that could not be processed, redacted already."""
        stored = self._forgotten.rejections(stored) if stored else stored
        if stored:
            self._write("quarantine", quarantine_table(stored, published_us), published_us)

    def _write(
        self, dataset: str, table: pa.Table, published_us: int, check: Callable[[], None] = lambda: None
    ) -> Path:
        name = f"{published_us:017d}-{self._writer}-{next(self._count)}.parquet"
        file = self._lake.hot(dataset) / name
        self._lake.write(table, file, check)
        return file

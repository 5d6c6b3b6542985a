"""A pass of webhooks through normalise, fold and sink: what a backfill does, and each process of one with its share."""

import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pipeline import native
from pipeline.backfill_route import Share
from pipeline.backfill_summary import Summary
from pipeline.backfill_threads import LakeThread
from pipeline.durable import AnyChanges, assembler_of, write_changes
from pipeline.lake import Lake, LakeHistory, LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import CallEvent, Rejection, Remembered, Webhook
from pipeline.normalise import Normaliser
from pipeline.privacy import privacy_of
from pipeline.providers import providers
from pipeline.settings import Settings

ROWS_A_FILE = 20_000


class _Written(NamedTuple):
    """The history of a lake that is written by another thread, one flush at a time.

    What is just on its way was collected last: the assembler itself knows which streams it let go of then, and asks to
    be reminded of them as of others.
    """

    history: LakeHistory
    lake_thread: LakeThread

    def knows(self, stream_key: str) -> bool:
        return self.history.knows(stream_key)

    def remember(self, stream_keys: Collection[str]) -> Mapping[str, Remembered]:
        if stream_keys:
            self.lake_thread.wait()
        return self.history.remember(stream_keys)


class Pass:
    """One pass of webhooks through normalise, fold and sink: of all of them, or of one process's share.

    Events of streams that belong to other shares are left in `strays`.
    """

    def __init__(
        self,
        settings: Settings,
        lake: Lake,
        archive: bool,
        summary: Summary,
        share: Share | None = None,
        lake_thread: LakeThread | None = None,
    ) -> None:
        self._normaliser = Normaliser(providers(), privacy_of(settings))
        self._quick_readers = {name: self._normaliser.quick_reader(name) for name in providers()}
        self._history = history = LakeHistory(lake)
        self._assembler = assembler_of(settings, _Written(history, lake_thread) if lake_thread else history)
        self._sink = LakeSink(lake)
        self._archive = archive
        self._share = share
        self._lake_thread = lake_thread
        self._stored: list[tuple[str, Webhook]] = []
        self._rejected: list[StoredRejection] = []
        self.summary = summary
        self.strays: list[CallEvent] = []
        # Calls that were going on when the lake was last written go on.
        going_on = [key for key in history.open_streams() if share is None or share.owns(key)]
        self._assembler.restore(0, history.remember(going_on))
        self.data_us = history.newest_received_us() or 0

    def take(self, webhooks: Sequence[Webhook]) -> None:
        """Normalises webhooks and hands their events to the fold."""
        by_provider: dict[str, list[Webhook]] = {}
        for webhook in webhooks:
            by_provider.setdefault(webhook.provider, []).append(webhook)
            self.data_us = max(self.data_us, webhook.received_us)
        for provider, its_own in by_provider.items():
            quick = self._quick_readers.get(provider)
            left = its_own if quick is None else self._take_quickly(quick, its_own)
            for webhook in left:
                self._take_plainly(webhook)
        if len(self._stored) >= ROWS_A_FILE or len(self._rejected) >= ROWS_A_FILE:
            self._write_webhooks()

    def take_read(self, taken: native.Taken) -> None:
        """Hands events that are read already to the fold."""
        self.data_us = max(self.data_us, taken.newest_us or 0)
        self._assembler.add(0, taken.events)  # type: ignore[arg-type]

    def _take_quickly(self, reader: native.Reader, webhooks: list[Webhook]) -> list[Webhook]:
        """Takes the ordinary ones of a provider's webhooks; the others are left."""
        events, left = reader.read_webhooks(webhooks)
        if self._share is not None:
            self.strays += events.split_share(self._share.shares, self._share.number)
        self._assembler.add(0, events)  # type: ignore[arg-type]
        if self._archive:
            others = set(left)
            taken = (webhook for place, webhook in enumerate(webhooks) if place not in others)
            self._stored.extend(map(self._normaliser.stored, taken))
        return [webhooks[place] for place in left]

    def _take_plainly(self, webhook: Webhook) -> None:
        found = self._normaliser.events(webhook)
        if isinstance(found, Rejection):
            self.summary.quarantined += 1
            self._rejected.append(StoredRejection(*self._normaliser.stored(webhook), found))
        else:
            self.add(found if self._share is None else self._own(found, self._share))
        if self._archive:
            # Next to its events: if numbers may not be kept, what is stored of it has just been made.
            self._stored.append(self._normaliser.stored(webhook))

    def _own(self, events: list[CallEvent], share: Share) -> list[CallEvent]:
        strays = [event for event in events if not share.owns(event.stream_key)]
        if not strays:
            return events
        self.strays += strays
        return [event for event in events if share.owns(event.stream_key)]

    def add(self, events: list[CallEvent]) -> None:
        """Hands events to the fold."""
        self._assembler.add(0, events)

    def flush(self, data_us: int) -> None:
        """Publishes on the way what is over and has been silent for its grace; what agents did, as it is."""
        self._write(self._assembler.collect(lambda _: data_us, only_settled=True))

    def finish(self, as_of_us: int) -> None:
        """Publishes what has ended without waiting for its grace, and what is still going on as it is."""
        self._write_webhooks()
        self._write(self._assembler.collect(lambda _: as_of_us))
        self._wait()
        self.summary.open_calls = self._assembler.open_calls()

    def _write_webhooks(self) -> None:
        # One thread at a time writes with the sink.
        self._wait()
        now_us = time.time_ns() // 1_000
        self._sink.write_webhooks(self._stored, now_us)
        self._sink.write_quarantine(self._rejected, now_us)
        self._stored, self._rejected = [], []

    def _write(self, changes: AnyChanges) -> None:
        write = partial(write_changes, self._sink, self._history, changes, time.time_ns() // 1_000)
        write() if self._lake_thread is None else self._lake_thread.begin(write)
        events, records, retracted = changes.counts()
        self.summary.events += events
        self.summary.records += records
        self.summary.retracted += retracted

    def _wait(self) -> None:
        if self._lake_thread is not None:
            self._lake_thread.wait()

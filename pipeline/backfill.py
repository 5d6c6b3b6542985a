"""Backfill: webhook archives through the stream's own normalise, fold and sink, with no broker.

Timers run on the data's time: the newest receipt read so far. What is settled is written and let go of along the
way, so memory holds the calls that are going on and not the archive. Running it twice changes nothing, because
events have identities and a record is a function of them. Several processes (`backfill_processes.py`) come to the same
as one: each has its share of the calls, and all flush at the same webhooks, at the same data's time.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

from pipeline import native
from pipeline.archive import BYTES_AT_ONCE, LINES_AT_ONCE, UnreadableLine, read_archive, read_archive_quickly
from pipeline.assemble.fold import FOREVER_US
from pipeline.backfill_route import Share
from pipeline.backfill_summary import Summary
from pipeline.durable import AnyChanges, assembler_of, write_changes
from pipeline.garbage import rarely_searched
from pipeline.lake import Lake, LakeHistory, LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.open_lake import open_lake
from pipeline.privacy import privacy_of
from pipeline.providers import providers
from pipeline.settings import Settings

WEBHOOKS_A_FLUSH = 50_000
"""Counted in webhooks, nearly each of which is an event: whoever only reads them knows when it is time."""
ROWS_A_FILE = 20_000
FEW_WEBHOOKS = 20_000
"""So many are folded in 1 s; processes take 0.4 s to start."""
FEW_BYTES = 64 * 1024 * 1024
COMPLAINTS_SHOWN = 20


class Progress(Protocol):
    """A bar, or nothing where nobody looks."""

    def __call__(self, done: int, total: int) -> None:
        """So many of so many."""


def backfill(
    settings: Settings,
    files: list[Path],
    *,
    close_open: bool = False,
    progress: Progress = lambda done, total: None,
    processes: int = 1,
) -> Summary:
    """Folds the archives into the lake. Unreadable lines are named on stderr and counted; the others go on.

    With more than one of `processes`, so many fold, and this one reads; what is soon done is done here.
    """
    archives = _Archives(files, progress)
    return run(settings, archives.webhooks, quick=archives.read, close_open=close_open, processes=processes)


class _Archives:
    """Files with webhooks, read one after the other."""

    def __init__(self, files: list[Path], progress: Progress) -> None:
        self._files = files
        self._progress = progress
        self._sizes = [file.stat().st_size for file in files]

    def webhooks(self, summary: Summary) -> Iterator[Webhook]:
        """All webhooks."""
        for place, file in enumerate(self._files):
            for found in read_archive(file, self._advanced(place)):
                if isinstance(found, Webhook):
                    yield found
                else:
                    _complain(found, summary)
            self._advanced(place + 1)(0)

    def read(self, summary: Summary, reader: native.LineReader) -> Iterator[Webhook | native.Taken]:
        """All webhooks, the ordinary ones as their events, in parts that end with the whole part of a flush."""

        def most() -> int:
            return WEBHOOKS_A_FLUSH - summary.webhooks % WEBHOOKS_A_FLUSH

        for place, file in enumerate(self._files):
            for found in read_archive_quickly(file, reader, most, self._advanced(place)):
                if isinstance(found, UnreadableLine):
                    _complain(found, summary)
                else:
                    yield found
            self._advanced(place + 1)(0)

    def _advanced(self, place: int) -> Callable[[int], None]:
        before, total = sum(self._sizes[:place]), sum(self._sizes)
        return lambda done: self._progress(before + done, total)


def _complain(line: UnreadableLine, summary: Summary) -> None:
    summary.unreadable += 1
    if summary.unreadable <= COMPLAINTS_SHOWN:
        sys.stderr.write(f"{line}\n")
    elif summary.unreadable == COMPLAINTS_SHOWN + 1:
        sys.stderr.write("further unreadable lines are counted, not named\n")


def run(
    settings: Settings,
    webhooks: Callable[[Summary], Iterable[Webhook]],
    *,
    quick: Callable[[Summary, native.LineReader], Iterable[Webhook | native.Taken]] | None = None,
    close_open: bool = False,
    archive: bool | None = None,
    processes: int = 1,
) -> Summary:
    """Puts webhooks through the pipeline and flushes it at their end.

    `quick` gives the same webhooks, the ordinary ones as events. Then so little is left to do for each that one process
    is done before several were told what to do; webhooks that are to be archived cannot be had so.
    """
    started = time.monotonic()
    summary = Summary()
    lake = open_lake(settings.lake)
    archive = settings.archive_webhooks if archive is None else archive
    with rarely_searched():
        reader = None
        if quick is not None and not archive:
            reader = Normaliser(providers(), privacy_of(settings)).quick_line_reader()
        if quick is not None and reader is not None:
            whole = Pass(settings, lake, archive, summary)
            _fold_here(whole, quick(summary, reader), close_open=close_open)
            summary.seconds = time.monotonic() - started
            return summary
        every = iter(webhooks(summary))
        are_few = processes == 1
        if not are_few:
            every, are_few = _looked_into(every)
        if are_few:
            _fold_here(Pass(settings, lake, archive, summary), every, close_open=close_open)
        else:
            # Imported here, as that module builds on this one.
            from pipeline.backfill_processes import Processes

            with Processes(settings, processes, archive=archive) as shares:
                shares.fold(every, summary, flush_every=WEBHOOKS_A_FLUSH, close_open=close_open)
    summary.seconds = time.monotonic() - started
    return summary


def _looked_into(webhooks: Iterator[Webhook]) -> tuple[Iterator[Webhook], bool]:
    """The same webhooks, and whether there are few of them."""
    taken, size = [], 0
    for webhook in webhooks:
        taken.append(webhook)
        size += len(webhook.body)
        if len(taken) >= FEW_WEBHOOKS or size >= FEW_BYTES:
            return chain(taken, webhooks), False
    return iter(taken), True


def _fold_here(whole: "Pass", webhooks: Iterable[Webhook | native.Taken], *, close_open: bool) -> None:
    summary, flushed = whole.summary, 0
    batch: list[Webhook] = []
    size = 0
    for found in webhooks:
        if isinstance(found, native.Taken):
            whole.take_read(found)
            summary.webhooks += found.webhooks
        else:
            batch.append(found)
            size += len(found.body)
            summary.webhooks += 1
        is_due = summary.webhooks - flushed >= WEBHOOKS_A_FLUSH
        if is_due or len(batch) >= LINES_AT_ONCE or size >= BYTES_AT_ONCE:
            whole.take(batch)
            batch, size = [], 0
        if is_due:
            whole.flush(whole.data_us)
            flushed = summary.webhooks
    whole.take(batch)
    whole.finish(FOREVER_US if close_open else whole.data_us)


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
    ) -> None:
        self._normaliser = Normaliser(providers(), privacy_of(settings))
        self._quick_readers = {name: self._normaliser.quick_reader(name) for name in providers()}
        self._history = history = LakeHistory(lake)
        self._assembler = assembler_of(settings, history)
        self._sink = LakeSink(lake)
        self._archive = archive
        self._share = share
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
        """Publishes on the way what is over and has been silent for its grace."""
        self._write(self._assembler.collect(lambda _: data_us, only_settled=True))

    def finish(self, as_of_us: int) -> None:
        """Publishes what has ended without waiting for its grace, and what is still going on as it is."""
        self._write_webhooks()
        self._write(self._assembler.collect(lambda _: as_of_us))
        self.summary.open_calls = self._assembler.open_calls()

    def _write_webhooks(self) -> None:
        now_us = time.time_ns() // 1_000
        self._sink.write_webhooks(self._stored, now_us)
        self._sink.write_quarantine(self._rejected, now_us)
        self._stored, self._rejected = [], []

    def _write(self, changes: AnyChanges) -> None:
        write_changes(self._sink, self._history, changes, time.time_ns() // 1_000)
        events, records, retracted = changes.counts()
        self.summary.events += events
        self.summary.records += records
        self.summary.retracted += retracted

"""Backfill: webhook archives through the stream's own normalise, fold and sink, with no broker.

Timers run on the data's time: the newest receipt read so far. What is settled is written and let go of along the
way, so memory holds the calls that are going on and not the archive. Running it twice changes nothing, because
events have identities and a record is a function of them.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.archive import UnreadableLine, read_archive
from pipeline.assemble.assembler import Assembler, Changes
from pipeline.assemble.fold import FOREVER_US
from pipeline.garbage import rarely_searched
from pipeline.lake import Lake, LakeHistory, LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.open_lake import open_lake
from pipeline.privacy import privacy_of
from pipeline.providers import providers
from pipeline.settings import Settings

EVENTS_A_FLUSH = 50_000
ROWS_A_FILE = 20_000
COMPLAINTS_SHOWN = 20


class Progress(Protocol):
    """A bar, or nothing where nobody looks."""

    def __call__(self, done: int, total: int) -> None:
        """So many of so many."""


@dataclass
class Summary:
    """What a run did, told in one line."""

    webhooks: int = 0
    calls: int = 0
    events: int = 0
    records: int = 0
    retracted: int = 0
    quarantined: int = 0
    unreadable: int = 0
    open_calls: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        taken = f"{self.calls:,} calls" if self.calls else f"{self.webhooks:,} webhooks"
        told = f"{taken}, {self.events:,} events, {self.records:,} call records written"
        for count, what in (
            (self.open_calls, "calls still open"),
            (self.retracted, "calls retracted"),
            (self.quarantined, "webhooks quarantined"),
            (self.unreadable, "lines unreadable"),
        ):
            told += f", {count:,} {what}" if count else ""
        return f"{told}, {self.seconds:.1f} s"


def assembler_of(settings: Settings, history: LakeHistory) -> Assembler:
    """An assembler with the timers of the settings."""
    return Assembler(
        idle_us=round(settings.idle_seconds * 1_000_000),
        grace_us=round(settings.grace_seconds * 1_000_000),
        agent_providers=[name for name, p in providers().items() if p.keyed_by == "agent"],
        history=history,
    )


def backfill(
    settings: Settings,
    files: list[Path],
    *,
    close_open: bool = False,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Folds the archives into the lake. Unreadable lines are named on stderr and counted; the others go on."""
    total, before = sum(file.stat().st_size for file in files), 0

    def webhooks(summary: Summary) -> Iterator[Webhook]:
        nonlocal before
        for file in files:
            offset = before
            for found in read_archive(file, lambda done, offset=offset: progress(offset + done, total)):  # type: ignore[misc]
                if isinstance(found, Webhook):
                    yield found
                else:
                    _complain(found, summary)
            before += file.stat().st_size
            progress(before, total)

    return run(settings, webhooks, close_open=close_open)


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
    close_open: bool = False,
    archive: bool | None = None,
) -> Summary:
    """Puts webhooks through the pipeline and flushes it at their end."""
    started = time.monotonic()
    summary = Summary()
    lake = open_lake(settings.lake)
    history = LakeHistory(lake)
    line = _Line(settings, lake, history, summary, settings.archive_webhooks if archive is None else archive)
    with rarely_searched():
        for webhook in webhooks(summary):
            line.take(webhook)
        line.finish(close_open)
    summary.seconds = time.monotonic() - started
    return summary


class _Line:
    """One pass of webhooks through normalise, fold and sink."""

    def __init__(
        self, settings: Settings, lake: Lake, history: LakeHistory, summary: Summary, archive: bool
    ) -> None:
        self._normaliser = Normaliser(providers(), privacy_of(settings))
        self._assembler = assembler_of(settings, history)
        self._history = history
        self._sink = LakeSink(lake)
        self._summary = summary
        self._archive = archive
        self._stored: list[tuple[str, Webhook]] = []
        self._rejected: list[StoredRejection] = []
        self._events = 0
        # Calls that were going on when the lake was last written go on.
        self._assembler.restore(0, history.remember(history.open_streams()))
        self._data_us = history.newest_received_us() or 0

    def take(self, webhook: Webhook) -> None:
        """Normalises one webhook and hands its events to the fold."""
        self._summary.webhooks += 1
        self._data_us = max(self._data_us, webhook.received_us)
        found = self._normaliser.events(webhook)
        if isinstance(found, Rejection):
            self._summary.quarantined += 1
            self._rejected.append(StoredRejection(*self._normaliser.stored(webhook), found))
        else:
            self._assembler.add(0, found)
            self._events += len(found)
        if self._archive:
            self._stored.append(self._normaliser.stored(webhook))
        if len(self._stored) >= ROWS_A_FILE or len(self._rejected) >= ROWS_A_FILE:
            self._write_webhooks()
        if self._events >= EVENTS_A_FLUSH:
            self._events = 0
            self._write(self._assembler.collect(lambda _: self._data_us, only_settled=True))

    def finish(self, close_open: bool) -> None:
        """Publishes what has ended without waiting for its grace, and what is still going on as it is."""
        self._write_webhooks()
        as_of_us = FOREVER_US if close_open else self._data_us
        self._write(self._assembler.collect(lambda _: as_of_us))
        self._summary.open_calls = self._assembler.open_calls()

    def _write_webhooks(self) -> None:
        now_us = time.time_ns() // 1_000
        self._sink.write_webhooks(self._stored, now_us)
        self._sink.write_quarantine(self._rejected, now_us)
        self._stored, self._rejected = [], []

    def _write(self, changes: Changes) -> None:
        self._sink.write_calls(changes.events, changes.records, changes.retracted, time.time_ns() // 1_000)
        self._history.note(key for key, _ in changes.records)
        self._history.note(placed.event.stream_key for placed in changes.events if placed.call_key is None)
        self._summary.events += len(changes.events)
        self._summary.records += len(changes.records)
        self._summary.retracted += len(changes.retracted)

"""The webhooks of several archives, for a backfill: how far it has come, and which lines were none."""

import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

from pipeline import native
from pipeline.archive import Ahead, UnreadableLine, read_archive, read_archive_quickly
from pipeline.backfill_summary import Summary
from pipeline.model import Webhook

COMPLAINTS_SHOWN = 20


class Progress(Protocol):
    """A bar, or nothing where nobody looks."""

    def __call__(self, done: int, total: int) -> None:
        """So many of so many."""


class Archives:
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

    def read(
        self, flush_every: int, summary: Summary, reader: native.LineReader, ahead: Ahead
    ) -> Generator[Webhook | native.Taken, None, None]:
        """All webhooks, the ordinary ones as their events, in parts that end with the whole part of a flush."""

        def most() -> int:
            return flush_every - summary.webhooks % flush_every

        for place, file in enumerate(self._files):
            for found in read_archive_quickly(file, reader, most, self._advanced(place), ahead):
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

"""Backfill: webhook archives through the stream's own normalise, fold and sink, with no broker.

Timers run on the data's time: the newest receipt read so far. What is settled is written and let go of along the
way, so memory holds the calls that are going on and not the archive. Running it twice changes nothing, because
events have identities and a record is a function of them. Several processes (`backfill_processes.py`) come to the same
as one: each has its share of the calls, and all flush at the same webhooks, at the same data's time.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain
from pathlib import Path

from pipeline import native
from pipeline.archive import Ahead, not_ahead
from pipeline.assemble.fold import FOREVER_US
from pipeline.backfill_archives import Archives, Progress
from pipeline.backfill_pass import Pass
from pipeline.backfill_processes import Processes
from pipeline.backfill_summary import Summary
from pipeline.backfill_threads import LakeThread, lines_ahead
from pipeline.garbage import rarely_searched
from pipeline.lake import Lake
from pipeline.model import Webhook
from pipeline.normalise import Normaliser
from pipeline.open_lake import open_lake
from pipeline.privacy import privacy_of
from pipeline.providers import providers
from pipeline.settings import Settings

WEBHOOKS_A_FLUSH = 50_000
"""Counted in webhooks, nearly each of which is an event: whoever only reads them knows when it is time."""
WEBHOOKS_AT_ONCE = 1_000
BYTES_AT_ONCE = 4 << 20
"""Webhooks that the compiled part reads together."""
FEW_WEBHOOKS = 20_000
"""So many are folded in 1 s; processes take 0.4 s to start."""
FEW_BYTES = 64 * 1024 * 1024
MOST_READERS = 4
"""Threads that read lines: one that folds keeps up with three."""


def backfill(
    settings: Settings,
    files: list[Path],
    *,
    close_open: bool = False,
    progress: Progress = lambda done, total: None,
    processes: int = 1,
) -> Summary:
    """Folds the archives into the lake. Unreadable lines are named on stderr and counted; the others go on.

    With more than one of `processes`, so many fold, and this one reads; what is soon done is done here. If webhooks are
    not archived as well, it is so many threads of this process that read.
    """
    archives = Archives(files, progress)
    quick = partial(archives.read, WEBHOOKS_A_FLUSH)
    return run(settings, archives.webhooks, quick=quick, close_open=close_open, processes=processes)


Quick = Callable[[Summary, native.LineReader, Ahead], Generator[Webhook | native.Taken, None, None]]


def run(
    settings: Settings,
    webhooks: Callable[[Summary], Iterable[Webhook]],
    *,
    quick: Quick | None = None,
    close_open: bool = False,
    archive: bool | None = None,
    processes: int = 1,
) -> Summary:
    """Puts webhooks through the pipeline and flushes it at their end.

    `quick` gives the same webhooks, the ordinary ones as events. Then so little is left to do for each that `processes`
    are threads of this one: processes would take longer to tell each other. Webhooks that are to be archived cannot be
    had so.
    """
    started = time.monotonic()
    summary = Summary()
    lake = open_lake(settings.lake)
    archive = settings.archive_webhooks if archive is None else archive
    with rarely_searched():
        if (
            quick is not None
            and not archive
            and _fold_quickly(settings, lake, summary, quick, close_open, processes)
        ):
            summary.seconds = time.monotonic() - started
            return summary
        every = iter(webhooks(summary))
        are_few = processes == 1
        if not are_few:
            every, are_few = _looked_into(every)
        if are_few:
            _fold_here(Pass(settings, lake, archive, summary), every, close_open=close_open)
        else:
            with Processes(settings, processes, archive=archive) as shares:
                shares.fold(every, summary, flush_every=WEBHOOKS_A_FLUSH, close_open=close_open)
    summary.seconds = time.monotonic() - started
    return summary


def _fold_quickly(
    settings: Settings, lake: Lake, summary: Summary, quick: Quick, close_open: bool, threads: int
) -> bool:
    """False if there is nothing compiled for it."""
    normaliser = Normaliser(providers(), privacy_of(settings))
    reader = normaliser.quick_line_reader()
    if reader is None:
        return False
    with ExitStack() as stack:
        ahead: Ahead = not_ahead
        lake_thread = None
        if threads > 1:
            every = [normaliser.quick_line_reader() for _ in range(min(threads, MOST_READERS))]
            readers = [one for one in every if one is not None]
            lake_thread = stack.enter_context(LakeThread())
            ahead = stack.enter_context(lines_ahead(readers))
        whole = Pass(settings, lake, False, summary, lake_thread=lake_thread)
        with closing(quick(summary, reader, ahead)) as webhooks:
            _fold_here(whole, webhooks, close_open=close_open)
    return True


def _looked_into(webhooks: Iterator[Webhook]) -> tuple[Iterator[Webhook], bool]:
    """The same webhooks, and whether there are few of them."""
    taken, size = [], 0
    for webhook in webhooks:
        taken.append(webhook)
        size += len(webhook.body)
        if len(taken) >= FEW_WEBHOOKS or size >= FEW_BYTES:
            return chain(taken, webhooks), False
    return iter(taken), True


def _fold_here(whole: Pass, webhooks: Iterable[Webhook | native.Taken], *, close_open: bool) -> None:
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
        if is_due or len(batch) >= WEBHOOKS_AT_ONCE or size >= BYTES_AT_ONCE:
            whole.take(batch)
            batch, size = [], 0
        if is_due:
            whole.flush(whole.data_us)
            flushed = summary.webhooks
    whole.take(batch)
    whole.finish(FOREVER_US if close_open else whole.data_us)

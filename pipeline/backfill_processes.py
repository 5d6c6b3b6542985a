"""The processes of a backfill, as the one that reads has them: started, given their shares, and stopped.

A webhook costs the reader a seventh of what it costs to be folded. Pipes are all that is between them: whoever is
behind holds up the reader, so memory is bounded, and whoever loses the other end ends.
"""

import multiprocessing
import pickle
import signal
import time
from collections.abc import Iterable
from itertools import chain
from multiprocessing import resource_tracker
from typing import Any, Self

from pipeline.assemble.fold import FOREVER_US
from pipeline.backfill_route import Route, Share, share_of
from pipeline.backfill_share import Go, Job, Reached, encode_batch, work
from pipeline.backfill_summary import Summary
from pipeline.errors import CallfoldError
from pipeline.logs import logging_setup
from pipeline.model import CallEvent, Webhook
from pipeline.providers import providers
from pipeline.settings import Settings

WEBHOOKS_A_BATCH = 256
BYTES_A_BATCH = 512 * 1024
STOP_SECONDS = 10.0


class Processes:
    """The processes, each with the calls of its share; in a `with`, which sees to their end."""

    def __init__(self, settings: Settings, count: int, *, archive: bool) -> None:
        self._jobs = [
            Job(settings, Share(number, count), archive, logging_setup()) for number in range(count)
        ]
        self._route = Route(providers(), count)
        self._shares: list[_Share] = []

    def __enter__(self) -> Self:
        # Its start unblocks what the next line blocks.
        resource_tracker.ensure_running()
        # The processes inherit it: Ctrl-C is for the one that reads, who stops them in order.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for job in self._jobs:
                self._shares.append(_Share(job))
        except BaseException:
            self._stop()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        """Ends them, wherever they are; those that have done their work have ended."""
        for share in self._shares:
            share.hang_up()
        deadline = time.monotonic() + STOP_SECONDS
        for share in self._shares:
            share.join(deadline)

    def fold(
        self, webhooks: Iterable[Webhook], summary: Summary, *, flush_every: int, close_open: bool
    ) -> None:
        """Folds the webhooks, and adds to the summary what was done."""
        shares, route = self._shares, self._route
        for summary.webhooks, webhook in enumerate(webhooks, start=1):
            shares[route(webhook)].take(webhook)
            if summary.webhooks % flush_every == 0:
                self._meet()
        self._meet(FOREVER_US if close_open else None, is_end=True)
        for share in shares:
            summary.add(share.answer())

    def _meet(self, as_of_us: int | None = None, *, is_end: bool = False) -> None:
        """Lets all come to the same webhook, and flush as of the same time: the data's if none is given."""
        for share in self._shares:
            share.mark()
        reached: list[Reached] = [share.answer() for share in self._shares]
        strays: list[list[CallEvent]] = [[] for _ in reached]
        for event in chain.from_iterable(one.strays for one in reached):
            strays[share_of(event.stream_key, len(strays))].append(event)
        data_us = max(one.data_us for one in reached)
        for share, own in zip(self._shares, strays, strict=True):
            share.go(Go(data_us if as_of_us is None else as_of_us, own, is_end))


class _Share:
    """One process, and the webhooks that it has not been sent yet."""

    def __init__(self, job: Job) -> None:
        # Not forked from this process, which may have threads, but from one that has none and has all imported.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pipeline.backfill_preload"])
        theirs, self._webhooks = context.Pipe(duplex=False)
        self._answers, answers = context.Pipe(duplex=False)
        self._process = context.Process(target=work, args=(job, theirs, answers), daemon=True)
        self._process.start()
        # Of each end there is one holder, or the other side would not see it die.
        theirs.close()
        answers.close()
        self._waiting: list[Webhook] = []
        self._bytes = 0

    def take(self, webhook: Webhook) -> None:
        """Takes a webhook; it is sent with others."""
        self._waiting.append(webhook)
        self._bytes += len(webhook.body)
        if len(self._waiting) >= WEBHOOKS_A_BATCH or self._bytes >= BYTES_A_BATCH:
            self._send_waiting()

    def mark(self) -> None:
        """Sends what is waiting, and a mark behind it."""
        if self._waiting:
            self._send_waiting()
        self._send(b"")

    def go(self, go: Go) -> None:
        """Answers that it has `Reached` a mark."""
        self._send(pickle.dumps(go))

    def _send_waiting(self) -> None:
        batch = encode_batch(self._waiting)
        self._waiting, self._bytes = [], 0
        self._send(batch)

    def _send(self, message: bytes) -> None:
        try:
            self._webhooks.send_bytes(message)
        except OSError:
            # It has ended, and perhaps has said why.
            self.answer()
            raise

    def answer(self) -> Any:
        """What it says. Raises what ended it."""
        try:
            found = self._answers.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(found, CallfoldError):
            raise found
        return found

    def _death(self) -> CallfoldError:
        self._process.join(STOP_SECONDS)
        code = self._process.exitcode
        how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        return CallfoldError(
            f"a process of the backfill was ended from outside ({how}): run it again, which changes nothing that "
            "is in the lake already; if memory ran out, with fewer --processes"
        )

    def hang_up(self) -> None:
        """Ends it; with the pipes closed it hears of it at the latest when it reads on."""
        self._webhooks.close()
        self._answers.close()
        self._process.terminate()

    def join(self, deadline: float) -> None:
        """Waits until `deadline` (of `time.monotonic`) for its end, then kills it."""
        self._process.join(max(0.0, deadline - time.monotonic()))
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

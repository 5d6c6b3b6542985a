"""Replay: quarantined webhooks through the current code. What is understood now leaves the quarantine.

First the events, then the withdrawal: whatever interrupts it in between, the next run repeats what is already there,
and that changes nothing. What is still not understood stays, with the reason that the current code gives.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Final, NamedTuple

from pipeline.backfill import run
from pipeline.backfill_archives import Progress
from pipeline.backfill_summary import Summary
from pipeline.lake import LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, RejectionCode, Stage, Webhook
from pipeline.normalise import Normaliser
from pipeline.open_lake import open_lake
from pipeline.privacy import privacy_of
from pipeline.providers import providers
from pipeline.quarantine import Quarantine, Wanted
from pipeline.query.views import connect
from pipeline.settings import Settings

UNDERSTOOD: Final = "understood"
"""What stands in place of a code where there is none any more."""
ROWS_A_FILE: Final = 20_000
BYTES_A_FILE: Final = 32 * 1024 * 1024


class Outcome(NamedTuple):
    """What became of webhooks that were quarantined for the same reason."""

    provider: str
    code: str
    """Why they were quarantined."""
    now: str
    """The code that the current program gives, or `UNDERSTOOD`."""
    field: str | None
    """The field at fault now."""


@dataclass
class Replayed:
    """What a replay did, or would do."""

    is_dry: bool
    webhooks: Counter[Outcome] = field(default_factory=Counter)
    events: Counter[Outcome] = field(default_factory=Counter)
    """Events that the webhooks say; some may be known already from another delivery."""
    written: Summary = field(default_factory=Summary)
    """What the lake did not have before."""

    @property
    def understood(self) -> int:
        """Webhooks that leave the quarantine."""
        return sum(count for outcome, count in self.webhooks.items() if outcome.now == UNDERSTOOD)

    @property
    def quarantined(self) -> int:
        """Webhooks that stay."""
        return self.webhooks.total() - self.understood

    def __str__(self) -> str:
        of_all = f"{self.understood:,} of {self.webhooks.total():,} webhooks"
        if self.is_dry:
            return (
                f"dry run: {of_all} would leave the quarantine as {self.events.total():,} events, "
                f"{self.quarantined:,} would stay; nothing was changed"
            )
        done = self.written
        retracted = f", {done.retracted:,} calls retracted" if done.retracted else ""
        return (
            f"{of_all} left the quarantine, {self.quarantined:,} stayed; {done.events:,} new events, "
            f"{done.records:,} call records written{retracted}, {done.seconds:.1f} s"
        )


def replay(
    settings: Settings,
    wanted: Wanted = Wanted(),  # noqa: B008  it cannot be changed
    *,
    dry_run: bool = False,
    progress: Progress = lambda done, total: None,
) -> Replayed:
    """Puts what the current code understands into the lake; a dry run only counts it. Idempotent."""
    started = time.monotonic()
    with closing(connect(settings.lake)) as connection:
        pass_ = _Pass(settings, Quarantine(connection, wanted), Replayed(dry_run), progress)
        understood = pass_.understood()
        if dry_run:
            for _ in understood:
                pass
            return pass_.told
        first = next(understood, None)
        if first is not None:

            def webhooks(_: Summary) -> Iterable[Webhook]:
                return chain([first], understood)

            pass_.told.written = run(settings, webhooks, archive=False)
    pass_.withdraw()
    pass_.told.written.seconds = time.monotonic() - started
    return pass_.told


class _Pass:
    """One pass over the quarantine, a chunk of bodies at a time."""

    def __init__(
        self, settings: Settings, quarantine: Quarantine, told: Replayed, progress: Progress
    ) -> None:
        self._settings = settings
        self._quarantine = quarantine
        self._progress = progress
        self._normaliser = Normaliser(providers(), privacy_of(settings))
        self._mended: list[StoredRejection] = []
        self._changed: list[StoredRejection] = []
        self._changed_bytes = 0
        self.told = told

    def understood(self) -> Iterator[Webhook]:
        """The webhooks that become events now."""
        for done, stored in enumerate(self._quarantine, start=1):
            # What the assembler put there is no webhook, and no provider's module can read it.
            is_webhook = stored.rejection.stage == "normalise"
            found = self._normaliser.events(stored.webhook) if is_webhook else stored.rejection
            self._count(stored, found)
            if not isinstance(found, Rejection):
                self._mended.append(_withdrawal(stored))
                yield stored.webhook
            elif found != stored.rejection and not self.told.is_dry:
                self._change(stored._replace(rejection=found))
            self._progress(done, len(self._quarantine))

    def _count(self, stored: StoredRejection, found: object) -> None:
        provider, code = stored.webhook.provider, stored.rejection.code
        if isinstance(found, list):
            outcome = Outcome(provider, code, UNDERSTOOD, None)
            self.told.events[outcome] += len(found)
        elif isinstance(found, Rejection):
            outcome = Outcome(provider, code, found.code, found.field)
        self.told.webhooks[outcome] += 1

    def _change(self, stored: StoredRejection) -> None:
        self._changed.append(stored)
        self._changed_bytes += len(stored.webhook.body)
        if len(self._changed) >= ROWS_A_FILE or self._changed_bytes >= BYTES_A_FILE:
            self._write(self._changed)
            self._changed, self._changed_bytes = [], 0

    def withdraw(self) -> None:
        """Takes out what has become events. Before this line a crash only means that they are replayed again."""
        self._write(self._changed)
        for start in range(0, len(self._mended), ROWS_A_FILE):
            self._write(self._mended[start : start + ROWS_A_FILE])

    def _write(self, stored: list[StoredRejection]) -> None:
        if stored:
            LakeSink(open_lake(self._settings.lake)).write_quarantine(stored, time.time_ns() // 1_000)


def _withdrawal(stored: StoredRejection) -> StoredRejection:
    """The row that hides all others of this webhook. It needs none of what they hold, and there may be very many."""
    receipt = Webhook(stored.webhook.provider, stored.webhook.received_us, b"")
    why = _replayed(stored.rejection.stage, stored.rejection.code)
    return StoredRejection(stored.webhook_id, receipt, why, is_resolved=True)


@cache
def _replayed(stage: Stage, code: RejectionCode) -> Rejection:
    return Rejection(stage, code, None, "replayed")

"""What a running installation does beside the stream: compaction and scheduled reports, once however many work."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import duckdb

from pipeline.errors import CallfoldError
from pipeline.lake import Lake
from pipeline.lake.compact import compact, compacted_lately
from pipeline.settings import Settings

log = logging.getLogger(__name__)


class Upkeep:
    """Compacts the lake and writes the scheduled reports when they are due."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._settings = settings
        self._lake = lake
        self._compacted_at = 0.0
        self._reported: datetime | None = None
        """The instant of the schedule whose report is there; none yet: one that was missed is made up for."""

    def tick(self, now: float) -> None:
        """Does what is due. What fails is logged and tried at the next tick: the stream goes on."""
        if self._compacted_at == 0.0 or now < self._compacted_at:
            # A clock that was set back would have it wait as long again.
            self._compacted_at = now
        if now - self._compacted_at >= self._settings.compact_seconds:
            self._compacted_at = now
            self._try("compaction", self._compact)
        if self._settings.report_cron is not None:
            self._report(self._settings.report_cron, datetime.fromtimestamp(now, UTC))

    def _compact(self) -> None:
        # Each worker of a group has this timer: one that merged just now did it for all.
        if not compacted_lately(self._lake, self._settings.compact_seconds / 2):
            compact(self._lake.root, self._settings.compact_grace_seconds)

    def _report(self, cron: str, now: datetime) -> None:
        from pipeline.report.schedule import due, write_once

        def write() -> None:
            settings = self._settings
            slot = due(cron, self._reported, now)
            if slot is not None:
                # The slot and not the time of this tick: every worker must mean the same report.
                write_once(settings.lake, settings.report_period, settings.report_format, slot)
                self._reported = slot

        self._try("report", write)

    @staticmethod
    def _try(what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except (CallfoldError, OSError, duckdb.Error) as error:
            log.warning("%s failed, it will be tried again: %s", what, error)

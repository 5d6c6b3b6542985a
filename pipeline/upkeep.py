"""What a running installation does beside the stream: compaction and scheduled reports, once however many work."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.errors import CallfoldError
from pipeline.lake import Lake
from pipeline.lake.compact import compact
from pipeline.settings import Settings

log = logging.getLogger(__name__)


class Upkeep:
    """Compacts the lake and writes the scheduled reports when they are due."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._settings = settings
        self._lake = lake
        self._compacted_at = 0.0
        self._reported_at: datetime | None = None

    def tick(self, now: float) -> None:
        """Does what is due. What fails is logged and tried at the next tick: the stream goes on."""
        if self._compacted_at == 0.0:
            self._compacted_at = now
        if now - self._compacted_at >= self._settings.compact_seconds:
            self._compacted_at = now
            self._try("compaction", lambda: compact(self._lake.root, self._settings.compact_grace_seconds))
        if self._settings.report_cron is not None:
            self._report(self._settings.report_cron, datetime.fromtimestamp(now, UTC))

    def _report(self, cron: str, now: datetime) -> None:
        from pipeline.report.schedule import due, write_once

        if self._reported_at is None:
            self._reported_at = now
        if due(cron, self._reported_at, now):
            self._reported_at = now
            settings = self._settings
            self._try(
                "report",
                lambda: write_once(settings.lake, settings.report_period, settings.report_format, now),
            )

    @staticmethod
    def _try(what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except (CallfoldError, OSError) as error:
            log.warning("%s failed, it will be tried again: %s", what, error)

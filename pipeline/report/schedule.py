"""When a report is due, and writing it exactly once however many workers try. Starts no timer itself."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from croniter import croniter

from pipeline.errors import CallfoldError, UserError
from pipeline.report.build import build_report
from pipeline.report.period import Period, parse_period
from pipeline.report.render import render
from pipeline.storage.store import store_of


def due(cron: str, last_run: datetime | None, now: datetime) -> datetime | None:
    """The newest instant of `cron` (UTC) up to `now` that is after `last_run`; None if there is none.

    Without a last run the newest instant is due: a report missed while nothing ran is made up for.
    Several missed instants give one report. Raises UserError for an expression that is no cron.
    """
    if not croniter.is_valid(cron):
        raise UserError(f"report.cron {cron!r} is no cron expression, such as '0 6 * * *'")
    # `get_prev` looks strictly before: an instant that is exactly now counts as reached.
    slot: datetime = croniter(cron, now.astimezone(UTC) + timedelta(seconds=1)).get_prev(datetime)
    return slot if last_run is None or slot > last_run else None


def write_once(lake: Path, period: str, format: str, now: datetime) -> Path | None:  # noqa: A002
    """Writes `<lake>/reports/<label>.<format>` and returns its path; None if it is already there.

    `now` is the instant that `due` gave, the same for every worker, so that all of them mean the same file.
    Raises UserError for a wrong period or format, CallfoldError if the lake cannot be read or written.
    """
    meant = parse_period(period, now)
    target = lake / "reports" / f"{_file_label(meant, now)}.{format}"
    if target.exists():
        return None
    text = render(build_report(lake, meant, now), format)
    store = store_of(lake)
    try:
        store.lay_out(target.parent)
        with suppress(FileExistsError):
            store.put_text(text, target, is_new=True)
            return target
        # Of several workers exactly one wins.
        return None
    except OSError as error:
        raise CallfoldError(f"cannot write {target}: {error.strerror or error}") from error


def _file_label(period: Period, now: datetime) -> str:
    """A period that is over has one report; one that still fills gets one for each time it is due."""
    return period.label if period.is_past else f"{period.label}-at-{now.astimezone(UTC):%Y%m%dT%H%M}"

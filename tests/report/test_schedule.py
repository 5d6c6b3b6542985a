"""When a report is due, and that it is written exactly once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from pipeline.errors import CallfoldError, UserError
from pipeline.report.schedule import due, write_once

SIX = datetime(2026, 3, 5, 6, tzinfo=UTC)
DAILY = "0 6 * * *"


@pytest.mark.parametrize(
    ("last_run", "now", "slot"),
    [
        (SIX - timedelta(hours=1), SIX - timedelta(seconds=1), None),
        (SIX - timedelta(hours=1), SIX, SIX),
        (SIX - timedelta(days=1), SIX + timedelta(minutes=5), SIX),
        (SIX, SIX, None),
        (SIX, SIX + timedelta(hours=23), None),
        (SIX - timedelta(days=9), SIX + timedelta(seconds=1), SIX),  # several missed give one
        (None, SIX + timedelta(hours=1), SIX),
    ],
)
def test_the_newest_instant_after_the_last_run_is_due(
    last_run: datetime | None, now: datetime, slot: datetime | None
) -> None:
    assert due(DAILY, last_run, now) == slot


def test_the_schedule_is_in_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    assert due(DAILY, None, datetime(2026, 3, 5, 6, 30, tzinfo=berlin)) == SIX - timedelta(days=1)


def test_what_is_no_cron_is_said() -> None:
    with pytest.raises(UserError, match="cron"):
        due("at six", None, SIX)


def test_of_many_workers_one_writes_the_report(lake: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: write_once(lake.root, "yesterday", "md", SIX), range(4)))
    assert [path for path in written if path is not None] == [lake.root / "reports" / "2026-03-04.md"]
    assert [path.name for path in (lake.root / "reports").iterdir()] == ["2026-03-04.md"]
    assert list((lake.root / "_tmp").iterdir()) == []


def test_a_report_that_is_there_is_left_alone(lake: Any) -> None:
    path = write_once(lake.root, "yesterday", "json", SIX)
    assert path is not None
    before = path.read_text(encoding="utf-8")
    assert write_once(lake.root, "yesterday", "json", SIX + timedelta(hours=1)) is None
    assert path.read_text(encoding="utf-8") == before


def test_a_period_that_still_fills_has_a_report_for_each_time_it_is_due(lake: Any) -> None:
    names = [write_once(lake.root, "today", "md", SIX + timedelta(hours=hours)) for hours in (0, 1)]
    assert [path.name for path in names if path] == [
        "2026-03-05-at-20260305T0600.md",
        "2026-03-05-at-20260305T0700.md",
    ]


def test_a_lake_that_cannot_be_written_is_said(lake: Any) -> None:
    (lake.root / "reports").write_text("a file, where a folder should be", encoding="utf-8")
    with pytest.raises(CallfoldError, match="cannot write"):
        write_once(lake.root, "yesterday", "md", SIX)

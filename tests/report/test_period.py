"""What a user calls a period."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from pipeline.errors import UserError
from pipeline.report.period import Period, parse_period

NOW = datetime(2026, 3, 5, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "label", "first", "last", "is_past"),
    [
        ("yesterday", "2026-03-04", date(2026, 3, 4), date(2026, 3, 4), True),
        ("today", "2026-03-05", date(2026, 3, 5), date(2026, 3, 5), False),
        ("last7d", "2026-02-27..2026-03-05", date(2026, 2, 27), date(2026, 3, 5), False),
        ("last30d", "2026-02-04..2026-03-05", date(2026, 2, 4), date(2026, 3, 5), False),
        ("2024-02-29", "2024-02-29", date(2024, 2, 29), date(2024, 2, 29), True),
        ("2024-02", "2024-02", date(2024, 2, 1), date(2024, 2, 29), True),
        ("2026-03", "2026-03", date(2026, 3, 1), date(2026, 3, 31), False),
        (" 2026-02-27..2026-03-01 ", "2026-02-27..2026-03-01", date(2026, 2, 27), date(2026, 3, 1), True),
        ("ALL", "all", date(2000, 1, 1), date(2099, 12, 31), False),
    ],
)
def test_a_period_is_a_range_of_utc_dates(
    text: str, label: str, first: date, last: date, is_past: bool
) -> None:
    assert parse_period(text, NOW) == Period(label, first, last, is_past)


def test_the_clocks_own_zone_does_not_move_the_day() -> None:
    same_instant = NOW.astimezone(timezone(timedelta(hours=-8)))
    assert parse_period("today", same_instant) == parse_period("today", NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "week",
        "last0d",
        "2026-13",
        "2026-02-30",
        "2026-3-",
        "2026-03-05..",
        "2026-03-05..2026-03-04",
        "1999-01-01",
    ],
)
def test_what_is_no_period_is_said(text: str) -> None:
    with pytest.raises(UserError, match="period"):
        parse_period(text, NOW)

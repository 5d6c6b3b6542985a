"""What a report says of the handling of calls: how far they got, how fast, by whom, at what cost."""

import csv
import json
import runpy
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.build import build_report
from pipeline.report.figures import Agent, Before, Handling, Level, Ratio, Report, Share, difference_bounds
from pipeline.report.period import parse_period
from pipeline.report.render import render

_BUILDER = runpy.run_path(str(Path(__file__).parents[1] / "sql" / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]
NOW = datetime(2026, 3, 6, 6, tzinfo=UTC)
MISSED: dict[str, Any] = {
    "is_answered": False,
    "answered_by": None,
    "outcome": "no_answer",
    "failure_class": "recipient",
}


def report_of(lake: Any, period: str = "yesterday") -> Report:
    return build_report(lake.root, parse_period(period, NOW), NOW)


def fill(lake: Any) -> None:
    nine, ten = at("09:00:00"), at("10:00:00")
    caller: dict[str, Any] = {"direction": "inbound", "from_number": "+15550100"}
    lake.hot(
        call("1", **caller, agent_id="a", answered_at=nine + timedelta(seconds=8), cost_total=0.25),
        call("2", **caller, started_at=ten, answered_at=ten, agent_id="a", cost_total=0.5, talk_seconds=40.0),
        call(
            "3", **caller, started_at=at("11:00:00"), agent_id="b", is_transferred=True, outcome="forwarded"
        ),
        call("4", to_number="+15550101", **MISSED, cost_total=0.25),
        call("5", to_number="+15550101", started_at=ten, provider="recho", attempts=2),
        call("6", to_number="+15550101", started_at=ten),
        call("7", started_at=nine - timedelta(days=1)),
        call("8", started_at=nine - timedelta(days=1), **MISSED),
        call("9", started_at=nine - timedelta(days=2)),
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The lake that `fill` makes; to be read only."""
    lake = _BUILDER["Lake"](tmp_path_factory.mktemp("filled"))
    fill(lake)
    return lake


@pytest.fixture(scope="module")
def report(filled: Any) -> Report:
    """What is said of its last day; to build it takes most of a test's time."""
    return report_of(filled)


def test_the_figures_of_the_handling(report: Report) -> None:
    assert report.funnel == tuple(
        Share((stage,), Ratio(calls, 6))
        for stage, calls in (("queued", 6), ("ringing", 6), ("in_progress", 5), ("completed", 5))
    )
    assert report.handling == (
        Handling("recho", Ratio(0, 1), Ratio(1, 1), Ratio(0, 0), Ratio(1, 1), Ratio(0, 0), None, 0),
        Handling("whippy", Ratio(1, 4), Ratio(3, 4), Ratio(2, 3), Ratio(0, 0), Ratio(1, 1), 1.0, 2),
        Handling("all", Ratio(1, 5), Ratio(4, 5), Ratio(2, 3), Ratio(1, 1), Ratio(1, 1), None, 0),
    )
    assert [each.cost_per_answered_call for each in report.handling] == [None, 0.5, None]
    assert report.agents == (
        Agent("whippy", "a", Ratio(2, 2), 2, Ratio(0, 2), 40.0),
        Agent("whippy", "b", Ratio(0, 1), 1, Ratio(1, 1), None),
    )
    whippy, everybody = report.speeds
    assert (whippy.name, everybody.name, whippy.levels) == ("whippy", "all", everybody.levels)
    assert whippy.levels[:3] == (Level(5, Ratio(1, 2)), Level(10, Ratio(2, 2)), Level(20, Ratio(2, 2)))


def test_a_period_is_compared_with_as_many_days_before(filled: Any, report: Report) -> None:
    (low, high) = difference_bounds(Ratio(5, 6), Ratio(1, 2)) or (None, None)
    day = date(2026, 3, 4)
    assert report.before == Before(day, day, 2, Ratio(1, 2), 5 / 6 - 1 / 2, low, high)
    two = report_of(filled, "2026-03-04..2026-03-05").before
    assert two is not None
    assert (two.first, two.last, two.calls) == (date(2026, 3, 2), date(2026, 3, 3), 1)
    assert report_of(filled, "2026-03-03").before is None
    assert report_of(filled, "all").before is None


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe (1998), table II, method 10, columns a and h.
    assert difference_bounds(Ratio(56, 70), Ratio(48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference_bounds(Ratio(10, 10), Ratio(0, 10)) == pytest.approx((0.6075, 1.0), abs=5e-5)
    assert difference_bounds(Ratio(0, 0), Ratio(1, 2)) is None


def test_every_form_shows_the_handling(report: Report) -> None:
    text = render(report, "md")
    assert "| Answer rate | 50.0 % | 83.3 % | +33.3 points |" in text
    assert "| Answered | 5 | 83.3 % | 83.3 % |" in text
    assert "| whippy | 2 | 50.0 % | 100.0 % | 100.0 % | 100.0 % | 100.0 % | 100.0 % |" in text
    assert "| whippy | 4 | 25.0 % | 75.0 % | 66.7 % | – | 1 of 1 | 0.5000 |" in text
    assert "| a | whippy | 2 | 2 | 100.0 % | 34.2–100.0 % | 0.0 % | 40 s |" in text
    page = render(report, "html")
    for heading in ("Against the days before", "How far calls got", "Speed of answer", "Handling"):
        assert f"<h2>{heading}</h2>" in page
        assert f"## {heading}" in text
    told = json.loads(render(report, "json"))
    assert told["before"]["answer_rate"]["numerator"] == 1
    assert [each["completed"]["denominator"] for each in told["agents"]] == [2, 1]
    rows = csv.DictReader(StringIO(render(report, "csv")))
    figures = {(row["section"], row["label"], row["metric"]): row for row in rows}
    assert figures["handling", "whippy", "cost_per_answered_call"]["value"] == "0.5"
    assert figures["speeds", "all", "within_5_s"]["denominator"] == "2"
    assert figures["agents", "whippy/a", "completed"]["numerator"] == "2"
    assert figures["before", "", "calls"]["value"] == "2"
    assert figures["funnel", "completed", "share"]["numerator"] == "5"


def test_what_is_not_known_is_left_out(lake: Any) -> None:
    lake.hot(call("1", agent_id=None))
    text = render(report_of(lake), "md")
    for heading in ("Speed of answer", "Assistants and agents", "Against the days before"):
        assert heading not in text


def test_a_long_league_is_cut_for_readers_only(lake: Any) -> None:
    lake.hot(*(call(str(number), agent_id=f"agent {number:02d}") for number in range(18)))
    report = report_of(lake)
    text = render(report, "md")
    assert len(report.agents) == 18
    assert "agent 14" in text
    assert "agent 15" not in text
    assert "The other 3 are only in the CSV and JSON forms." in text

"""A report's figures, and its four forms."""

import csv
import json
import re
import runpy
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.query.checks import checks
from pipeline.report.build import build_report
from pipeline.report.figures import Busiest, Ratio, Report, Share, Volume
from pipeline.report.period import parse_period
from pipeline.report.plots import tick_step
from pipeline.report.render import render
from pipeline.report.section import duration

_BUILDER = runpy.run_path(str(Path(__file__).parents[1] / "sql" / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]
NOW = datetime(2026, 3, 6, 6, tzinfo=UTC)
MISSED: dict[str, Any] = {"is_answered": False, "answered_by": None, "failure_class": "recipient"}


def fill(lake: Any) -> None:
    rows = [
        call("1", talk_seconds=5.0, started_at=at("09:00:00"), ended_at=at("09:00:30")),
        call("2", talk_seconds=90.0, started_at=at("09:00:10"), ended_at=at("09:02:00"), end_trigger="agent"),
        call("3", outcome="busy", failure_reason="<486> | busy", **MISSED),
        call("4", provider="recho", talk_seconds=4000.0, started_at=at("14:00:00"), time_source="received"),
        call("5", outcome="no_answer", **MISSED, started_at=at("14:00:00") - timedelta(days=1)),
        call("open", state="ringing", outcome=None, closed_by=None, end_trigger=None),
    ]
    lake.hot(*rows)
    lake.events_of(*rows)


def report_of(lake: Any, period: str) -> Report:
    return build_report(lake.root, parse_period(period, NOW), NOW)


@pytest.fixture(scope="module")
def of_a_day(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of the day that `fill` makes up; to build one takes most of a test's time."""
    lake = _BUILDER["Lake"](tmp_path_factory.mktemp("day"))
    fill(lake)
    return report_of(lake, "yesterday")


@pytest.fixture(scope="module")
def of_nothing(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a period without calls."""
    return report_of(_BUILDER["Lake"](tmp_path_factory.mktemp("nothing")), "2020-01-01")


def test_the_figures_of_a_day(of_a_day: Report) -> None:
    report = of_a_day
    total = report.total
    assert (report.label, total.name, total.calls, total.failed_calls) == ("2026-03-05", "all", 4, 1)
    assert (total.answer_rate, total.asr, total.ner) == (Ratio(3, 4), Ratio(3, 4), Ratio(4, 4))
    assert (total.short_calls, total.talk_known, total.talk_p50) == (Ratio(1, 3), 3, 90.0)
    assert [(each.name, each.calls) for each in report.providers] == [("recho", 1), ("whippy", 3)]
    assert report.days == (Volume("2026-03-05", 4, 3),)
    assert (report.hours[9], report.hours[14], len(report.hours)) == (
        Volume("09", 3, 2),
        Volume("14", 1, 1),
        24,
    )
    assert report.end_triggers == (Share(("customer",), Ratio(2, 3)), Share(("agent",), Ratio(1, 3)))
    assert report.failures == (Share(("recipient", "busy", "<486> | busy"), Ratio(1, 4)),)
    assert [volume.calls for volume in report.talk_times] == [1, 0, 0, 1, 0, 0, 0, 1]
    assert report.busiest == Busiest(at("09:00:00"), 3, pytest.approx((30 + 50 + 60) / 60))
    assert (report.quality.received_times, report.quality.open_calls) == (1, 1)
    assert report.checks == ()


def test_days_without_calls_between_days_with_calls_are_shown(lake: Any) -> None:
    lake.hot(call("1"), call("2", started_at=at("09:00:00") + timedelta(days=2)))
    assert [volume.calls for volume in report_of(lake, "2026-03").days] == [1, 0, 1]


def test_a_long_period_is_shown_by_month(lake: Any) -> None:
    lake.hot(call("1"), call("2"), call("3", started_at=at("09:00:00") - timedelta(days=200)))
    days = report_of(lake, "all").days
    assert [(volume.label, volume.calls) for volume in days] == [("2025-08", 1), ("2026-03", 2)]


def test_checks_that_find_rows_are_in_the_report(lake: Any) -> None:
    lake.hot(call("1", talk_seconds=-1.0))
    lake.events_of(call("1"))
    (line,) = report_of(lake, "yesterday").checks
    assert (line.name, line.severity, line.rows, line.examples) == (
        "calls_negative_duration",
        "error",
        1,
        ("whippy:1",),
    )


def test_every_form_says_what_the_checks_found(lake: Any) -> None:
    lake.hot(call("1", talk_seconds=-1.0), call("2", attempts=0))
    lake.events_of(call("1"), call("2"))
    report = report_of(lake, "yesterday")
    found = {
        "calls_impossible_count": ("error", 1, "whippy:2"),
        "calls_negative_duration": ("error", 1, "whippy:1"),
    }
    told = json.loads(render(report, "json"))
    assert told["checks_run"] == len(checks())
    assert {
        each["name"]: (each["severity"], each["rows"], *each["examples"]) for each in told["checks"]
    } == found
    rows = [row for row in csv.DictReader(StringIO(render(report, "csv"))) if row["section"] == "checks"]
    assert {(row["label"], row["metric"], row["value"]) for row in rows} == {
        ("", "run", str(len(checks()))),
        *(
            (name, metric, str(value))
            for name, values in found.items()
            for metric, value in zip(("severity", "rows", "examples"), values, strict=True)
        ),
    }
    for form in ("html", "md"):
        text = render(report, form)
        assert f"2 of {len(checks())} rules over the whole lake are broken by some rows." in text
        for name, (severity, _, key) in found.items():
            assert all(word in text for word in (name, severity, key))


@pytest.mark.parametrize("form", ["html", "md"])
def test_a_lake_that_breaks_no_rule_is_said_to_break_none(of_a_day: Report, form: str) -> None:
    assert f"No row of the lake breaks one of the {len(checks())} rules." in render(of_a_day, form)


class _Page(HTMLParser):
    """Checks that tags nest, and collects what refers to somewhere else."""

    VOID = frozenset({"meta", "br", "line", "rect", "circle", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag


def test_html_is_one_file_that_needs_nothing_else(of_a_day: Report) -> None:
    text = render(of_a_day, "html")
    page = _Page()
    page.feed(text)
    assert page.stack == []
    assert page.references == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"@import|url\(", text)
    assert page.tags.count("svg") == 7
    assert text.count('role="img" aria-label="') == 7
    assert "&lt;486&gt; | busy" in text


def test_markdown_escapes_what_would_break_a_table(of_a_day: Report) -> None:
    text = render(of_a_day, "md")
    assert "| recipient | busy | <486> \\| busy | 1 | 25.0 % |" in text
    assert "| all | 4 | 3 | 75.0 % | 30.1–95.4 % | 4 | 75.0 % | 100.0 % | 3 | 0 | 1 |" in text


def test_json_gives_every_ratio_with_its_parts(of_a_day: Report) -> None:
    shown = json.loads(render(of_a_day, "json"))
    assert shown["first"] == "2026-03-05"
    assert shown["made_at"] == "2026-03-06T06:00:00.000000Z"
    assert shown["total"]["answer_rate"] == {
        "numerator": 3,
        "denominator": 4,
        "value": 0.75,
        "low": pytest.approx(0.30064, abs=1e-5),
        "high": pytest.approx(0.95441, abs=1e-5),
    }


def test_csv_has_one_row_per_figure(of_a_day: Report) -> None:
    rows = list(csv.DictReader(StringIO(render(of_a_day, "csv"))))
    (rate,) = [
        row
        for row in rows
        if (row["section"], row["label"], row["metric"]) == ("outcomes", "all", "answer_rate")
    ]
    assert (rate["value"], rate["numerator"], rate["denominator"]) == ("0.75", "3", "4")
    assert {row["section"] for row in rows} >= {
        "report",
        "outcomes",
        "days",
        "hours",
        "end_triggers",
        "failures",
    }


@pytest.mark.parametrize("form", ["html", "md", "csv", "json"])
def test_an_empty_period_says_so(of_nothing: Report, form: str) -> None:
    text = render(of_nothing, form)
    if form in ("html", "md"):
        assert "No completed calls in the period 2020-01-01 to 2020-01-01 (UTC)." in text
    elif form == "json":
        assert json.loads(text)["total"]["calls"] == 0
    else:
        assert "outcomes,all,calls,0,,,," in text.splitlines()


def test_calls_nobody_answered_still_make_a_report(lake: Any) -> None:
    lake.hot(call("1", outcome="expired", **{**MISSED, "failure_class": "caller"}, end_trigger="unknown"))
    report = report_of(lake, "yesterday")
    for form in ("html", "md", "csv", "json"):
        assert render(report, form)


def test_an_unknown_form_is_said(of_nothing: Report) -> None:
    with pytest.raises(UserError, match="html, md, csv, json"):
        render(of_nothing, "pdf")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (4.26, "4.3 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (187, "3 min 07 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("highest", "step"), [(0, 1), (1, 1), (7, 2), (10, 2), (143, 50), (1000, 200), (26, 10)]
)
def test_ticks_are_round_numbers(highest: int, step: int) -> None:
    assert tick_step(highest) == step


def test_dates_are_dates(lake: Any) -> None:
    report = report_of(lake, "2026-03")
    assert (report.first, report.last) == (date(2026, 3, 1), date(2026, 3, 31))

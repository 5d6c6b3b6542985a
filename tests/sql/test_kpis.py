"""Every KPI against numbers worked out by hand."""

import runpy
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.query.views import models
from pipeline.report.figures import Ratio

_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]

THURSDAY = date(2026, 3, 5)
UNANSWERED: dict[str, Any] = {"is_answered": False, "answered_by": None}


def missed(
    call_id: str, outcome: str, failure_class: str | None = "recipient", **columns: Any
) -> dict[str, Any]:
    return call(call_id, outcome=outcome, failure_class=failure_class, **{**UNANSWERED, **columns})


def one(lake: Any, view: str, where: str = "true") -> dict[str, Any]:
    rows = lake.rows(f"select * from {view} where {where}")
    assert len(rows) == 1, rows
    return rows[0]


def test_daily_counts_and_talk_time(lake: Any) -> None:
    lake.hot(
        call("1", talk_seconds=30.0),
        call("2", talk_seconds=60.0, outcome="forwarded", is_transferred=True),
        call("3", talk_seconds=None),
        missed("4", "busy"),
        call("5", outcome="voicemail", failure_class="recipient", answered_by="machine", talk_seconds=6.0),
    )
    assert one(lake, "kpi_daily") == {
        "date": THURSDAY,
        "provider": "whippy",
        "direction": "outbound",
        "calls": 5,
        "answered": 4,
        "answer_rate": 0.8,
        "completed": 2,
        "forwarded": 1,
        "failed_calls": 2,
        "talk_seconds_total": 96.0,
        "talk_known": 3,
        "talk_seconds_avg": 32.0,
    }


def test_rows_are_by_date_provider_and_direction(lake: Any) -> None:
    lake.hot(
        call("1"),
        call("2", direction="inbound"),
        call("3", provider="recho"),
        call("4", started_at=at("09:00:00") + timedelta(days=1)),
    )
    assert lake.column("select calls from kpi_daily") == [1, 1, 1, 1]


def test_only_ended_root_calls_count(lake: Any) -> None:
    lake.hot(
        call("1"),
        call("leg", parent_call_id="1"),
        call("open", state="in_progress", outcome=None, closed_by=None, end_trigger=None),
        call("never", is_retracted=True),
    )
    for view in ("kpi_daily", "kpi_answer_rate", "data_quality", "kpi_hourly"):
        assert lake.column(f"select sum(calls) from {view}") == [1], view


def test_a_call_that_cannot_be_known_to_be_answered_is_not_counted_as_answered(lake: Any) -> None:
    lake.hot(call("1", outcome="unknown", failure_class="unknown", is_answered=None, answered_by=None))
    row = one(lake, "kpi_answer_rate")
    assert (row["calls"], row["seizures"], row["answered"], row["answer_rate"]) == (1, 1, 0, 0.0)


def test_answer_rate_asr_and_ner_with_wilson_bounds(lake: Any) -> None:
    rang = {"ringing_at": at("09:00:01")}
    lake.hot(
        call("1"),
        call("2", answered_by="human"),
        call("3", outcome="voicemail", failure_class="recipient", answered_by="machine"),
        missed("4", "busy"),
        missed("5", "no_answer"),
        missed("6", "rejected"),
        missed("7", "unreachable"),
        missed("8", "expired", "caller"),  # no seizure
        missed("9", "limit_reached", "capacity"),  # no seizure
        missed("10", "canceled", "caller"),  # no seizure: before ringing
        missed("11", "canceled", "caller", **rang),
        missed("12", "failed", "technical"),  # no seizure: before ringing
        missed("13", "failed", "technical", **rang),
        call("14", outcome="failed", failure_class="technical", answered_at=at("09:00:09")),
    )
    row = one(lake, "kpi_answer_rate")
    assert (row["calls"], row["seizures"], row["answered"]) == (14, 10, 4)
    assert (row["answered_human"], row["answered_machine"], row["network_effective"]) == (1, 1, 7)
    assert row["answer_rate"] == pytest.approx(4 / 14)
    assert row["asr"] == pytest.approx(0.4)
    assert row["ner"] == pytest.approx(0.7)
    # Newcombe (1998), table I, method 3, worked out for 4 and 7 of 10 and for 4 of 14.
    assert (row["asr_low"], row["asr_high"]) == pytest.approx((0.16818, 0.68733), abs=1e-5)
    assert (row["ner_low"], row["ner_high"]) == pytest.approx((0.39678, 0.89221), abs=1e-5)
    assert (row["answer_rate_low"], row["answer_rate_high"]) == pytest.approx((0.11721, 0.54649), abs=1e-5)


def test_wilson_bounds_of_newcombes_published_example() -> None:
    assert Ratio(81, 263).bounds == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert Ratio(0, 20).bounds == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert Ratio(1, 29).bounds == pytest.approx((0.0061, 0.1718), abs=1e-4)


def test_the_view_and_the_report_agree_on_wilson_bounds(lake: Any) -> None:
    lake.hot(
        *(call(str(number)) for number in range(81)),
        *(missed(str(number), "busy") for number in range(81, 263)),
    )
    row = one(lake, "kpi_answer_rate")
    assert (row["asr_low"], row["asr_high"]) == pytest.approx(Ratio(81, 263).bounds)


def test_without_a_seizure_the_ratios_and_their_bounds_are_null(lake: Any) -> None:
    lake.hot(missed("1", "expired", "caller"))
    row = one(lake, "kpi_answer_rate")
    assert row["seizures"] == 0
    assert [row[name] for name in ("asr", "asr_low", "asr_high", "ner", "ner_low", "ner_high")] == [None] * 6
    assert row["answer_rate"] == 0.0


def test_bounds_stay_within_zero_and_one(lake: Any) -> None:
    lake.hot(call("1"), missed("2", "unreachable", provider="recho"))
    high, low = (
        one(lake, "kpi_answer_rate", "provider = 'whippy'"),
        one(lake, "kpi_answer_rate", "provider = 'recho'"),
    )
    assert (high["asr_high"], low["asr_low"]) == (1.0, 0.0)
    assert high["asr_low"] == pytest.approx(0.20655, abs=1e-5)


def test_percentiles_of_talk_and_ringing_time(lake: Any) -> None:
    lake.hot(
        *(
            call(str(second), talk_seconds=float(second), ring_seconds=2.0) for second in range(5, 16)
        ),  # 5 .. 15
        call("unknown", talk_seconds=None),
        missed("missed", "no_answer", ring_seconds=30.0),
    )
    row = one(lake, "kpi_duration")
    assert (row["answered"], row["talk_known"], row["ring_known"]) == (12, 11, 12)
    assert (row["talk_p50"], row["talk_p90"], row["talk_p95"], row["talk_avg"]) == (10.0, 14.0, 14.5, 10.0)
    assert row["ring_p50"] == 2.0
    assert row["ring_p95"] == pytest.approx(2.0 + 28.0 * 0.45)  # place 0.95 * 11 = 10.45 of 0..11
    assert (row["short_calls"], row["short_call_rate"]) == (5, pytest.approx(5 / 12))


def test_durations_of_a_group_without_answers_are_null(lake: Any) -> None:
    lake.hot(missed("1", "busy"))
    row = one(lake, "kpi_duration")
    assert (row["answered"], row["short_calls"]) == (0, 0)
    assert [row[name] for name in ("talk_p50", "talk_avg", "ring_p50", "short_call_rate")] == [None] * 4


def test_shares_of_end_triggers_are_of_answered_calls(lake: Any) -> None:
    lake.hot(
        call("1"),
        call("2"),
        call("3", end_trigger="agent"),
        call("4", end_trigger="system"),
        missed("5", "busy"),
    )
    shown = lake.rows("select end_trigger, calls, answered, share from kpi_end_trigger order by 1")
    assert shown == [
        {"end_trigger": "agent", "calls": 1, "answered": 4, "share": 0.25},
        {"end_trigger": "customer", "calls": 2, "answered": 4, "share": 0.5},
        {"end_trigger": "system", "calls": 1, "answered": 4, "share": 0.25},
    ]


def test_shares_of_failures_are_of_all_calls(lake: Any) -> None:
    lake.hot(
        call("1"),
        call("2", outcome="forwarded"),
        missed("3", "busy", failure_reason="486"),
        missed("4", "busy", failure_reason="486"),
        missed("5", "busy"),
    )
    shown = lake.rows(
        "select failure_class, outcome, failure_reason, calls, all_calls, share from kpi_failure order by calls"
    )
    assert shown == [
        {
            "failure_class": "recipient",
            "outcome": "busy",
            "failure_reason": None,
            "calls": 1,
            "all_calls": 5,
            "share": 0.2,
        },
        {
            "failure_class": "recipient",
            "outcome": "busy",
            "failure_reason": "486",
            "calls": 2,
            "all_calls": 5,
            "share": 0.4,
        },
    ]


def test_hours_and_weekdays_are_utc_whatever_the_sessions_time_zone(lake: Any) -> None:
    late = at("23:59:59.999999")
    lake.hot(
        call("1", started_at=late), missed("2", "busy", started_at=late), call("3", started_at=at("00:00:00"))
    )
    connection = lake.connect()
    connection.execute("set timezone = 'Asia/Tokyo'")
    shown = connection.sql(
        "select weekday, hour, calls, answered, answer_rate from kpi_hourly order by hour"
    ).fetchall()
    connection.close()
    assert shown == [(4, 0, 1, 1, 1.0), (4, 23, 2, 1, 0.5)]


def test_a_call_without_a_start_is_placed_by_its_first_event(lake: Any) -> None:
    lake.hot(call("1", started_at=None, first_event_at=at("07:30:00")))
    assert lake.rows("select weekday, hour from kpi_hourly") == [{"weekday": 4, "hour": 7}]


def test_concurrency_by_minute(lake: Any) -> None:
    lake.hot(
        call("1", started_at=at("09:00:30"), ended_at=at("09:02:15")),
        call("2", started_at=at("09:00:45"), ended_at=at("09:01:00"), provider="recho"),
        call(
            "3", started_at=at("09:01:00"), ended_at=at("09:01:30"), direction="inbound"
        ),  # begins as 2 ends
        call("4", started_at=at("09:05:00"), ended_at=at("09:05:00")),  # of no length
        call("5", started_at=at("09:06:00"), ended_at=None),
        call("6", started_at=None, ended_at=at("09:07:00")),
        call("leg", started_at=at("09:00:00"), ended_at=at("09:10:00"), parent_call_id="1"),
    )
    minute = "strftime(minute at time zone 'UTC', '%H:%M') as minute"
    assert lake.rows(f"select date, {minute}, peak_calls, erlangs from kpi_concurrency order by 2") == [
        {"date": THURSDAY, "minute": "09:00", "peak_calls": 2, "erlangs": 0.75},
        {"date": THURSDAY, "minute": "09:01", "peak_calls": 2, "erlangs": 1.5},
        {"date": THURSDAY, "minute": "09:02", "peak_calls": 1, "erlangs": 0.25},
    ]
    split = lake.rows(
        f"select provider, direction, {minute}, peak_calls, erlangs from kpi_concurrency_provider order by 1, 2, 3"
    )
    assert [tuple(row.values()) for row in split] == [
        ("recho", "outbound", "09:00", 1, 0.25),
        ("whippy", "inbound", "09:01", 1, 0.5),
        ("whippy", "outbound", "09:00", 1, 0.5),
        ("whippy", "outbound", "09:01", 1, 1.0),
        ("whippy", "outbound", "09:02", 1, 0.25),
    ]


def test_concurrency_across_midnight_belongs_to_the_minutes_date(lake: Any) -> None:
    lake.hot(call("1", started_at=at("23:59:00"), ended_at=at("00:01:00") + timedelta(days=1)))
    assert lake.column("select date from kpi_concurrency order by minute") == [THURSDAY, date(2026, 3, 6)]


def test_data_quality_counts_what_weakens_the_figures(lake: Any) -> None:
    newest = at("18:00:00")
    lake.hot(
        call("1", revision=1, state="ringing"),
        call("1", revision=2),
        call("1", revision=4),
        call("1", revision=5, last_event_at=newest),
        call("2", closed_by="timeout", outcome="unknown", is_answered=None, answered_by=None),
        call("3", time_source="received"),
    )
    lake.write(
        "quarantine/hot",
        [
            {"webhook_id": name, "provider": provider, "date": THURSDAY, "published_at": newest}
            for name, provider in (("a", "whippy"), ("b", "recho"), ("c", "recho"))
        ],
    )
    shown = lake.rows("select * exclude (date) from data_quality order by provider, direction")
    nothing = dict.fromkeys(
        ("calls", "closed_by_timeout", "late_revisions", "received_times", "unknown_outcome", "quarantined"),
        0,
    )
    assert shown == [
        {"provider": "recho", "direction": "unknown", **nothing, "quarantined": 2, "newest_event_at": None},
        {
            "provider": "whippy",
            "direction": "outbound",
            "calls": 3,
            "closed_by_timeout": 1,
            "late_revisions": 2,
            "received_times": 1,
            "unknown_outcome": 1,
            "quarantined": 0,
            "newest_event_at": newest,
        },
        {"provider": "whippy", "direction": "unknown", **nothing, "quarantined": 1, "newest_event_at": None},
    ]


def test_an_empty_lake_gives_empty_views(lake: Any) -> None:
    with lake.connect() as connection:
        for view in models():
            assert connection.execute(f"select * from {view}").fetchall() == [], view

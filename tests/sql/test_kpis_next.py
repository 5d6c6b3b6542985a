"""The KPIs that analysts ask for next, against numbers worked out by hand."""

import runpy
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]
THURSDAY = date(2026, 3, 5)
DAY = timedelta(days=1)


def missed(call_id: str, outcome: str = "no_answer", **columns: Any) -> dict[str, Any]:
    given = {"is_answered": False, "answered_by": None, "failure_class": "recipient", **columns}
    return call(call_id, outcome=outcome, **given)


def dialled(call_id: str, start: datetime, to: str | None = "+15550100", **columns: Any) -> dict[str, Any]:
    return call(call_id, started_at=start, to_number=to, **columns)


def heard(call_id: str, start: datetime, caller: str | None = "+15550100", **columns: Any) -> dict[str, Any]:
    return call(call_id, direction="inbound", started_at=start, from_number=caller, **columns)


def shown(lake: Any, view: str, columns: str, order: str = "all") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in lake.rows(f"select {columns} from {view} order by {order}")]


def test_bids_count_each_dialling(lake: Any) -> None:
    lake.hot(call("1", attempts=3), missed("2", attempts=2), call("3", attempts=None), call("4", attempts=0))
    assert shown(lake, "kpi_answer_rate", "calls, answered, bids, abr") == [(4, 3, 7, 3 / 7)]


def test_the_funnel_counts_what_came_further_for_the_stages_before(lake: Any) -> None:
    lake.hot(
        call("1", queued_at=at("08:59:59"), answered_at=at("09:00:05")),  # no ringing told
        call("2", outcome="failed", failure_class="technical", ringing_at=at("09:00:01")),
        call("3", outcome="forwarded", is_transferred=True),
        missed("4", "rejected"),
        missed("5", "no_answer", ringing_at=at("09:00:01")),
        missed("6", "busy"),
        missed("7", "canceled", ringing_at=at("09:00:01")),
        missed("8", "expired"),
    )
    assert shown(
        lake, "kpi_funnel", "step, stage, calls, calls_timed, all_calls, share, calls_before, step_rate"
    ) == [
        (1, "queued", 8, 1, 8, 1.0, 8, 1.0),
        (2, "ringing", 6, 3, 8, 0.75, 8, 0.75),
        (3, "in_progress", 3, 1, 8, 0.375, 6, 0.5),
        (4, "completed", 2, 2, 8, 0.25, 3, 2 / 3),
    ]


def test_a_stage_behind_nothing_has_no_rate(lake: Any) -> None:
    lake.hot(missed("1", "busy"))
    assert shown(lake, "kpi_funnel", "calls, share, calls_before, step_rate", "step") == [
        (1, 1.0, 1, 1.0),
        (0, 0.0, 1, 0.0),
        (0, 0.0, 0, None),
        (0, 0.0, 0, None),
    ]


def test_a_caller_repeats_within_24_hours_to_the_microsecond(lake: Any) -> None:
    nine = at("09:00:00")
    lake.hot(
        heard("1", nine),
        heard("2", nine + DAY),  # exactly 24 h: a repeat
        heard("3", nine + 2 * DAY + timedelta(microseconds=1)),  # just over: none
        heard("4", nine + 2 * DAY + timedelta(hours=1)),  # after 3
        heard("5", nine + timedelta(hours=1), provider="recho"),  # another provider's line
        dialled("6", nine + timedelta(hours=1), "+15550100"),  # the other direction
        heard("7", nine + timedelta(hours=1), "+15550199"),  # another number
    )
    columns = (
        "date, provider, calls, repeat_calls, repeat_call_rate, callers, repeat_callers, repeat_caller_rate"
    )
    assert shown(lake, "kpi_repeat_callers", columns) == [
        (THURSDAY, "recho", 1, 0, 0.0, 1, 0, 0.0),
        (THURSDAY, "whippy", 2, 0, 0.0, 2, 0, 0.0),
        (THURSDAY + DAY, "whippy", 1, 1, 1.0, 1, 1, 1.0),
        (THURSDAY + 2 * DAY, "whippy", 2, 1, 0.5, 1, 1, 1.0),
    ]


def test_only_known_numbers_of_completed_root_calls_repeat(lake: Any) -> None:
    nine, ten = at("09:00:00"), at("10:00:00")
    lake.hot(
        heard("1", nine, None),
        heard("2", ten, None),  # unknown numbers are not one caller
        heard("3", nine, "*******0100"),
        heard("4", ten, "*******0100"),  # nor are masked ones
        heard("5", nine, "3f1c9a"),
        heard("6", ten, "3f1c9a", parent_call_id="5"),  # a leg is no call
        heard("7", ten, "3f1c9a", state="ringing", outcome=None, closed_by=None, end_trigger=None),
        heard("8", ten, "3f1c9a", is_retracted=True),
        call("9", direction="internal", from_number="3f1c9a", to_number="3f1c9a", started_at=ten),
    )
    assert shown(lake, "kpi_repeat_callers", "calls, repeat_calls, callers") == [(1, 0, 1)]


def test_repeats_after_a_missed_call_are_told_apart(lake: Any) -> None:
    lake.hot(
        heard("1", at("09:00:00"), is_answered=False, outcome="abandoned"),
        heard("2", at("09:05:00")),  # after a miss
        heard("3", at("09:10:00")),  # after an answer
        # Placed by its first event.
        call(
            "4", direction="inbound", from_number="+15550100", started_at=None, first_event_at=at("09:20:00")
        ),
    )
    columns = "calls, repeat_calls, repeat_after_miss, callers, repeat_callers"
    assert shown(lake, "kpi_repeat_callers", columns) == [(4, 3, 1, 1, 1)]


def test_redials_within_a_call_and_retries_of_a_number(lake: Any) -> None:
    nine = at("09:00:00")
    lost = {"is_answered": False, "answered_by": None, "outcome": "no_answer", "failure_class": "recipient"}
    lake.hot(
        dialled("1", nine, None, attempts=3),
        dialled("2", nine, None, attempts=2, **lost),
        dialled("3", nine, **lost),
        dialled("4", nine + timedelta(hours=2), **lost),  # a retry that fails
        dialled("5", nine + timedelta(hours=4)),  # a retry that succeeds
        dialled("6", nine + timedelta(hours=6)),  # after an answer: no retry
        dialled("7", nine, "+15550101", **lost),
        dialled("8", nine + DAY + timedelta(microseconds=1), "+15550101"),  # too late
        heard("9", nine, attempts=2),
    )
    columns = (
        "date, calls, bids, redialled_calls, redialled_answered, redial_success_rate, retries, retries_answered, "
        "retry_success_rate"
    )
    assert shown(lake, "kpi_redial", columns) == [
        (THURSDAY, 7, 10, 2, 1, 0.5, 2, 1, 0.5),
        (THURSDAY + DAY, 1, 1, 0, 0, None, 0, 0, None),
    ]


def test_transfer_and_containment_are_of_conversations(lake: Any) -> None:
    lake.hot(
        call("1"),
        call("2"),
        call("3", outcome="forwarded", is_transferred=True),
        call("4", is_transferred=True),  # a warm transfer
        call("5", outcome="failed", failure_class="technical"),
        call("6", outcome="voicemail", failure_class="recipient", answered_by="machine"),
        missed("7"),
        missed("8", provider="recho"),
    )
    columns = "provider, conversations, transferred, transfer_rate, contained, containment_rate, broken_off"
    assert shown(lake, "kpi_transfer", columns) == [("whippy", 5, 2, 0.4, 2, 0.4, 1)]


def test_an_answered_call_bears_the_cost_of_the_unanswered(lake: Any) -> None:
    lake.hot(
        call("1", cost_total=0.1, talk_seconds=60.0),
        call("2", cost_total=0.2, talk_seconds=None),
        missed("3", cost_total=0.3),
        call("4", cost_total=None, talk_seconds=600.0),
        missed("5", provider="recho", cost_total=0.5),
        missed("6", provider="freeclimb"),
    )
    columns = (
        "provider, calls, costed_calls, cost_total, cost_per_call, costed_answered, cost_per_answered_call, "
        "talk_cost, talk_minutes, cost_per_talk_minute"
    )
    assert shown(lake, "kpi_cost", columns) == [
        ("recho", 1, 1, 0.5, 0.5, 0, None, None, None, None),
        ("whippy", 4, 3, 0.6, pytest.approx(0.2), 2, 0.3, 0.1, 1.0, 0.1),
    ]


def test_the_league_orders_by_the_lower_bound_of_completion(lake: Any) -> None:
    lake.hot(
        *(call(f"a{number}", agent_id="a", talk_seconds=30.0) for number in range(8)),
        *(missed(f"b{number}", agent_id="a") for number in range(2)),
        call("lucky", agent_id="b"),  # all of one call: 0.21 at the least
        call("lucky too", agent_id="c", talk_seconds=9.0),
        call("moved", agent_id="d", outcome="forwarded", is_transferred=True),
        call("nobody"),
        call("other day", agent_id="b", started_at=at("09:00:00") + DAY),
    )
    columns = "agent_id, calls, answered, answer_rate, completed, completion_rate, transferred, transfer_rate, place"
    rows = shown(lake, f"kpi_agent where date = '{THURSDAY}'", columns, "agent_id")
    assert rows == [
        ("a", 10, 8, 0.8, 8, 0.8, 0, 0.0, 1),
        ("b", 1, 1, 1.0, 1, 1.0, 0, 0.0, 2),
        ("c", 1, 1, 1.0, 1, 1.0, 0, 0.0, 2),
        ("d", 1, 1, 1.0, 0, 0.0, 1, 1.0, 4),
    ]
    (a,) = lake.rows(f"select * from kpi_agent where agent_id = 'a' and date = '{THURSDAY}'")
    # Wilson's interval of 8 of 10 is 0.4902 to 0.9433.
    assert (a["completion_rate_low"], a["completion_rate_high"]) == pytest.approx(
        (0.49016, 0.94332), abs=1e-5
    )
    assert (a["talk_seconds_total"], a["talk_known"], a["talk_seconds_avg"]) == (240.0, 8, 30.0)


def test_the_service_level_counts_waits_of_exactly_the_threshold(lake: Any) -> None:
    nine = at("09:00:00")
    lake.hot(
        heard("1", nine, answered_at=at("09:00:05")),  # exactly 5 s
        heard("2", nine, answered_at=at("09:00:05.000001")),
        heard("3", nine, queued_at=at("08:59:00"), answered_at=at("09:00:01")),  # waited since it was queued
        heard("4", nine),  # answered, but when?
        heard("5", nine, answered_at=at("08:59:59")),  # clocks disagree: not knowable
        missed("6", "abandoned", direction="inbound", started_at=nine, ended_at=at("09:00:08")),
        missed("7", "abandoned", direction="inbound", started_at=nine, ended_at=at("09:05:00")),
        missed("8", "abandoned", direction="inbound", started_at=nine, ended_at=None, closed_by="timeout"),
    )
    columns = (
        "within_seconds, calls, answered, answered_timed, answered_within, unanswered_within, offered, "
        "service_level, answered_within_rate"
    )
    assert shown(lake, "kpi_service_level", columns) == [
        (5, 8, 5, 3, 1, 0, 6, 1 / 6, 1 / 3),
        (10, 8, 5, 3, 2, 1, 6, 2 / 6, 2 / 3),
        (20, 8, 5, 3, 2, 1, 6, 2 / 6, 2 / 3),
        (30, 8, 5, 3, 2, 1, 6, 2 / 6, 2 / 3),
        (60, 8, 5, 3, 2, 1, 6, 2 / 6, 2 / 3),
        (120, 8, 5, 3, 3, 1, 6, 3 / 6, 1.0),
    ]


def test_without_any_known_wait_there_is_no_service_level(lake: Any) -> None:
    lake.hot(heard("1", at("09:00:00")), missed("2", direction="inbound"), missed("3", provider="recho"))
    columns = "provider, calls, offered, service_level, answered_within_rate"
    assert shown(lake, "kpi_service_level where within_seconds = 20", columns) == [
        ("recho", 1, 1, 0.0, None),  # nobody answered: that is known
        ("whippy", 2, 0, None, None),
    ]


def test_weeks_are_compared_with_newcombes_interval(lake: Any) -> None:
    monday = at("00:00:00") + timedelta(days=4)
    lake.hot(
        *(call(f"a{n}", started_at=monday - DAY) for n in range(48)),
        *(missed(f"b{n}", started_at=monday - timedelta(days=2)) for n in range(32)),
        *(call(f"c{n}", started_at=monday) for n in range(56)),
        *(missed(f"d{n}", started_at=monday) for n in range(14)),
        call("later", started_at=monday + timedelta(days=20)),
    )
    before, week, later = lake.rows("select * from kpi_week_over_week order by week")
    assert (before["week"], week["week"], later["week"]) == (
        date(2026, 3, 2),
        date(2026, 3, 9),
        date(2026, 3, 23),
    )
    now, last = (
        ("days", "calls", "answered", "answer_rate"),
        ("days_before", "calls_before", "answered_before"),
    )
    assert [week[name] for name in now] == [1, 70, 56, 0.8]
    assert [week[name] for name in (*last, "answer_rate_before")] == [2, 80, 48, 0.6]
    # Newcombe (1998), table II, column a: 56/70 - 48/80, method 10.
    assert week["answer_rate_change"] == pytest.approx(0.2)
    assert week["answer_rate_change_low"] == pytest.approx(0.0524, abs=5e-5)
    assert week["answer_rate_change_high"] == pytest.approx(0.3339, abs=5e-5)
    # 70 of the 150 calls are of this week: Wilson gives 0.3887 to 0.5463, as odds 0.636 to 1.204.
    ratios = [week[name] for name in ("calls_ratio", "calls_ratio_low", "calls_ratio_high")]
    assert ratios == pytest.approx([0.875, 0.6358, 1.2043], abs=5e-4)
    for alone in (before, later):  # a week between without calls is no week before
        assert [alone[name] for name in (*last, "answer_rate_before")] == [0, 0, 0, None]
        assert [value for name, value in alone.items() if "change" in name or "ratio" in name] == [None] * 6

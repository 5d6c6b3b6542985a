"""Each check finds the row that breaks its rule, and nothing in a lake that is right."""

import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.query.checks import checks, run_checks

_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]

OPEN: dict[str, Any] = {
    "state": "ringing",
    "outcome": None,
    "closed_by": None,
    "end_trigger": None,
    "is_answered": None,
    "answered_by": None,
}

BROKEN: dict[str, list[dict[str, Any]]] = {
    "calls_answered_before_ringing": [call("1", ringing_at=at("09:00:05"), answered_at=at("09:00:01"))],
    "calls_ended_before_begun": [call("1", started_at=at("09:00:05"), ended_at=at("09:00:01"))],
    "calls_negative_duration": [call("1", talk_seconds=-1.0)],
    "calls_talk_without_answer": [call("1", is_answered=False, answered_by=None, talk_seconds=3.0)],
    "calls_without_closing": [call("1", closed_by=None)],
    "open_calls_with_result": [call("1", state="ringing", closed_by=None, end_trigger=None)],
    "calls_failure_class_wrong": [call("1", failure_class="recipient")],
    "calls_unknown_word": [call("1", direction="sideways")],
    "calls_leg_without_parent": [call("1", is_root=False)],
    "calls_orphan_leg": [call("1", parent_call_id="elsewhere")],
    "calls_wrong_date": [call("1", date=at("00:00:00").date().replace(day=4))],
    "calls_wrong_key": [call("1", call_key="recho:1")],
    "calls_ended_without_end": [call("1", ended_at=None)],
    "open_calls_with_end": [call("1", **OPEN, ended_at=at("09:01:00"))],
    "calls_success_without_answer": [call("1", is_answered=None, answered_by=None)],
    "calls_answered_and_missed": [call("1", outcome="busy", failure_class="recipient")],
    "calls_forwarded_untransferred": [call("1", outcome="forwarded")],
    "calls_impossible_count": [call("1", attempts=0)],
    "calls_impossible_time": [call("1", answered_at=datetime(1970, 1, 21, tzinfo=UTC))],
    "calls_missing_fact": [call("1", channel=None)],
    "calls_own_parent": [call("1", parent_call_id="1")],
    "calls_talk_longer_than_call": [call("1", talk_seconds=62.5, total_seconds=60.0)],
}


def _found(lake: Any, *, as_tables: bool = True) -> dict[str, tuple[int, tuple[str, ...]]]:
    """What the checks find in tables of what the views show, or in the views themselves."""
    with lake.tables(*(check.sql for check in checks())) if as_tables else lake.connect() as connection:
        return {finding.check.name: (finding.rows, finding.examples) for finding in run_checks(connection)}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_check_finds_the_row_that_breaks_it(lake: Any, name: str) -> None:
    lake.hot(*BROKEN[name])
    lake.events_of(*BROKEN[name])
    found = _found(lake)
    assert found[name] == (1, (BROKEN[name][0]["call_key"],))


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"first_event_at": at("10:00:01")}, "calls_impossible_time"),
        ({"ended_at": datetime(2100, 1, 1, tzinfo=UTC)}, "calls_impossible_time"),
        ({"event_count": 0}, "calls_impossible_count"),
        ({"revision": 0}, "calls_impossible_count"),
        ({"error_count": -1}, "calls_impossible_count"),
        ({"error_count": None}, "calls_impossible_count"),
        ({"is_transferred": None}, "calls_forwarded_untransferred"),
        ({"state": None}, "calls_missing_fact"),
        ({"is_root": None}, "calls_missing_fact"),
        ({"first_event_at": None}, "calls_missing_fact"),
    ],
)
def test_each_side_of_a_rule_is_looked_at(lake: Any, columns: dict[str, Any], name: str) -> None:
    lake.hot(call("1", **{"date": at("00:00:00").date(), **columns}))
    assert _found(lake)[name] == (1, ("whippy:1",))


def test_calls_and_their_events_must_agree(lake: Any) -> None:
    right, more, none = call("right"), call("more", event_count=1), call("none")
    bus = call("bus", provider="aircall_bus", stream_key="aircall_bus:41000")
    lake.hot(right, more, none, bus)
    lake.events_of(right, more | {"event_count": 2}, call("gone"), call("gone", event_count=1))
    connection = lake.tables("all_calls call_events")
    (check,) = (check for check in checks() if check.name == "calls_disagree_with_events")
    assert connection.sql(f"select * from ({check.sql}) order by 1").fetchall() == [
        ("whippy:gone", None, 3, "events without a call"),
        ("whippy:more", 1, 2, "a call of more or fewer events"),
        ("whippy:none", 3, None, "a call without events"),
    ]
    connection.close()
    assert _found(lake) == {"calls_disagree_with_events": (3, ("whippy:gone", "whippy:more", "whippy:none"))}


def test_a_webhook_that_the_code_failed_on_is_found(lake: Any) -> None:
    lake.write(
        "quarantine/hot",
        [
            {"webhook_id": name, "code": code, "published_at": at("09:00:00")}
            for name, code in (("a", "internal_error"), ("b", "not_json"))
        ],
    )
    assert _found(lake) == {"quarantine_internal_errors": (1, ("a",))}


def test_nan_is_no_duration(lake: Any) -> None:
    lake.hot(call("1", talk_seconds=float("nan"), ring_seconds=1.0))
    assert "calls_negative_duration" in _found(lake)


def test_a_call_in_two_sealed_files_is_found(lake: Any) -> None:
    lake.sealed(call("1"))
    lake.sealed(call("1"))
    lake.sealed(call("2"))
    lake.sealed(call("2", state="ringing", outcome=None, closed_by=None, end_trigger=None))
    lake.events_of(call("1"), call("2"))
    assert _found(lake) == {"calls_twice": (1, ("whippy:1",)), "calls_open_and_ended": (1, ("whippy:2",))}


def test_every_check_is_tried_here() -> None:
    assert {check.name for check in checks()} == {
        *BROKEN,
        "calls_twice",
        "calls_open_and_ended",
        "calls_disagree_with_events",
        "quarantine_internal_errors",
    }


def test_a_right_lake_passes_every_check(lake: Any) -> None:
    rows = [
        call(
            "1",
            ringing_at=at("09:00:01"),
            answered_at=at("09:00:04"),
            ended_at=at("09:01:00"),
            talk_seconds=56.0,
            total_seconds=60.0,
        ),
        call("leg", parent_call_id="1"),
        call("forwarded", outcome="forwarded", is_transferred=True),
        call("open", **OPEN),
        call("late", started_at=None),
        call("silent", closed_by="timeout", outcome="unknown", failure_class="unknown", ended_at=None),
    ]
    lake.hot(*rows, call("never", is_retracted=True))
    lake.events_of(*rows)
    assert _found(lake) == {}
    assert _found(lake, as_tables=False) == {}


def test_an_empty_lake_passes_every_check(lake: Any) -> None:
    assert _found(lake) == {}


def test_only_a_few_examples_are_named(lake: Any) -> None:
    lake.hot(*(call(str(number), talk_seconds=-1.0) for number in range(9)))
    assert _found(lake)["calls_negative_duration"] == (9, ("whippy:0", "whippy:1", "whippy:2"))

"""Each check finds the row that breaks its rule, and nothing in a lake that is right."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from pipeline.query.checks import checks, run_checks

_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]

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
}


def _found(lake: Any) -> dict[str, tuple[int, tuple[str, ...]]]:
    connection = lake.connect()
    try:
        return {finding.check.name: (finding.rows, finding.examples) for finding in run_checks(connection)}
    finally:
        connection.close()


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_check_finds_the_row_that_breaks_it(lake: Any, name: str) -> None:
    lake.hot(*BROKEN[name])
    found = _found(lake)
    assert found[name] == (1, (BROKEN[name][0]["call_key"],))


def test_nan_is_no_duration(lake: Any) -> None:
    lake.hot(call("1", talk_seconds=float("nan"), ring_seconds=1.0))
    assert "calls_negative_duration" in _found(lake)


def test_a_call_in_two_sealed_files_is_found(lake: Any) -> None:
    lake.sealed(call("1"))
    lake.sealed(call("1"))
    lake.sealed(call("2"))
    lake.sealed(call("2", state="ringing", outcome=None, closed_by=None, end_trigger=None))
    assert _found(lake) == {"calls_twice": (1, ("whippy:1",)), "calls_open_and_ended": (1, ("whippy:2",))}


def test_every_check_is_tried_here() -> None:
    assert {check.name for check in checks()} == {*BROKEN, "calls_twice", "calls_open_and_ended"}


def test_a_right_lake_passes_every_check(lake: Any) -> None:
    lake.hot(
        call(
            "1",
            ringing_at=at("09:00:01"),
            answered_at=at("09:00:04"),
            ended_at=at("09:01:00"),
            talk_seconds=56.0,
        ),
        call("leg", parent_call_id="1"),
        call(
            "open",
            state="ringing",
            outcome=None,
            closed_by=None,
            end_trigger=None,
            is_answered=None,
            answered_by=None,
        ),
        call("late", started_at=None),
    )
    assert _found(lake) == {}


def test_an_empty_lake_passes_every_check(lake: Any) -> None:
    assert _found(lake) == {}


def test_only_a_few_examples_are_named(lake: Any) -> None:
    lake.hot(*(call(str(number), talk_seconds=-1.0) for number in range(9)))
    assert _found(lake)["calls_negative_duration"] == (9, ("whippy:0", "whippy:1", "whippy:2"))

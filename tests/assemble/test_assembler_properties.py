"""Any order, any repeats, any borders between flushes, any restart: the same records, and the oracle's."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

world = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "world.py")))

MONDAY_US = 1_772_409_600_000_000
DISTURBANCES = [(), (0.2, 0.2, 0.1, 0.1), (0.0, 0.5, 0.3, 0.0), (0.3, 0.0, 0.3, 0.2)]
the_same_each_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def courses(draw: Any, length: int) -> Any:
    places = draw(st.lists(st.integers(0, length - 1), max_size=8, unique=True))
    kinds = st.sampled_from(["flush", "flush", "flush", "restart", "crash", "torn"])
    return world.Course({place: draw(kinds) for place in places})


traffics = st.tuples(st.just(40), st.integers(1, 5)).flatmap(
    lambda told: st.sampled_from(DISTURBANCES).map(lambda shares: (*told, *shares))
)


@settings(the_same_each_time, max_examples=8)
@given(traffics, courses(150), st.sampled_from([0, 5, 300, 14_400]))
def test_webhooks_in_their_order_come_to_the_truth_however_they_are_flushed(
    traffic: Any, course: Any, grace: int
) -> None:
    lake = world.run(world.simulated(*traffic), course, grace_us=grace * world.SECOND)
    assert lake.calls() == world.simulated_truth(*traffic)
    assert_revisions_rise(lake)


@settings(the_same_each_time, max_examples=8)
@given(traffics, courses(150), st.integers(0, 2**32), st.floats(0, 0.5))
def test_webhooks_in_any_order_and_repeated_come_to_the_truth(
    traffic: Any, course: Any, seed: int, repeats: float
) -> None:
    lines = world.shuffled(world.simulated(*traffic), seed, repeats)
    calls, truth = world.run(lines, course).calls(), world.simulated_truth(*traffic)
    # The revision is pushed up where what was published before was, by the receipts, not yet to be known.
    assert world.without(calls, "revision") == world.without(truth, "revision")
    assert all(row["revision"] >= truth[key]["revision"] for key, row in calls.items())
    # In one flush nothing was published before.
    assert world.run(lines, world.Course({})).calls() == truth


@settings(the_same_each_time, max_examples=10)
@given(traffics, courses(150), st.sampled_from([30, 600, 3_600]))
def test_with_a_short_patience_calls_close_and_reopen_as_the_oracle_has_it(
    traffic: Any, course: Any, idle: int
) -> None:
    lake = world.run(world.simulated(*traffic), course, idle_us=idle * world.SECOND)
    assert lake.calls() == world.simulated_truth(*traffic, idle_us=idle * world.SECOND)
    assert_revisions_rise(lake)


def assert_revisions_rise(lake: Any) -> None:
    newest: dict[str, Any] = {}
    for _, record, is_retracted in lake.rows:
        before = newest.get(record.call_key)
        if is_retracted:
            assert before == record, "what is retracted is what was published last"
        elif before is not None and record != before:
            # A late event may take events, and silences between them, away from an agent's call.
            has_lost = record.event_count < before.event_count
            assert record.revision > before.revision - has_lost, (before, record)
        newest[record.call_key] = record


@st.composite
def bus_streams(draw: Any) -> Any:
    """An agent's stream of any words, with the relay's sessions, idle gaps, and receipts out of order."""
    words = draw(st.lists(st.sampled_from(world.BUS_WORDS), min_size=1, max_size=30))
    sent_us, calls, seqs, session = MONDAY_US, 0, {}, "s0"
    lines = []
    for word in words:
        sent_us += draw(st.sampled_from([1, 10, 200, 20_000])) * world.SECOND
        if draw(st.integers(0, 9)) == 0:
            session = draw(st.sampled_from(["s0", "s1", "s2"]))
        seqs[session] = seq = seqs.get(session, 0) + 1
        lag_us = draw(st.sampled_from([0, 0, 0, 0, 30, 700, 50_000])) * world.SECOND + len(lines)
        # Each call has an id of its own; details may name the one before.
        calls += word == "INCOMING"
        uuid = f"u{calls - (word == 'SYNC' and draw(st.integers(0, 1)))}" if draw(st.integers(0, 3)) else None
        lines.append(world.bus_line(word, seq, sent_us, sent_us + lag_us, uuid=uuid, session=session))
    return sorted(lines, key=lambda line: line["received_at"])


@st.composite
def bus_runs(draw: Any) -> Any:
    lines = draw(bus_streams())
    return lines, draw(courses(len(lines)))


def assert_events_stand_under_their_calls(lake: Any, idle_us: int) -> None:
    from pipeline.assemble.cut import fold_stream

    events = lake.remember({"aircall_bus:agent:7"})["aircall_bus:agent:7"].events
    place = {event.event_id: None for event in events}
    for record, its_own in fold_stream(events, as_of_us=0, idle_us=idle_us):
        place |= {event.event_id: record.call_key for event in its_own}
    assert lake.placed == place


@settings(the_same_each_time, max_examples=150)
@given(bus_runs(), st.sampled_from([0, 60, 14_400]))
def test_any_stream_of_an_agent_is_cut_as_the_oracle_cuts_it(run: Any, grace: int) -> None:
    lines, course = run
    lake = world.run(lines, course, grace_us=grace * world.SECOND)
    truth = world.expected(lines)
    assert world.differences(lake.calls(), truth) == []
    assert_events_stand_under_their_calls(lake, world.IDLE_US)
    assert_revisions_rise(lake)


@settings(the_same_each_time, max_examples=50)
@given(bus_runs(), st.integers(0, 2**32))
def test_a_shuffled_stream_of_an_agent_comes_to_the_same(run: Any, seed: int) -> None:
    lines, course = run
    lake = world.run(world.shuffled(lines, seed, 0.3), course, grace_us=0)
    truth = world.expected(lines)
    assert world.differences(world.without(lake.calls(), "revision"), world.without(truth, "revision")) == []
    assert_events_stand_under_their_calls(lake, world.IDLE_US)
    once = world.run(world.shuffled(lines, seed, 0.3), world.Course({}))
    assert world.differences(once.calls(), truth) == []


@settings(the_same_each_time, max_examples=60)
@given(bus_runs())
def test_letting_go_of_an_agents_older_calls_changes_nothing(run: Any) -> None:
    lines, course = run
    trimmed = world.run(lines, course, grace_us=0)
    whole = world.run(lines, course, grace_us=world.IDLE_US * 1000)
    assert world.differences(trimmed.calls(), whole.calls()) == []
    assert trimmed.placed == whole.placed


@settings(the_same_each_time, max_examples=50)
@given(bus_runs())
def test_taking_the_same_webhooks_again_publishes_nothing(run: Any) -> None:
    lines, course = run
    lake = world.run(lines, course)
    rows = len(lake.rows)
    world.run(lines, world.Course({len(lines) - 1: "restart"}), lake=lake)
    assert lake.rows[rows:] == []

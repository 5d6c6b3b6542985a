"""What the assembler keeps, forgets, brings back and leaves alone."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.assemble import memory
from pipeline.assemble.cut import _shaped_by, cut, in_stream_order
from pipeline.assemble.fold import FOREVER_US

world = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "world.py")))

MONDAY_US = 1_772_409_600_000_000
SECOND = world.SECOND


def recho(event_type: str, at_us: int, **data: Any) -> dict[str, Any]:
    told = {"data": {"callId": "r1", **data}, "eventType": event_type, "callStatus": event_type}
    return {
        "provider": "recho",
        "received_at": world.instant.to_text(at_us),
        "body": {"eventType": event_type, "callStatus": event_type, "body": told, **told},
    }


def bus(words: str, start_us: int = MONDAY_US, first_seq: int = 1) -> list[dict[str, Any]]:
    """Words a second apart, received at once."""
    return [
        world.bus_line(
            word, first_seq + place, start_us + place * SECOND, start_us + place * SECOND, uuid=None
        )
        for place, word in enumerate(words.split())
    ]


def call_of(provider: str) -> tuple[list[Any], dict[str, Any]]:
    """The lines of one ended call of several events, and its truth."""
    lines, truth = world.simulated(40, 1), world.simulated_truth(40, 1)
    for key, record in sorted(truth.items()):
        if record["provider"] == provider and record["event_count"] > 2 and record["closed_by"] == "terminal":
            own = [line for line in lines if any(e.stream_key == key for e in world.events_of(line))]
            return own, record
    raise AssertionError(provider)


@pytest.mark.parametrize("provider", ["interactly", "recho", "whippy"])
def test_a_fact_that_comes_days_later_brings_the_call_back_and_is_the_next_revision(provider: str) -> None:
    lines, truth = call_of(provider)
    lake = world.MemoryLake()
    worker = world.assembler(lake)
    late = lines[0]
    for line in lines[1:]:
        worker.add(0, world.events_of(line))
    lake.write(worker.collect(lambda _: MONDAY_US))
    before = lake.calls()[truth["call_key"]]["revision"]
    days_later_us = MONDAY_US + 9 * 86_400 * SECOND
    assert not worker.collect(lambda _: days_later_us)
    assert len(worker) == 0, "after its grace the call is no longer in memory"
    worker.add(0, world.events_of(late))
    lake.write(worker.collect(lambda _: days_later_us))
    row = lake.calls()[truth["call_key"]]
    assert row["revision"] == before + 1
    assert row == truth


def test_a_stream_that_left_memory_before_it_was_written_is_remembered_all_the_same() -> None:
    lines, truth = call_of("recho")
    lake = world.MemoryLake()
    worker = world.assembler(lake)
    for line in lines[:-1]:
        worker.add(0, world.events_of(line))
    # The partition is far behind: the call is over its patience at its first flush, and the lake is away.
    unwritten = worker.collect(lambda _: FOREVER_US)
    assert len(worker) == 0
    worker.add(0, world.events_of(lines[-1]))
    lake.write(unwritten)
    lake.write(worker.collect(lambda _: FOREVER_US))
    assert lake.calls()[truth["call_key"]]["event_count"] == truth["event_count"]


def test_a_silent_call_is_closed_on_the_datas_time_and_a_late_event_reopens_it() -> None:
    lake = world.MemoryLake()
    worker = world.assembler(lake)
    first, late = bus("DIALING")[0], bus("connected", MONDAY_US + 20_000 * SECOND, 2)[0]
    worker.add(0, world.events_of(first))
    key = None
    told = []
    for at_us in (MONDAY_US, MONDAY_US + world.IDLE_US - 1, MONDAY_US + world.IDLE_US):
        lake.write(worker.collect(lambda _, at=at_us: at))  # type: ignore[misc]
        (key,) = lake.calls()
        told.append(
            (lake.calls()[key]["state"], lake.calls()[key]["closed_by"], lake.calls()[key]["revision"])
        )
    assert told == [("queued", None, 1), ("queued", None, 1), ("ended", "timeout", 2)]
    worker.add(0, world.events_of(late))
    lake.write(worker.collect(lambda _: MONDAY_US + 20_000 * SECOND))
    row = lake.calls()[key]
    assert (row["state"], row["closed_by"], row["revision"]) == ("in_progress", None, 3)


def test_a_repeat_seen_at_an_earlier_time_does_not_reopen_what_was_closed_by_timeout() -> None:
    lake = world.MemoryLake()
    lines = bus("DIALING ringing")
    world.run(lines, world.Course({}), lake=lake)
    closing = world.assembler(lake)
    closing.restore(0, lake.remember(lake.open_streams()))
    lake.write(closing.collect(lambda _: FOREVER_US))
    closed = lake.calls()
    assert [row["closed_by"] for row in closed.values()] == ["timeout"]
    again = world.assembler(lake)
    for line in lines:
        again.add(0, world.events_of(line))
    assert not again.collect(lambda _: MONDAY_US)
    assert lake.calls() == closed


def test_a_retracted_call_leaves_the_calls_and_a_repeat_does_not_bring_it_back() -> None:
    # Two calls, until the middle shows that the second beginning was of the first call.
    lines = [*bus("DIALING"), *bus("connecting", MONDAY_US + 20_000 * SECOND, 3)]
    middle = bus("ringing", MONDAY_US + 10_000 * SECOND, 2)
    middle[0]["received_at"] = world.instant.to_text(MONDAY_US + 20_001 * SECOND)
    lake = world.run(lines, world.Course({}))
    assert len(lake.calls()) == 2
    world.run([*lines, *middle], world.Course({2: "restart"}), lake=lake)
    assert list(lake.calls()) == list(world.expected([*lines, *middle]))
    assert [is_retracted for *_, is_retracted in lake.rows].count(True) == 1
    assert set(lake.placed.values()) == set(lake.calls()), "its events stand under the call that they are of"
    rows = len(lake.rows)
    world.run([*lines, *middle], world.Course({1: "crash"}), lake=lake)
    assert len(lake.rows) == rows


def test_what_an_uncommitted_event_came_to_is_told_again_by_whoever_takes_it_next() -> None:
    # The worker before wrote the files of all this, and died before it had told of it.
    first = bus("DIALING ringing")
    between = [*bus("DIALING"), *bus("connecting", MONDAY_US + 20_000 * SECOND, 3)]
    middle = bus("ringing", MONDAY_US + 10_000 * SECOND, 2)
    middle[0]["received_at"] = world.instant.to_text(MONDAY_US + 20_001 * SECOND)
    for lines, redelivered, tombstones in ((first, first[1:], 0), ([*between, *middle], middle, 1)):
        as_of_us = world.instant.from_text(lines[-1]["received_at"])
        lake = world.run(lines, world.Course(dict.fromkeys(range(len(lines)), "flush")))
        rows = len(lake.rows)
        next_one = world.assembler(lake)
        for line in redelivered:
            next_one.add(0, world.events_of(line))
        changes = next_one.collect(lambda _, at=as_of_us: at)  # type: ignore[misc]
        told = dict(changes.repeated)
        assert not changes, "nothing is written again"
        assert {key: world.as_row(record) for key, record in told.items() if record} == lake.calls()
        assert list(told.values()).count(None) == tombstones
        lake.write(changes)
        assert len(lake.rows) == rows
        assert not next_one.collect(lambda _, at=as_of_us: at).repeated, "once is enough"


def test_only_a_call_cut_anew_may_turn_out_never_to_have_been() -> None:
    worker = world.assembler(world.MemoryLake())
    lines = bus("DIALING ringing")
    for line in [*lines, *call_of("interactly")[0]]:
        worker.add(0, world.events_of(line))
    changes = worker.collect(lambda _: MONDAY_US)
    assert {key.partition(":")[0] for key in changes.uncertain} == {"aircall_bus"}
    assert len(changes.records) > len(changes.uncertain)
    closed = worker.collect(lambda _: FOREVER_US)
    assert [record.closed_by for _, record in closed.records if record.provider == "aircall_bus"] == [
        "timeout"
    ]
    assert closed.uncertain == set(), "it is in the lake, and whoever closes it again can withdraw it"


def test_both_begins_of_the_next_call_come_late_and_the_revision_is_the_same_however_it_is_flushed() -> None:
    lines = bus(
        "DIALING ringing connected hanging ended DIALING connecting ringing connected SYNC hanging ended"
    )
    # The details of the second call are the first's until one of its two beginnings comes.
    order = [*range(5), 7, 9, 8, 10, 11, 6, 5]
    late = [
        line | {"received_at": world.instant.to_text(MONDAY_US + (100 + place) * SECOND)}
        for place, line in enumerate(lines[index] for index in order)
    ]
    truth = world.expected(late)
    at_once = world.run(late, world.Course({}))
    one_by_one = world.run(late, world.Course(dict.fromkeys(range(len(late)), "flush")))
    assert at_once.calls() == truth
    assert one_by_one.calls() == truth
    assert len({record.event_count for _, record, _ in one_by_one.rows}) > 5


def test_details_that_go_back_to_the_call_before_leave_the_same_revision_however_it_is_flushed() -> None:
    words = "INCOMING accepting connected hanging ended accepting SYNC connected hanging ended"
    ids = {0: "first", 6: "first"}
    lines = [
        world.bus_line(word, seq, MONDAY_US + seq * SECOND, MONDAY_US + seq * SECOND, uuid=ids.get(seq))
        for seq, word in enumerate(words.split())
    ]
    # The first event names the first call, and comes last: until then the details are taken for the second's.
    lines.append(lines.pop(0) | {"received_at": world.instant.to_text(MONDAY_US + 100 * SECOND)})
    truth = world.expected(lines)
    assert world.run(lines, world.Course({})).calls() == truth
    one_by_one = world.run(lines, world.Course(dict.fromkeys(range(len(lines)), "flush")))
    assert one_by_one.calls() == truth


def test_an_agents_older_calls_leave_memory_even_if_the_agent_never_pauses() -> None:
    lake = world.MemoryLake()
    worker = world.assembler(lake)
    lines = bus("DIALING ringing connected hanging ended " * 150)
    for place, line in enumerate(lines):
        worker.add(0, world.events_of(line))
        if place % 50 == 0:
            at_us = MONDAY_US + place * SECOND
            lake.write(worker.collect(lambda _, at=at_us: at))  # type: ignore[misc]
            (stream,) = worker._streams.values()
            assert len(stream.events) <= world.GRACE_US // SECOND + 70
    assert lake.asked == [], "nothing had to be read again"
    lake.write(worker.collect(lambda _: MONDAY_US + len(lines) * SECOND))
    assert lake.calls() == world.expected(lines)


def test_details_of_a_call_that_was_let_go_of_find_it_again() -> None:
    lines = bus("INCOMING accepting connected ended " * 6)
    for number, line in enumerate(line for line in lines if "INCOMING" in line["body"]["event"]["type"]):
        line["body"]["event"]["payload"]["callUuid"] = f"u{number}"
    details = bus("SYNC", MONDAY_US + 25 * SECOND, 25)
    details[0]["body"]["event"]["payload"]["metadata"]["callUuid"] = "u3"
    late = world.bus_line(
        "SYNC", 30, MONDAY_US + 22 * SECOND, MONDAY_US + 9_000 * SECOND, uuid="u4", session="t"
    )
    every = [*lines, *details, late]
    lake = world.run(every, world.Course({23: "flush", 24: "flush"}), grace_us=0)
    assert lake.calls() == world.expected(every)


def test_only_what_changed_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    folded: list[int] = []
    fold = memory._fold
    monkeypatch.setattr(
        memory, "_fold", lambda events, *rest: folded.append(len(events)) or fold(events, *rest)
    )
    lines = world.simulated(40, 2)
    lake = world.MemoryLake()
    worker = world.assembler(lake)
    for line in lines:
        worker.add(0, world.events_of(line))
    newest_us = max(world.instant.from_text(line["received_at"]) for line in lines)
    lake.write(worker.collect(lambda _: MONDAY_US))
    streams = len(folded)
    for at_us in range(MONDAY_US, newest_us, 3_600 * SECOND):
        worker.collect(lambda _, at=at_us: at)  # type: ignore[misc]
    left_open = sum(row["state"] != "ended" for row in lake.calls().values())
    assert len(folded) - streams <= left_open, (
        "a call that is going on is folded once more, when it times out"
    )


class Counted(list[Any]):
    """A list that counts how often it is looked into."""

    looks = 0

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        return super().__getitem__(place)


def test_the_revisions_of_a_long_stream_take_a_look_or_two_at_each_event() -> None:
    lines = bus("DIALING ringing connected ended " * 200)
    ordered = Counted(in_stream_order(event for line in lines for event in world.events_of(line)))
    earliest = [event.received_us for event in ordered]
    calls = cut(ordered, world.IDLE_US)
    assert {_shaped_by(call, None, ordered, earliest, {}) for call in calls} == {4}
    assert ordered.looks < 4 * len(lines)


def test_partitions_that_another_worker_has_are_forgotten() -> None:
    worker = world.assembler(world.MemoryLake())
    lines = world.simulated(40, 1)
    for place, line in enumerate(lines):
        worker.add(place % 3, world.events_of(line))
    worker.drop([0, 1, 2])
    assert len(worker) == 0
    assert not worker.collect(lambda _: FOREVER_US)


def test_a_crash_between_an_event_and_its_record_is_made_good_when_the_event_comes_again() -> None:
    lake = world.MemoryLake()
    lines = bus("DIALING ringing connected")
    world.run(lines, world.Course({0: "flush", 1: "torn"}), lake=lake)
    assert lake.calls() == world.expected(lines)

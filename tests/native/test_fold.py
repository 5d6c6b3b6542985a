"""The compiled fold and cut give what Python's give, for every set of events, also such as no provider sends."""

import random
import runpy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings

from pipeline.assemble.cut import Settled, cut, fold_stream, in_stream_order
from pipeline.assemble.fold import FOREVER_US, fold
from pipeline.model import FORGOTTEN, OUTCOMES, STATE_RANK, CallEvent, CallRecord

native = pytest.importorskip("pipeline.native._native")

ASSEMBLE = Path(__file__).parents[1] / "assemble"
plainly = SimpleNamespace(**runpy.run_path(str(ASSEMBLE / "test_fold_is_plain.py")))
lives = SimpleNamespace(**runpy.run_path(str(ASSEMBLE / "lives.py")))
world = plainly.world

LEAST, MOST = -(2**63), 2**63 - 1
EDGES = [LEAST, LEAST + 1, -(2**53), -1, 0, 1, 2**53 + 1, 10**16 + 7, FOREVER_US, MOST - 1, MOST]
FLAGS = [True, False]
NAMES = [None, None, "a", "b", "", "é", "\U0001f600", "a name that is too long to be held in place"]
NUMBERS = [None, 0.0, -0.0, 1.5, 60.0]
POOLS: dict[str, list[Any]] = {
    "call_id": NAMES,
    "at_source": ["provider", "provider", "received", "odd", ""],
    "raw_status": NAMES,
    "state": [None, *STATE_RANK, "ended", "ended"],
    "start_is_first_event": FLAGS,
    "end_rank": [0, 1, -1],
    "outcome": [None, *OUTCOMES],
    "unanswered_outcome": [None, "", *OUTCOMES],
    "failure_reason": NAMES,
    "end_trigger": [None, "agent", "customer", "", "odd"],
    "answer_evidence": [None, True, False],
    "transferred": FLAGS,
    "attempt_id": NAMES,
    "leg": NAMES,
    "errors": [(), (), ("x",), ("x", "y"), ("z", "x", "z"), ("",)],
    "reported_seconds": NUMBERS,
    "fact_rank": [0, 0, 0, 1, 2, -1, -2],
    "talk_is_reported": FLAGS,
    "total_is_reported": FLAGS,
    "provider_call_id": NAMES,
    "parent_call_id": NAMES,
    "account_id": NAMES,
    "agent_id": NAMES,
    "direction": [None, "inbound", "outbound", "outbound", "internal", "", "odd"],
    "channel": [None, "phone", "web", "", "odd"],
    "from_number": NAMES,
    "to_number": NAMES,
    "recording_url": NAMES,
    "has_analysis": FLAGS,
    "success_evaluation": NAMES,
    "cost_total": NUMBERS,
}
TIMES = ["queued_us", "ringing_us", "started_us", "answered_us", "hangup_us", "ended_us"]
WORDS = ["begin", "begin", "end", "connected", "merging", "sync", "sync", None, "odd", ""]


def odd_events(dice: random.Random, count: int, *always: str) -> list[CallEvent]:
    """Events that say some kinds of things, out of small pools, so that much is said more than once."""
    kinds = [*always, "state", *dice.sample(sorted(POOLS), dice.randrange(0, 14))]
    timed = dice.sample(TIMES, dice.randrange(0, 5))
    span = dice.choice([1, 5, 40, 40, 10**13])
    is_extreme, has_odd_words = dice.random() < 0.1, dice.random() < 0.02
    says = dice.choice([0.3, 0.8, 1.0])

    def instant() -> int:
        return dice.choice(EDGES) if is_extreme and dice.random() < 0.5 else dice.randrange(-1, span)

    events = []
    for number in dice.sample(range(count), count):
        told: dict[str, Any] = {
            kind: dice.choice(POOLS[kind]) for kind in kinds if kind in always or dice.random() < says
        }
        told |= {kind: instant() for kind in timed if dice.random() < says}
        if has_odd_words and dice.random() < 0.3:
            told |= {dice.choice(["state", "outcome", "unanswered_outcome"]): dice.choice(["odd", ""])}
        if is_extreme and dice.random() < 0.3:
            told |= {dice.choice(["fact_rank", "end_rank"]): dice.choice(EDGES)}
        event = CallEvent(
            event_id=f"{number:03d}é", provider=dice.choice(["p", "p", "whippy"]), stream_key="p:1",
            event_type="t", at_us=instant(), received_us=instant(), **told,
        )  # fmt: skip
        events.append(event)
    return events


def odd_stream(dice: random.Random, count: int) -> list[CallEvent]:
    """An agent's events in any order: sessions, numbers in them that come again, what is erased, receipts at will."""
    kept_apart: list[list[str | None]] = [[None], ["s"], ["s", "t"], [None, "s", "t", ""]]
    sessions = dice.choice(kept_apart)
    uuids = [None, "u", "v", "w", ""]
    events = odd_events(dice, count, "direction")
    for event in events:
        event.cut = dice.choice(WORDS)
        event.provider_call_id = dice.choice(uuids)
        event.session_id = dice.choice(sessions)
        event.seq = None if dice.random() < 0.05 else dice.randrange(-1, count)
        if dice.random() < 0.1:
            event.event_type = FORGOTTEN
        if dice.random() < 0.5:
            event.received_us = event.at_us
    return events


def whens(dice: random.Random) -> dict[str, int]:
    """When the calls are looked at, and after how long a silence one is over."""
    as_of_us = dice.choice([0, 20, 50, 10**13, FOREVER_US, FOREVER_US, dice.choice(EDGES)])
    return {"as_of_us": as_of_us, "idle_us": dice.choice([0, 1, 5, 30, 500, 10**12, dice.choice(EDGES)])}


def compare_folds(events: Sequence[CallEvent], told: dict[str, Any]) -> bool:
    """Whether there was anything to compare: Python makes no record of a state or an outcome that is on no list."""
    found = native.fold(list(events), **told)
    try:
        meant = fold(events, **told)
    except KeyError:
        return False
    assert found == meant
    # Told alike: of the same types, and no float of another sign.
    assert repr(found) == repr(meant)
    return True


def compare_streams(first: list[CallEvent], second: list[CallEvent], told: dict[str, int]) -> int:
    """How many calls there were to compare."""
    settled: dict[str, Settled] = {}
    found, found_twice = native.fold_stream(first, **told), native.fold_stream_twice(first, second, **told)
    try:
        meant = _calls_told(fold_stream(first, settled=settled, **told))
        for held in settled.values():
            held.record.revision = 0
        meant_then = _calls_told(fold_stream(second, settled=settled, **told))
    except KeyError:
        return 0
    assert found == meant
    assert repr(found) == repr(meant)
    # A revision of 0 shows that a call was spared.
    assert found_twice[0] == meant_then
    assert sorted(found_twice[1]) == sorted(settled)
    return len(meant) + len(meant_then)


def _calls_told(
    folded: list[tuple[CallRecord, list[CallEvent]]],
) -> list[tuple[CallRecord, list[str]]]:
    return [(record, [event.event_id for event in events]) for record, events in folded]


def how_many(dice: random.Random) -> int:
    return dice.choice([1, 2, 3, 5, 7, 7, 12, 12, 40, 300 if dice.random() < 0.02 else 9])


def odd_call(seed: int) -> bool:
    """Compares the folds of one call, whole or as one that is cut from a stream."""
    dice = random.Random(seed)
    told: dict[str, Any] = whens(dice)
    if dice.random() < 0.4:
        told["call_id"] = dice.choice(["cut", "", "a name that is too long to be held in place"])
        told["shaped_by"] = dice.choice([None, 0, 1, 9, -3, MOST - 1000])
    return compare_folds(odd_events(dice, how_many(dice)), told)


def odd_agent(seed: int) -> int:
    """Compares the folds of one stream, and of it with something changed."""
    dice = random.Random(seed)
    first = odd_stream(dice, how_many(dice))
    second = dice.sample(first, dice.choice([len(first), len(first) * 9 // 10, len(first) // 2]))
    if dice.random() < 0.5:
        second = list(first)
    return compare_streams(first, second, whens(dice))


@settings(plainly.the_same_each_time, max_examples=200)
@given(plainly.calls())
def test_whatever_the_events_say(events: list[CallEvent]) -> None:
    for as_of_us, idle_us in [(0, 30), (50, 1), (FOREVER_US, 500), (FOREVER_US, 0)]:
        told = {"as_of_us": as_of_us, "idle_us": idle_us}
        assert compare_folds(events, told)
        assert compare_folds(events, told | {"call_id": "cut", "shaped_by": len(events) + 2})


def test_whatever_odd_events_say() -> None:
    assert sum(odd_call(seed) for seed in range(2_500)) > 2_300


def test_over_simulated_traffic_whole_and_in_part() -> None:
    streams: dict[str, dict[str, CallEvent]] = {}
    for line in world.simulated(80, 7, 0.3, 0.3, 0.2, 0.2):
        for event in world.events_of(line):
            streams.setdefault(event.stream_key, {})[event.event_id] = event
    folded = 0
    for events in (list(own.values()) for own in streams.values()):
        calls: list[tuple[list[CallEvent], dict[str, str]]] = [(events, {})]
        if events[0].provider in world.AGENT_PROVIDERS:
            found = cut(in_stream_order(events), world.IDLE_US)
            calls = [(call.events, {"call_id": call.call_id}) for call in found]
            told = {"as_of_us": FOREVER_US, "idle_us": world.IDLE_US}
            folded += compare_streams(events[: len(events) * 2 // 3], events, told)
        for own, named in calls:
            for count in range(1, len(own) + 1):
                for as_of_us in (0, FOREVER_US):
                    told = {"as_of_us": as_of_us, "idle_us": world.IDLE_US}
                    folded += compare_folds(own[:count], told | named)
    assert folded > 500


def live_agent(seed: int) -> int:
    """Compares the folds of a stream of `lives.py` as it grows, with what comes late or again."""
    dice, compared = random.Random(seed), 0
    steps = [step[1] for step in lives.life(seed).steps if step[0] == "add"]
    told = [event for batch in steps for event in batch if event.stream_key == "bus:0"]
    for _ in range(6 if told else 0):
        # Up to some event, then up to another; or some of them, each as one of the times that it came.
        borders = sorted(dice.sample(range(len(told) + 1), 2))
        first, second = (told[:border] for border in borders)
        if dice.random() < 0.3:
            first, second = (dice.sample(told, dice.randrange(len(told) + 1)) for _ in range(2))
        as_of_us = dice.choice([0, 30 * lives.SECOND, 70 * lives.SECOND, FOREVER_US])
        when = {"as_of_us": as_of_us, "idle_us": lives.IDLE_US}
        compared += compare_streams(_distinct(first), _distinct(second), when)
    return compared


def _distinct(events: Sequence[CallEvent]) -> list[CallEvent]:
    return list({event.event_id: event for event in events}.values())


def test_streams_as_they_grow() -> None:
    assert sum(live_agent(seed) for seed in range(120)) > 1_000


def test_odd_streams() -> None:
    assert sum(odd_agent(seed) for seed in range(1_200)) > 1_500


def test_a_word_on_no_list_makes_a_record_all_the_same() -> None:
    told = {"as_of_us": 1, "idle_us": 9}

    def folded(**says: Any) -> CallRecord:
        event = CallEvent(
            event_id="e", provider="p", stream_key="p:1", event_type="t", at_us=1, received_us=1, **says
        )
        record: CallRecord = native.fold([event], **told)
        return record

    assert folded(state="odd").state == "queued"
    record = folded(state="ended", outcome="odd")
    assert (record.outcome, record.failure_class) == ("odd", "unknown")

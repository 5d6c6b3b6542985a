"""The compiled assembler gives what Python's gives, whatever it is given and whenever it is asked."""

import runpy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import native
from pipeline.assemble.assembler import Assembler
from pipeline.model import CallEvent

pytest.importorskip("pipeline.native._native")

ASSEMBLE = Path(__file__).parent.parent / "assemble"
sparing = SimpleNamespace(**runpy.run_path(str(ASSEMBLE / "test_collect_is_plain.py")))
lives, IDLE_US, GRACE_US = sparing.lives, sparing.IDLE_US, sparing.GRACE_US


def stands(worker: Any) -> Any:
    """What was made of the events, as far as it can be seen from outside."""
    return worker.assembler.open_calls(), worker.lake.placed


def seen(worker: Any) -> Any:
    """The same, how many streams are held for it, and what was asked for on the way."""
    return stands(worker), len(worker.assembler), worker.lake.asked


def workers(seed: int, departed: int) -> tuple[Any, Any, Any]:
    """A worker in Python, a compiled one to which so many streams come back, and the steps of a life."""
    grace_us, idle_us, _, steps = lives.life(seed)
    kinds = Assembler, partial(native.Assembler, departed=departed)
    meant, one = (sparing.Worker(kind, grace_us, idle_us) for kind in kinds)
    return meant, one, steps


def assert_nothing_changed_later(worker: Any) -> None:
    for changes, told in worker.handed_out:
        assert sparing.told_by(changes) == told
        assert changes.counts() == (len(changes.events), len(changes.records), len(changes.retracted))
        assert changes.repeats() == len(changes.repeated)


@pytest.mark.parametrize("first", range(10_000, 10_600, 200))
def test_whatever_happens(first: int) -> None:
    for seed in range(first, first + 200):
        meant, one, steps = workers(seed, departed=0)
        for number, step in enumerate(steps):
            where = f"life {seed}, step {number}: {step}"
            assert one.step(*step) == meant.step(*step), where
            assert seen(one) == seen(meant), where
        assert_nothing_changed_later(one)


def by_event(told: Any) -> Any:
    """What a step came to, each stream's events by their ids: one that comes back has its old ones first."""
    if told is None or len(told) == 2:
        return told and by_event(told[0])
    events, *rest = told
    return sorted(events, key=lambda placed: (placed.event.stream_key, placed.event.event_id)), *rest


@pytest.mark.parametrize("first", range(20_000, 20_600, 200))
def test_what_comes_back_is_what_the_lake_would_have_told(first: int) -> None:
    spared = 0
    for seed in range(first, first + 200):
        meant, one, steps = workers(seed, departed=seed % 8 + 1)
        for number, (kind, *told) in enumerate(steps):
            # A repeat of what is known keeps a call that was read again in memory, and no other: so all are asked for.
            step = (kind, told[0], False) if kind == "collect" else (kind, *told)
            where = f"life {seed}, step {number}: {step}"
            assert by_event(one.step(*step)) == by_event(meant.step(*step)), where
            assert stands(one) == stands(meant), where
        assert_nothing_changed_later(one)
        spared += sum(map(len, meant.lake.asked)) - sum(map(len, one.lake.asked))
    assert spared > 200, "calls that would have been read again"


def ringing(number: int, **told: Any) -> CallEvent:
    return CallEvent(
        provider="p", stream_key=f"p:{number}", event_type="t", call_id=f"{number}",
        **({"event_id": f"{number}", "state": "ringing", "at_us": 0, "received_us": 0} | told),
    )  # fmt: skip


def test_a_flush_that_fails_forgets_nothing() -> None:
    worker = native.Assembler(idle_us=IDLE_US, grace_us=GRACE_US, agent_providers=[])
    for number in range(3):
        worker.add(number, [ringing(number)])

    def time_of(partition: int) -> int:
        if partition == 1:
            raise RuntimeError("no time")
        return 0

    with pytest.raises(RuntimeError, match="no time"):
        worker.collect(time_of)
    assert len(worker.collect(lambda _: 0).records) == 3
    with pytest.raises(RuntimeError, match="no time"):
        worker.collect(time_of)
    assert len(worker.collect(lambda _: 2 * IDLE_US).records) == 3, "timeouts"


def departing(**options: Any) -> tuple[Any, list[set[str]]]:
    """An assembler that a call has left, all of which a history knows; and what it asks that for."""
    asked: list[set[str]] = []

    def remember(stream_keys: Any) -> dict[str, Any]:
        asked.append(set(stream_keys))
        return {}

    history = SimpleNamespace(knows=lambda stream_key: True, remember=remember)
    worker = native.Assembler(
        idle_us=IDLE_US, grace_us=GRACE_US, agent_providers=[], history=history, **options
    )
    worker.add(0, [ringing(1), ringing(1, event_id="e", state="ended")])
    worker.collect(lambda _: 0)
    assert not worker.collect(lambda _: GRACE_US)
    assert (len(worker), asked.pop(), asked) == (0, {"p:1"}, [])
    return worker, asked


def test_a_call_that_has_just_left_comes_back_as_it_was() -> None:
    worker, asked = departing()
    worker.add(0, [ringing(1, event_id="late")])
    [(_, record)] = worker.collect(lambda _: GRACE_US).records
    assert (record.event_count, record.state, asked) == (3, "ended", [])


def test_nothing_new_leaves_again() -> None:
    worker, asked = departing()
    worker.add(0, [ringing(1)])
    assert len(worker) == 1
    assert not worker.collect(lambda _: GRACE_US)
    assert (len(worker), asked) == (0, [])


@pytest.mark.parametrize(("looks", "is_asked"), [(3, False), (4, True)])
def test_it_comes_back_for_so_many_flushes(looks: int, is_asked: bool) -> None:
    worker, asked = departing()
    for _ in range(looks):
        worker.collect(lambda _: GRACE_US)
    worker.add(0, [ringing(1, event_id="late")])
    worker.collect(lambda _: GRACE_US)
    assert bool(asked) == is_asked


def test_only_so_many_come_back() -> None:
    worker, asked = departing(departed=1)
    worker.add(0, [ringing(2), ringing(2, event_id="e", state="ended")])
    worker.collect(lambda _: GRACE_US)
    worker.add(0, [ringing(1, event_id="late"), ringing(2, event_id="late")])
    worker.collect(lambda _: GRACE_US)
    assert asked == [{"p:2"}, {"p:1"}]


def test_what_was_given_up_does_not_come_back() -> None:
    worker, asked = departing()
    worker.drop([0])
    worker.add(0, [ringing(1, event_id="late")])
    worker.collect(lambda _: GRACE_US)
    assert asked == [{"p:1"}]


class Away:
    """A history that cannot be asked at first."""

    def __init__(self) -> None:
        self.is_away = True

    def knows(self, stream_key: str) -> bool:
        return True

    def remember(self, stream_keys: Any) -> Any:
        if self.is_away:
            raise OSError("away")
        return {}


def test_a_history_that_is_away_loses_no_event() -> None:
    history = Away()
    worker = native.Assembler(idle_us=IDLE_US, grace_us=GRACE_US, agent_providers=[], history=history)
    worker.add(0, [ringing(1)])
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            worker.collect(lambda _: 0)
    history.is_away = False
    assert [record.call_id for _, record in worker.collect(lambda _: 0).records] == ["1"]


def test_it_takes_events_away_and_nothing_else() -> None:
    worker = native.Assembler(idle_us=IDLE_US, grace_us=GRACE_US, agent_providers=[])
    events = native.Events.of([ringing(1), ringing(2, received_us=7)])
    assert (len(events), events.newest_us) == (2, 7)
    worker.add(("p", 0), events)
    assert (len(events), events.newest_us, len(worker)) == (0, None, 2)
    with pytest.raises((TypeError, AttributeError)):
        worker.add(("p", 0), [object()])
    with pytest.raises(OverflowError):
        worker.add(("p", 0), [ringing(3, at_us=2**70)])
    assert len(worker) == 2
    worker.drop([("p", 0)])
    assert len(worker) == 0
    assert not worker.collect(lambda _: 2 * IDLE_US)

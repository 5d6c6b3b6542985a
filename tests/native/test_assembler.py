"""The compiled assembler gives what Python's gives, whatever it is given and whenever it is asked."""

import runpy
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


def seen(worker: Any) -> Any:
    """What can be seen from outside of what it holds, and what it asked for on the way."""
    return len(worker.assembler), worker.assembler.open_calls(), worker.lake.asked, worker.lake.placed


def live(seed: int) -> int:
    """Lives one life in both ways; how many steps it had."""
    grace_us, idle_us, _, steps = lives.life(seed)
    one, meant = (sparing.Worker(kind, grace_us, idle_us) for kind in (native.Assembler, Assembler))
    for number, step in enumerate(steps):
        where = f"life {seed}, step {number}: {step}"
        assert one.step(*step) == meant.step(*step), where
        assert seen(one) == seen(meant), where
    for changes, told in one.handed_out:
        assert sparing.told_by(changes) == told, f"life {seed}: what was handed out changed later"
        assert changes.counts() == (len(changes.events), len(changes.records), len(changes.retracted))
        assert changes.repeats() == len(changes.repeated)
    return len(steps)


@pytest.mark.parametrize("first", range(10_000, 10_600, 200))
def test_whatever_happens(first: int) -> None:
    for seed in range(first, first + 200):
        live(seed)


def ringing(number: int, **told: Any) -> CallEvent:
    return CallEvent(
        event_id=f"{number}", provider="p", stream_key=f"p:{number}", event_type="t", call_id=f"{number}",
        at_us=told.pop("at_us", 0), received_us=told.pop("received_us", 0), state="ringing", **told,
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

"""What comes of looking only at streams that changed or are due is what comes of looking at all of them."""

import runpy
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import astuple, replace

from pipeline.assemble.assembler import Assembler, Changes
from pipeline.assemble.memory import Stream
from pipeline.model import CallEvent

HERE = Path(__file__).parent
world = SimpleNamespace(**runpy.run_path(str(HERE / "world.py")))
lives = SimpleNamespace(**runpy.run_path(str(HERE / "lives.py")))
plain = SimpleNamespace(**runpy.run_path(str(HERE / "plain_assembler.py")))

SECOND, GRACE_US, IDLE_US = lives.SECOND, lives.GRACE_US, lives.IDLE_US
PARTITIONS, STREAMS = lives.PARTITIONS, lives.STREAMS


class Worker:
    """An assembler with a lake of its own."""

    def __init__(self, kind: type[Assembler], grace_us: int, idle_us: int) -> None:
        self.lake = world.MemoryLake()
        self.handed_out: list[tuple[Changes, Any]] = []
        """All that was handed out, with what it said then."""
        self.latest_us = [0] * len(PARTITIONS)
        """The latest time, by place of the partition, at which changes were ever collected."""
        self._kind, self._grace_us, self._idle_us = kind, grace_us, idle_us
        self._uncommitted: list[CallEvent] = []
        self._start()

    def _start(self) -> None:
        self.assembler = self._kind(
            idle_us=self._idle_us, grace_us=self._grace_us, agent_providers=["bus"], history=self.lake
        )

    def step(self, kind: str, *told: Any) -> Any:
        """Takes the step; what it came to, in an order of its own."""
        if kind == "add":
            self._uncommitted += told[0]
            self._add(told[0])
            return None
        if kind in ("drop", "leave"):
            self.assembler.drop([PARTITIONS[place] for place in told[0]])
            if kind == "leave":
                return None
            self._restore(told[0])
            self._add(event for event in self._uncommitted if STREAMS[event.stream_key] in told[0])
            return None
        if kind in ("restart", "restore"):
            if kind == "restart":
                self._start()
            self._restore(range(len(PARTITIONS)))
            self._add(self._uncommitted if kind == "restart" else [])
            return None
        if kind in ("crash", "torn"):
            changes = self._collect(told[0], only_settled=False, only_events=kind == "torn")
            return changes, self.step("restart")
        changes = self._collect(*told)
        if not told[1]:
            self._uncommitted = []
        return changes

    def _add(self, events: Iterable[CallEvent]) -> None:
        for event in events:
            self.assembler.add(PARTITIONS[STREAMS[event.stream_key]], [copy(event)])

    def _restore(self, places: Iterable[int]) -> None:
        for key, past in self.lake.remember(self.lake.open_streams()).items():
            if STREAMS[key] in places:
                self.assembler.restore(PARTITIONS[STREAMS[key]], {key: past})

    def _collect(self, clocks: tuple[int, ...], only_settled: bool, only_events: bool = False) -> Any:
        now = dict(zip(PARTITIONS, clocks, strict=True))
        self.latest_us = [max(both) for both in zip(self.latest_us, clocks, strict=True)]
        changes = self.assembler.collect(now.__getitem__, only_settled=only_settled)
        self.handed_out.append((changes, told_by(changes)))
        self.lake.write(changes, only_events=only_events)
        return in_key_order(changes)

    def seen(self) -> Any:
        """What can be seen of what it holds, and what it asked for on the way."""
        assembler = self.assembler
        held = {key: self._held(stream) for key, stream in assembler._streams.items()}
        waiting = set(assembler._dirty), assembler._to_remember, assembler._just_gone
        return len(assembler), assembler.open_calls(), held, waiting, self.lake.asked, self.lake.placed

    @staticmethod
    def _held(stream: Stream) -> Any:
        # An empty set may be none.
        named = (name for name in Stream.__slots__ if name not in ("bucket", "settled"))
        return {name: getattr(stream, name) or None for name in named if name != "due_us"} | {
            "due_us": stream.due_us
        }

    def held_besides(self) -> list[str]:
        """Ids of events that are held for records that need not be folded again, and for nothing else."""
        return [
            event.event_id
            for key, stream in self.assembler._streams.items()
            if key not in self.assembler._dirty
            for settled in (stream.settled or {}).values()
            for event in settled.events
            if event.event_id not in stream.events
        ]


def in_key_order(changes: Changes) -> Any:
    """Streams in the order of their keys; within a stream in the order given."""
    return (
        sorted(changes.events, key=lambda placed: placed.event.stream_key),
        sorted(changes.records, key=lambda told: told[0]),
        sorted(changes.retracted, key=lambda told: told[0]),
        changes.uncertain,
        sorted(changes.repeated, key=lambda told: told[0]),
    )


def told_by(changes: Changes) -> Any:
    """All values in it, none of which can change any more."""
    return (
        [(astuple(event), call) for event, call in changes.events],
        [(key, astuple(record)) for key, record in changes.records],
        [(key, astuple(record)) for key, record in changes.retracted],
        sorted(changes.uncertain),
        [(call, record and astuple(record)) for call, record in changes.repeated],
    )


def assert_the_lake_holds_the_fold_of_all_events(worker: Worker, now: tuple[int, ...] | None) -> int:
    """That records and places are those of a fold of the whole stream; how many streams were compared.

    `now` is the time by place of the partition at which all changes were just collected, if they all were.
    """
    lake, compared = worker.lake, 0
    standing: dict[str, dict[str, Any]] = {key: {} for key in lake._events}
    for key, record in lake._standing():
        standing[key][record.call_key] = record
    for key, by_id in lake._events.items():
        events, is_agent, place = list(by_id.values()), key.startswith("bus:"), STREAMS[key]

        def folded(as_of_us: int, events: Any = events, is_agent: bool = is_agent) -> Any:
            told = {"is_agent": is_agent, "as_of_us": as_of_us, "idle_us": worker._idle_us}
            return plain.fold_events(events, {}, **told)

        calls = folded(-(10**15))
        if len({record.call_key for record, _ in calls}) < len(calls):
            # Two calls under one id: which of them stands hangs on the flushes.
            continue
        if key in worker.assembler._dirty:
            # Its events may be durable, and its records not yet.
            continue
        if calls and calls[-1][0].state != "ended":
            last, its_own = calls[-1]
            due_us = max(event.received_us for event in its_own) + worker._idle_us
            told = standing[key].get(last.call_key)
            if told is None or told.closed_by == "timeout":
                calls = folded(2**62)
            elif now is not None and key in worker.assembler._streams:
                assert now[place] < due_us, f"{key} was due"
        found = {call: replace(record, revision=0) for call, record in standing[key].items()}
        its = {record.call_key: replace(record, revision=0) for record, _ in calls}
        assert found == its, key
        places = {event.event_id: None for event in events}
        places |= {event.event_id: record.call_key for record, its_own in calls for event in its_own}
        # Events of a call stay where they were written first: what names another call under one key is a fault.
        assert not is_agent or {event_id: lake.placed[event_id] for event_id in by_id} == places, key
        compared += 1
    return compared


def live(seed: int) -> tuple[int, int]:
    """Lives one life in both ways; how many steps it had, and how many folds of whole streams were compared."""
    grace_us, idle_us, is_honest, steps = lives.life(seed)
    one, oracle = (Worker(kind, grace_us, idle_us) for kind in (Assembler, plain.PlainAssembler))
    compared = 0
    for number, step in enumerate(steps):
        where = f"life {seed}, step {number}: {step}"
        assert one.step(*step) == oracle.step(*step), where
        assert one.seen() == oracle.seen(), where
        assert not one.held_besides(), where
        if step[0] == "collect" and is_honest:
            compared += assert_the_lake_holds_the_fold_of_all_events(one, None if step[2] else step[1])
    for changes, told in one.handed_out:
        assert told_by(changes) == told, f"life {seed}: what was handed out changed later"
    return len(steps), compared


@pytest.mark.parametrize("first", range(0, 800, 200))
def test_whatever_happens(first: int) -> None:
    for seed in range(first, first + 200):
        live(seed)


def test_a_flush_looks_only_at_what_changed_or_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Assembler(idle_us=IDLE_US, grace_us=GRACE_US, agent_providers=[])
    ringing = [
        CallEvent(
            event_id=f"{number}", provider="p", stream_key=f"p:{number}", event_type="t", call_id=f"{number}",
            at_us=number * SECOND, received_us=number * SECOND, state="ringing",
        )
        for number in range(1_000)
    ]  # fmt: skip
    worker.add(0, ringing)
    worker.collect(lambda _: 0)
    looked_at: list[str] = []
    look_at = Assembler._look_at
    monkeypatch.setattr(
        Assembler, "_look_at", lambda self, key, *rest: looked_at.append(key) or look_at(self, key, *rest)
    )
    assert not worker.collect(lambda _: IDLE_US - 2 * SECOND)
    assert looked_at == []
    closed = worker.collect(lambda _: IDLE_US + 10 * SECOND)
    assert [key for key, _ in closed.records] == [f"p:{number}" for number in range(11)]
    assert len(looked_at) <= 13, "within about a second"
    looked_at.clear()
    worker.collect(lambda _: IDLE_US + 10 * SECOND)
    assert len(worker) == 1_000 - 11, "those that are closed have been silent for longer than their grace"
    assert len(looked_at) <= 2


def test_a_flush_that_fails_forgets_no_timeout() -> None:
    worker = Assembler(idle_us=IDLE_US, grace_us=GRACE_US, agent_providers=[])
    for number in range(3):
        told = {"event_id": f"{number}", "call_id": f"{number}", "stream_key": f"p:{number}"}
        worker.add(
            number, [CallEvent(provider="p", event_type="t", at_us=0, received_us=0, state="ringing", **told)]
        )
    worker.collect(lambda _: 0)

    def time_of(partition: int) -> int:
        if partition == 1:
            raise RuntimeError("no time")
        return 2 * IDLE_US

    with pytest.raises(RuntimeError):
        worker.collect(time_of)
    assert len(worker.collect(lambda _: 2 * IDLE_US).records) == 3

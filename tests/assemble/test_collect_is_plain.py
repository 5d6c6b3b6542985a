"""What comes of looking only at streams that changed or are due is what comes of looking at all of them."""

import runpy
from collections.abc import Hashable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.assemble.assembler import Assembler, Changes
from pipeline.assemble.memory import Stream
from pipeline.model import CallEvent

HERE = Path(__file__).parent
world = SimpleNamespace(**runpy.run_path(str(HERE / "world.py")))
PlainAssembler = runpy.run_path(str(HERE / "plain_assembler.py"))["PlainAssembler"]

SECOND = 1_000_000
GRACE_US, IDLE_US = 3 * SECOND, 11 * SECOND
PARTITIONS: list[Hashable] = [0, ("p", 0), "two"]
STREAMS = [f"p:{number}" for number in range(6)] + [f"bus:{number}" for number in range(3)]
the_same_each_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

times = st.integers(0, 160).map(lambda quarter: quarter * SECOND // 4)


@st.composite
def events(draw: Any) -> tuple[Hashable, CallEvent]:
    """An event of a few streams; an id that comes again may say something else, or the same later."""
    place = draw(st.integers(0, len(STREAMS) - 1))
    key, number = STREAMS[place], draw(st.integers(0, 25))
    provider, _, call_id = key.partition(":")
    told: dict[str, Any] = {"state": draw(st.sampled_from([None, "ringing", "in_progress", "ended"]))}
    if provider == "bus":
        told["cut"] = draw(st.sampled_from([None, "begin", "begin", "connected", "sync", "end"]))
        told["provider_call_id"] = draw(st.sampled_from([None, None, "u1", "u2"]))
        if draw(st.booleans()):
            told |= {"session_id": "s", "seq": number}
    else:
        told["call_id"] = draw(st.sampled_from([call_id] * 9 + ["other"]))
    at_us, received_us = draw(times), draw(times)
    event = CallEvent(
        event_id=f"{key}/{number}",
        provider=provider,
        stream_key=key,
        event_type="t",
        at_us=at_us,
        received_us=received_us,
        **told,
    )
    return PARTITIONS[place % len(PARTITIONS)], event


clocks = st.tuples(*[times] * len(PARTITIONS))
steps = st.one_of(
    st.tuples(st.just("add"), st.lists(events(), min_size=1, max_size=8)),
    st.tuples(st.just("add"), st.lists(events(), min_size=1, max_size=8)),
    st.tuples(st.just("collect"), clocks, st.booleans()),
    st.tuples(st.just("collect"), clocks, st.just(False)),
    st.tuples(st.just("torn"), clocks),
    st.tuples(st.just("drop"), st.sets(st.integers(0, len(PARTITIONS) - 1), min_size=1)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("restore")),
)


class Worker:
    """An assembler with a lake of its own."""

    def __init__(self, kind: type[Assembler], grace_us: int, idle_us: int) -> None:
        self.lake = world.MemoryLake()
        self._kind, self._grace_us, self._idle_us = kind, grace_us, idle_us
        self._start()

    def _start(self) -> None:
        self.assembler = self._kind(
            idle_us=self._idle_us, grace_us=self._grace_us, agent_providers=["bus"], history=self.lake
        )

    def step(self, kind: str, *told: Any) -> Any:
        """Takes the step; what it came to, in an order of its own."""
        if kind == "add":
            for partition, event in told[0]:
                self.assembler.add(partition, [event])
            return None
        if kind == "drop":
            self.assembler.drop([PARTITIONS[place] for place in told[0]])
            return None
        if kind in ("restart", "restore"):
            if kind == "restart":
                self._start()
            for key, past in self.lake.remember(self.lake.open_streams()).items():
                self.assembler.restore(PARTITIONS[STREAMS.index(key) % len(PARTITIONS)], {key: past})
            return None
        now = dict(zip(PARTITIONS, told[0], strict=True))
        changes = self.assembler.collect(now.__getitem__, only_settled=kind == "collect" and told[1])
        self.lake.write(changes, only_events=kind == "torn")
        return in_key_order(changes)

    def seen(self) -> Any:
        """What can be seen of what it holds, and what it asked for on the way."""
        held = {key: self._held(stream) for key, stream in self.assembler._streams.items()}
        return len(self.assembler), self.assembler.open_calls(), held, self.lake.asked, self.lake.placed

    @staticmethod
    def _held(stream: Stream) -> Any:
        return {name: getattr(stream, name) for name in Stream.__slots__ if name not in ("bucket", "settled")}


def in_key_order(changes: Changes) -> Any:
    """Streams in the order of their keys; within a stream in the order given."""
    return (
        sorted(changes.events, key=lambda placed: placed.event.stream_key),
        sorted(changes.records, key=lambda told: told[0]),
        sorted(changes.retracted, key=lambda told: told[0]),
        changes.uncertain,
        sorted(changes.repeated, key=lambda told: told[0]),
    )


@settings(the_same_each_time, max_examples=300)
@given(
    st.lists(steps, min_size=4, max_size=40),
    st.sampled_from([0, GRACE_US, GRACE_US, 2 * IDLE_US]),
    st.sampled_from([0, IDLE_US, IDLE_US]),
)
def test_whatever_happens(happening: list[Any], grace_us: int, idle_us: int) -> None:
    one, plain = (Worker(kind, grace_us, idle_us) for kind in (Assembler, PlainAssembler))
    for step in [*happening, ("collect", (10**12,) * len(PARTITIONS), False)]:
        assert one.step(*step) == plain.step(*step), step
        assert one.seen() == plain.seen(), step


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

"""How much a worker takes while a flush is written: as many events again as made it due, and no more."""

import asyncio
import gc
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from running import count_in

from pipeline.durable import assembler_of
from pipeline.errors import DestinationUnavailable
from pipeline.lake import LakeHistory, LakeSink
from pipeline.model import CallEvent
from pipeline.open_lake import open_lake
from pipeline.settings import load_settings
from pipeline.stream.assemble_step import AssembleStep
from pipeline.stream.metrics import WorkerMetrics

world = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "assemble" / "world.py")))

EVENTS_A_FLUSH = 10


class HeldKafka:
    """Takes what is sent once it is let, refuses it while it is away, and is broken once."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_away = False
        self.fault: Exception | None = None

    async def send(self, topic: str, messages: Any, home: Any = None) -> None:
        if self.is_away:
            raise DestinationUnavailable("Kafka is away")
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        await self.is_open.wait()


async def committed() -> None:
    """Nothing has to be told here of what is acknowledged."""


class Taking:
    """A step over an empty lake, and the events of FreeClimb calls for it, one a batch."""

    def __init__(self, lake: Path) -> None:
        self.kafka, history = HeldKafka(), LakeHistory(open_lake(lake))
        self.step = AssembleStep(
            assembler_of(load_settings({"lake": str(lake)}, environ={}), history),
            history,
            self.kafka,  # type: ignore[arg-type]
            LakeSink(open_lake(lake)),
            prefix="room",
            caught_up=lambda topic, partition: True,
            claim=lambda: lambda: None,
            commit=committed,
            metrics=WorkerMetrics(),
            stored=lambda webhook: pytest.fail("nothing here is foreign"),
            events_a_flush=EVENTS_A_FLUSH,
        )
        lines = world.simulated(400, 5)
        self.left: list[CallEvent] = [
            event for line in lines if line["provider"] == "freeclimb" for event in world.events_of(line)
        ]
        self.taken: list[str] = []
        self.acknowledged: list[str] = []

    def acknowledging(self, event_id: str) -> Callable[[], None]:
        return lambda: self.acknowledged.append(event_id)

    async def take(self) -> None:
        """As the step before it does for each batch."""
        await self.step.make_room()
        event = self.left.pop(0)
        self.taken.append(event.event_id)
        await self.step.add(0, "freeclimb", [event], self.acknowledging(event.event_id))

    async def take_all_there_is_room_for(self) -> int:
        before = len(self.taken)
        while self.left:
            try:
                await asyncio.wait_for(self.take(), 0.5)
            except TimeoutError:
                break
        return len(self.taken) - before


def test_as_many_again_are_taken_while_a_flush_is_written(tmp_path: Path) -> None:
    async def run() -> Taking:
        taking = Taking(tmp_path)
        assert await taking.take_all_there_is_room_for() == 2 * EVENTS_A_FLUSH
        assert taking.acknowledged == []
        taking.kafka.is_open.set()
        for _ in range(2 * EVENTS_A_FLUSH):
            await taking.take()
        await taking.step.drain()
        return taking

    taking = asyncio.run(run())
    assert taking.acknowledged == taking.taken
    assert count_in(tmp_path, "call_events") == len(taking.taken) == 4 * EVENTS_A_FLUSH


def test_a_destination_that_is_away_stops_the_taking_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    async def run() -> Taking:
        taking = Taking(tmp_path)
        taking.kafka.is_away = True
        for _ in range(2 * EVENTS_A_FLUSH):
            await taking.take()
        for _ in range(3):
            with pytest.raises(DestinationUnavailable, match="Kafka is away"):
                await taking.take()
        assert len(taking.taken) == 2 * EVENTS_A_FLUSH
        assert taking.acknowledged == []
        taking.kafka.is_away = False
        taking.kafka.is_open.set()
        await taking.take()
        await taking.step.drain()
        return taking

    taking = asyncio.run(run())
    assert taking.acknowledged == taking.taken
    assert count_in(tmp_path, "call_events") == len(taking.taken) == 2 * EVENTS_A_FLUSH + 1


def test_a_fault_in_a_flush_that_nobody_waits_for_ends_the_next_one_and_nothing_is_acknowledged(
    tmp_path: Path,
) -> None:
    """Changes may be half collected by then: that the next flush would succeed says nothing."""

    async def run() -> Taking:
        taking, told = Taking(tmp_path), []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        taking.kafka.fault = ZeroDivisionError("a fault of our own")
        taking.kafka.is_open.set()
        for _ in range(EVENTS_A_FLUSH + 1):
            await taking.take()
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="of our own"):
                await taking.step.flush()
        gc.collect()
        assert told == []
        return taking

    assert asyncio.run(run()).acknowledged == []

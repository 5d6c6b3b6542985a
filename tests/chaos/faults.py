"""What can go wrong on purpose: one table of fault kinds, each a function that does it to a running round."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from faulty_worker import STEPS
from real_kafka import KafkaCluster
from services import SESSION_SECONDS, Services

MOST_PASSINGS = {"layout": 1, "producer_start": 1, "history_refresh": 2, "assigned": 3, "revoked": 2}
"""How often a worker passes a step in a round, where that is rarely."""


class World(NamedTuple):
    """What a fault may lay hands on."""

    services: Services
    kafka: KafkaCluster
    dice: random.Random
    seconds: float
    """How long the traffic takes."""

    def wait(self, most: float = 0.6) -> None:
        """Some time, up to this share of the traffic's."""
        time.sleep(self.dice.uniform(0.02, most) * self.seconds)


Inject = Callable[[World], None]


def nothing(world: World) -> None:
    """Only traffic; also where the accident was arranged when the worker was started."""


def kill_worker(world: World) -> None:
    for _ in range(world.dice.randint(1, 3)):
        world.wait(0.4)
        world.services.any_worker().signal(signal.SIGKILL)


def stop_worker(world: World) -> None:
    world.wait()
    world.services.take_out(world.services.any_worker())
    world.wait(0.2)
    world.services.add_worker()


def join_and_leave(world: World) -> None:
    for _ in range(2):
        world.wait(0.3)
        joined = world.services.add_worker()
        world.wait(0.4)
        world.services.take_out(joined)


def pause_worker(world: World) -> None:
    """The keeper wakes it once its partitions have gone to another."""
    for _ in range(world.dice.randint(1, 2)):
        world.wait(0.4)
        world.services.any_worker().signal(signal.SIGSTOP)


def kill_broker(world: World) -> None:
    world.wait()
    world.kafka.kill()
    time.sleep(world.dice.uniform(0, 3))
    world.kafka.start()


def pause_broker(world: World) -> None:
    world.wait()
    world.kafka.pause()
    try:
        time.sleep(world.dice.uniform(1, 2 * SESSION_SECONDS))
    finally:
        world.kafka.resume()


def clock_step_worker(world: World) -> None:
    for _ in range(4):
        world.wait(0.2)
        _set_clock(world, world.services.any_worker().process.pid)
    # A clock that stays behind closes silent calls only when it has caught up, and nobody waits for that.
    for told in world.services.folder.glob("clock-*"):
        _tell_clock(told, 0.0)


def clock_step_collector(world: World) -> None:
    for _ in range(4):
        world.wait(0.2)
        if world.services.collector is not None:
            _set_clock(world, world.services.collector.process.pid)


def _set_clock(world: World, pid: int) -> None:
    seconds = world.dice.choice((-1, 1)) * world.dice.uniform(0.5, 300)
    _tell_clock(world.services.folder / f"clock-{pid}", seconds)


def _tell_clock(told: Path, seconds: float) -> None:
    replacement = told.with_suffix(".new")
    replacement.write_text(str(seconds))
    replacement.replace(told)


def full_disk(world: World) -> None:
    world.wait()
    full = Path(world.services.folder, "disk-is-full")
    full.touch()
    try:
        time.sleep(world.dice.uniform(0.5, 4))
    finally:
        full.unlink()


def kill_collector(world: World) -> None:
    for _ in range(2):
        world.wait(0.4)
        if world.services.collector is not None:
            world.services.collector.signal(signal.SIGKILL)


def kill_collector_in_outage(world: World) -> None:
    """Killed while Kafka is away and the spool fills; the keeper starts it again before Kafka is back."""
    world.wait(0.4)
    world.kafka.kill()
    try:
        for _ in range(world.dice.randint(1, 3)):
            time.sleep(world.dice.uniform(0.5, 2.5))
            if world.services.collector is not None:
                world.services.collector.signal(signal.SIGKILL)
        time.sleep(world.dice.uniform(0, 4))
    finally:
        world.kafka.start()


def kill_collector_that_drains(world: World) -> None:
    """Killed soon after Kafka is back, in the midst of passing on what it had put into the spool."""
    world.wait(0.4)
    world.kafka.pause()
    try:
        time.sleep(world.dice.uniform(2, 6))
    finally:
        world.kafka.resume()
    for _ in range(2):
        time.sleep(world.dice.uniform(0, 1.5))
        if world.services.collector is not None:
            world.services.collector.signal(signal.SIGKILL)


class Fault(NamedTuple):
    """A kind of fault."""

    inject: Inject
    deed: str = ""
    """What a worker does to itself at a step (`kill`, `pause`), for faults that are arranged at its start."""
    idle_seconds: float | None = None
    """`idle_seconds` of the round, where calls are to be closed by timeout in the midst of it."""
    may_end_workers: bool = False
    """Whether a worker may give up and be started again: it cannot be expected to outlive this."""

    def accidents(self, dice: random.Random) -> list[str]:
        """`CHAOS_AT` of one or two workers."""
        return [self._accident(dice) for _ in range(dice.randint(1, 2))] if self.deed else []

    def _accident(self, dice: random.Random) -> str:
        step = dice.choice(STEPS)
        return f"{step}:{dice.randint(1, MOST_PASSINGS.get(step, 6))}:{self.deed}"


FAULTS: dict[str, Fault] = {
    "none": Fault(nothing),
    "kill_worker": Fault(kill_worker),
    "kill_at_step": Fault(nothing, deed="kill"),
    "pause_worker": Fault(pause_worker),
    "pause_at_step": Fault(nothing, deed="pause"),
    "stop_worker": Fault(stop_worker),
    "join_and_leave": Fault(join_and_leave),
    "kill_broker": Fault(kill_broker, may_end_workers=True),
    "pause_broker": Fault(pause_broker, may_end_workers=True),
    "clock_step_worker": Fault(clock_step_worker),
    "clock_step_collector": Fault(clock_step_collector),
    # One that is stopped while the disk is full says that it cannot store what it holds, and ends with 1.
    "full_disk": Fault(full_disk, may_end_workers=True),
    "kill_collector": Fault(kill_collector),
    "kill_collector_in_outage": Fault(kill_collector_in_outage, may_end_workers=True),
    "kill_collector_that_drains": Fault(kill_collector_that_drains, may_end_workers=True),
    "timeouts": Fault(nothing, idle_seconds=2.5),
}

"""The generator: realistic webhooks of all five providers, and the plan behind them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from pipeline.simulate.traffic.aircall_bus import AircallBus
from pipeline.simulate.traffic.arrivals import arrivals
from pipeline.simulate.traffic.chance import SECOND, Dice, mix
from pipeline.simulate.traffic.delivery import Delivery, Disturbance
from pipeline.simulate.traffic.freeclimb import FreeClimb
from pipeline.simulate.traffic.interactly import Interactly
from pipeline.simulate.traffic.plan import Plan
from pipeline.simulate.traffic.recho import Recho
from pipeline.simulate.traffic.whippy import Whippy

MONDAY: Final = datetime(2026, 3, 2, tzinfo=UTC)
CALLS_PER_DAY: Final = 2000
_DAY_US: Final = 86_400 * SECOND
_PROVIDERS: Final = mix(interactly=24, recho=20, whippy=20, aircall_bus=20, freeclimb=16)

__all__ = ["CALLS_PER_DAY", "MONDAY", "Disturbance", "Plan", "generate", "traffic"]


def generate(
    calls: int,
    seed: int,
    start: datetime = MONDAY,
    days: float | None = None,
    duplicates: float = 0,
    shuffle: float = 0,
    late: float = 0,
    lose: float = 0,
) -> Iterator[bytes]:
    """The lines of a webhook archive, without line ends, in the order of their receipt.

    Exactly `calls` calls that begin within `days` of `start` (default: as many days as 2000 calls a day take, at
    least one); a few still go on at the end. The shares say how many webhooks are delivered again a little later,
    overtaken by following ones, delivered minutes to hours late, or never delivered. Same arguments, same bytes.
    """
    return traffic(calls, seed, start, days, Disturbance(duplicates, shuffle, late, lose))


def traffic(
    calls: int,
    seed: int,
    start: datetime = MONDAY,
    days: float | None = None,
    disturbance: Disturbance | None = None,
    on_plan: Callable[[Plan], None] = lambda plan: None,
) -> Iterator[bytes]:
    """`generate`, and each planned call handed to `on_plan` as it is made."""
    start_us = int((start - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND
    span = max(1.0, calls / CALLS_PER_DAY) if days is None else days
    end_us = start_us + max(1, int(span * _DAY_US))
    delivery = Delivery(seed, disturbance or Disturbance())
    for at_us, plan in _plans(calls, seed, start_us, end_us):
        yield from delivery.until(at_us)
        _cut(plan, end_us)
        on_plan(plan)
        delivery.add(plan)
    yield from delivery.until(None)


def _plans(calls: int, seed: int, start_us: int, end_us: int) -> Iterator[tuple[int, Plan]]:
    """The calls, and an instant before which nothing of them or of later ones is received."""
    dice = Dice(f"callfold-{seed}-calls")
    freeclimb = FreeClimb(dice)
    planners = {
        "interactly": Interactly(dice).plan,
        "recho": Recho(dice).plan,
        "whippy": Whippy(dice).plan,
        "aircall_bus": AircallBus(dice).plan,
        "freeclimb": freeclimb.plan,
    }
    # The calendar has dice of its own, so that a payload that changes does not move the calls.
    beginnings = arrivals(calls, start_us, end_us, Dice(f"callfold-{seed}-arrivals"))
    for at_us in beginnings:
        provider = dice.pick(_PROVIDERS)
        plan = planners[provider](at_us)
        yield at_us, plan
        is_bridge = provider == "freeclimb" and plan.direction == "inbound" and plan.outcome == "completed"
        # A child leg is a call too: it takes the place of the next one.
        if is_bridge and dice.happens(0.35) and next(beginnings, None) is not None:
            yield at_us, freeclimb.child(plan)


def _cut(plan: Plan, end_us: int) -> None:
    """The period ends, calls go on: what would be sent later is not sent, unless nothing would be left."""
    sent = [sending for sending in plan.sendings if sending.at_us <= end_us]
    if sent and len(sent) < len(plan.sendings):
        plan.sendings, plan.is_cut = sent, True

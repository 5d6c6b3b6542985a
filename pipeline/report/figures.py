"""The figures of a report, as plain values. Every ratio carries its numerator and its denominator."""

from dataclasses import dataclass
from datetime import date, datetime
from math import hypot, sqrt
from typing import Final

_Z2: Final = 1.959963984540054**2


@dataclass(frozen=True, slots=True)
class Ratio:
    """`numerator` out of `denominator`, with Wilson's 95 % bounds; all NULL when nothing was counted."""

    numerator: int
    denominator: int

    @property
    def value(self) -> float | None:
        """The share, 0 to 1."""
        return self.numerator / self.denominator if self.denominator else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Wilson's interval, as in the view `kpi_answer_rate`."""
        if not self.denominator:
            return None
        n, p = self.denominator, self.numerator / self.denominator
        scale = 1 + _Z2 / n
        centre = (p + _Z2 / (2 * n)) / scale
        margin = sqrt(_Z2 * (p * (1 - p) / n + _Z2 / (4 * n * n))) / scale
        return max(0.0, centre - margin), min(1.0, centre + margin)


def difference_bounds(now: Ratio, before: Ratio) -> tuple[float, float] | None:
    """The 95 % interval of `now` less `before`: Newcombe's method 10, as in the view `kpi_week_over_week`."""
    if now.value is None or before.value is None or now.bounds is None or before.bounds is None:
        return None
    change = now.value - before.value
    down = hypot(now.value - now.bounds[0], before.bounds[1] - before.value)
    up = hypot(now.bounds[1] - now.value, before.value - before.bounds[0])
    return change - down, change + up


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of one group's calls: of a provider, or of all (`name` is then `all`). Times in seconds."""

    name: str
    calls: int
    answer_rate: Ratio
    asr: Ratio
    ner: Ratio
    completed: int
    forwarded: int
    failed_calls: int
    short_calls: Ratio
    talk_known: int
    talk_seconds_total: float | None
    talk_p50: float | None
    talk_p90: float | None
    ring_p50: float | None


@dataclass(frozen=True, slots=True)
class Volume:
    """Calls and answered calls of one bar: a date, or an hour of day."""

    label: str
    calls: int
    answered: int


@dataclass(frozen=True, slots=True)
class Share:
    """Calls of one kind among the calls that the heading names."""

    labels: tuple[str, ...]
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class Handling:
    """What was done with one provider's calls, or with those of all (`name` is then `all`)."""

    name: str
    transferred: Ratio  # of conversations: answered, and not by a machine
    contained: Ratio  # completed without a transfer, of the same
    repeats: (
        Ratio  # inbound calls of a number that had called within 24 hours, of those whose number is known
    )
    redialled: Ratio  # answered, of outbound calls that were dialled more than once
    retried: Ratio  # answered, of outbound calls to a number that had not answered within 24 hours
    cost_total: (
        float | None
    )  # in the provider's own currency; None for all providers, whose currencies may differ
    costed_answered: int

    @property
    def cost_per_answered_call(self) -> float | None:
        """Of the calls whose cost was reported."""
        return (
            self.cost_total / self.costed_answered
            if self.cost_total is not None and self.costed_answered
            else None
        )


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one provider's inbound calls were answered, or those of all; a level for each threshold."""

    name: str
    levels: tuple["Level", ...]


@dataclass(frozen=True, slots=True)
class Level:
    """The share of the inbound calls offered that were answered within so many seconds."""

    within_seconds: int
    service_level: Ratio


@dataclass(frozen=True, slots=True)
class Agent:
    """One assistant or human agent in the league."""

    provider: str
    agent_id: str
    completed: Ratio  # of the agent's calls
    answered: int
    transferred: Ratio  # of the answered ones
    talk_seconds_avg: float | None


@dataclass(frozen=True, slots=True)
class Before:
    """The same figures of as many days right before the period, and how the answer rate changed."""

    first: date
    last: date
    calls: int
    answer_rate: Ratio
    answer_rate_change: float | None
    low: float | None  # of the change: 95 % bounds by Newcombe's method 10
    high: float | None


@dataclass(frozen=True, slots=True)
class CheckLine:
    """A check that returned rows."""

    name: str
    severity: str
    description: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """How far the figures can be trusted. `open_calls` is of the whole lake, now; the rest is of the period."""

    closed_by_timeout: int
    late_revisions: int
    received_times: int
    unknown_outcome: int
    quarantined: int
    open_calls: int
    newest_event_at: datetime | None


@dataclass(frozen=True, slots=True)
class Busiest:
    """The minute in which most calls went on at once."""

    minute: datetime
    peak_calls: int
    erlangs: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report shows. `total` has no calls when the period is empty."""

    label: str
    first: date
    last: date
    made_at: datetime
    total: Outcomes
    providers: tuple[Outcomes, ...]
    days: tuple[Volume, ...]
    hours: tuple[Volume, ...]
    end_triggers: tuple[Share, ...]
    failures: tuple[Share, ...]  # labels: failure class, outcome, reason ("" if none)
    talk_times: tuple[Volume, ...]  # calls whose talk time lies in the band; `answered` equals `calls`
    busiest: Busiest | None
    quality: Quality
    before: Before | None  # None for all dates, and where no call was before
    funnel: tuple[Share, ...]  # labels: stage; of all calls
    speeds: tuple[Speed, ...]  # by provider, then of all; empty without inbound calls
    handling: tuple[Handling, ...]  # by provider, then of all
    agents: tuple[Agent, ...]  # the best first, by the lower bound of `completed`
    checks: tuple[CheckLine, ...]  # those that found rows
    checks_run: int

"""The figures of a report, as plain values. Every ratio carries its numerator and its denominator."""

from dataclasses import dataclass
from datetime import date, datetime
from math import sqrt
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
    checks: tuple[CheckLine, ...]

"""One headed table of text, and how figures read in it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pipeline.report.figures import Ratio

NOTHING: Final = "–"


@dataclass(frozen=True, slots=True)
class Section:
    """One heading with a table. `note` says what is counted. The first `words` columns are words, the rest figures."""

    key: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


def percent(ratio: Ratio) -> str:
    """A share with one decimal."""
    return NOTHING if ratio.value is None else f"{100 * ratio.value:.1f} %"


def percent_bounds(ratio: Ratio) -> str:
    """Its 95 % interval."""
    return NOTHING if ratio.bounds is None else f"{100 * ratio.bounds[0]:.1f}–{100 * ratio.bounds[1]:.1f} %"


def duration(seconds: float | None) -> str:
    """A length of time as people say it: 42 s, 3 min 07 s, 2 h 05 min."""
    if seconds is None:
        return NOTHING
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def instant(moment: datetime | None) -> str:
    """An instant to the second, in UTC."""
    return NOTHING if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"

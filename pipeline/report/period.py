"""Reads what a user calls a period as a range of UTC dates. The clock is an argument."""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from pipeline.errors import UserError

_EARLIEST: Final = date(2000, 1, 1)
_LATEST: Final = date(2099, 12, 31)
_MONTH: Final = re.compile(r"(\d{4})-(\d{2})")
_LAST_DAYS: Final = re.compile(r"last(\d{1,4})d")
_HELP: Final = "yesterday, today, last7d, last30d, all, YYYY-MM-DD, YYYY-MM or YYYY-MM-DD..YYYY-MM-DD"


@dataclass(frozen=True, slots=True)
class Period:
    """The UTC dates `first` to `last`, both included. `is_past` once no call can start in it any more."""

    label: str  # the dates themselves, so that it can be a file's name: `yesterday` is another day tomorrow
    first: date
    last: date
    is_past: bool


def parse_period(text: str, now: datetime) -> Period:
    """The period that `text` means at the instant `now`. `last7d` is today and the six days before it.

    Raises UserError for text that is no period.
    """
    word = text.strip().lower()
    today = now.astimezone(UTC).date()
    if word == "all":
        return Period("all", _EARLIEST, _LATEST, is_past=False)
    first, last = _range(word, today)
    if not _EARLIEST <= first <= last <= _LATEST:
        raise UserError(f"period {text!r} must run forwards and lie between {_EARLIEST} and {_LATEST}")
    label = word if _MONTH.fullmatch(word) else f"{first}" if first == last else f"{first}..{last}"
    return Period(label, first, last, is_past=last < today)


def _range(word: str, today: date) -> tuple[date, date]:
    if word == "today":
        return today, today
    if word == "yesterday":
        return today - timedelta(days=1), today - timedelta(days=1)
    if (days := _LAST_DAYS.fullmatch(word)) and int(days[1]) > 0:
        return today - timedelta(days=int(days[1]) - 1), today
    if (month := _MONTH.fullmatch(word)) and 1 <= int(month[2]) <= 12 and int(month[1]) > 0:
        year, number = int(month[1]), int(month[2])
        return date(year, number, 1), date(year, number, monthrange(year, number)[1])
    first, dots, last = word.partition("..")
    return _day(first, word), _day(last if dots else first, word)


def _day(text: str, word: str) -> date:
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise UserError(f"period {word!r} is none of {_HELP}") from None

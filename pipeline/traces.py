"""What is looked for when a person is to be forgotten: a telephone number in any spelling, and ids of calls.

A number is found with and without its country, with any signs between its digits, and as JSON, web addresses and HTML
spell these. In a field that holds nothing but a number, one without a country is read as one of the person's own.
The patterns are RE2's, which Arrow runs over whole columns: no look-around, hence the borders that are part of them.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.normalise import Privacy
from pipeline.normalise.broken import as_text
from pipeline.normalise.numbers import FEWEST_DIGITS, digits_of, e164, number_told

SHORTEST_ID: Final = 8
"""Shorter ids stand in any text by chance; they are found in the columns and fields that are ids only."""
_IDS_AT_ONCE: Final = 100
_BETWEEN: Final = "\n,\n"
"""What joins two texts to one: no gap in a number, and no part of an id."""
_GAP: Final = (
    r"(?:[\s().\-/\x{a0}\x{2000}-\x{2015}\x{202f}]|%(?:25)*(?:20|28|29|2d|2D)|\\+u(?:00a0|00A0|20(?:0\w|1[0-5]))"
    r"|&nbsp;){0,3}"
)
_ZEROES: Final = "0\uff10\u0660\u06f0"
"""The digit zero as it is also written; the other nine follow each of them."""


class Number(NamedTuple):
    """One person's telephone number."""

    e164: str
    region: str | None
    """ISO 3166 country, in which the number is also told without its country."""

    def in_country(self) -> str:
        """Its digits as told within the country."""
        parsed = phonenumbers.parse(self.e164)
        told = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
        return re.sub(r"\D", "", told)

    def spellings(self) -> tuple[str, ...]:
        """What stands for the number before it is hashed, however it was written."""
        digits = self.e164[1:]
        return (self.e164, digits, "00" + digits, self.in_country())


def numbers_of(told: Iterable[str], region: str | None) -> tuple[Number, ...]:
    """The numbers as E.164. Raises UserError for what is none, and does not repeat it: it may end in a log."""
    found = []
    for place, value in enumerate(told, start=1):
        number = e164(re.sub(r"^\s*00", "+", number_told(value)), region)
        if number is None:
            raise UserError(
                f"number {place} is no telephone number: give it with + and its country (or set privacy.region)"
            )
        of = phonenumbers.region_code_for_number(phonenumbers.parse(number))
        found.append(Number(number, of))
    return tuple(dict.fromkeys(found))


class Traces:
    """Finds numbers, what stands in their place under `hmac`, and ids, in single texts and in columns."""

    def __init__(self, numbers: Collection[Number], privacy: Privacy, ids: Iterable[str] = ()) -> None:
        self._numbers = numbers
        self._hashes: set[str] = set()
        if privacy.key:
            hashing = privacy._replace(numbers="hmac")
            self._hashes = {hashing.number(told) or "" for n in numbers for told in n.spellings()}
        self._ids = sorted({call_id for call_id in ids if len(call_id) >= SHORTEST_ID})
        self._patterns = list(self._all_patterns())
        self._region = privacy.region
        self.is_number = lru_cache(maxsize=65_536)(self._is_number)
        """Whether a field that holds a number holds this one."""

    def _all_patterns(self) -> Iterator[str]:
        for number in self._numbers:
            yield _in_text(number)
        if self._hashes:
            yield "|".join(sorted(self._hashes))
        for start in range(0, len(self._ids), _IDS_AT_ONCE):
            some = "|".join(re.escape(call_id) for call_id in self._ids[start : start + _IDS_AT_ONCE])
            yield f"(?:^|[^0-9A-Za-z])(?:{some})(?:$|[^0-9A-Za-z])"

    def _is_number(self, value: str) -> bool:
        if value in self._hashes:
            return True
        told = number_told(value)
        if sum(map(str.isdigit, told)) < FEWEST_DIGITS:
            return False
        return any(
            e164(told, region) == number.e164 or digits_of(told).lstrip("+") in number.spellings()
            for number in self._numbers
            for region in {self._region, number.region}
        )

    def in_text(self, text: str | bytes) -> bool:
        """Whether a text holds any of it."""
        kind = pa.binary() if isinstance(text, bytes) else pa.string()
        return bool(self.in_column(pa.array([text], kind))[0].as_py())

    def in_column(self, column: pa.Array) -> pa.Array:
        """For each value whether it holds any of it; false for NULL. Any type: what holds no text holds nothing."""
        return self.in_rows([column])

    def in_rows(self, columns: Sequence[pa.Array]) -> pa.Array:
        """For each row of some columns, of one length, whether any of its values holds any of it.

        They are searched as one text: a pattern takes longer to be read than a hundred rows to be searched.
        """
        texts = [text for column in columns if (text := _as_text(column)) is not None]
        found = pa.array([False] * len(columns[0]), pa.bool_())
        if not texts:
            return found
        joined = pc.binary_join_element_wise(*(pc.fill_null(text, "") for text in texts), _BETWEEN)
        for pattern in self._patterns:
            found = pc.or_(found, pc.match_substring_regex(joined, pattern))
        return found

    def number_in_column(self, column: pa.Array) -> pa.Array:
        """The same for a column of which every value is a number, read as one."""
        those: list[Any] = [v for v in pc.unique(column).to_pylist() if v is not None and self.is_number(v)]
        return pc.is_in(column, pa.array(those, column.type), skip_nulls=True)


def _as_text(column: pa.Array) -> pa.Array | None:
    """The column as text; None if it holds none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _as_text(column.cast(kind.value_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        told = ((one for one in row or () if one) for row in column.cast(pa.list_(pa.string())).to_pylist())
        return pa.array([_BETWEEN.join(texts) for texts in told], pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        # What is no text is read as text all the same, in whatever encoding it came.
        return pa.array([None if v is None else _readable(v) for v in column.to_pylist()], pa.string())
    return column.cast(pa.string()) if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _readable(value: bytes) -> str:
    # A byte that belongs to no letter must not glue two words together.
    texts = {as_text(value).encode("utf-8", "replace").decode(), value.decode("utf-8", "replace")}
    return _BETWEEN.join(sorted(texts))


def _in_text(number: Number) -> str:
    country = str(phonenumbers.parse(number.e164).country_code)
    rest = number.e164[1 + len(country) :]
    abroad = f"(?:(?:{_spelt('00')}|{_spelt('011')}){_GAP})?"
    # +49 (0)30: the zero that is dialled within the country only.
    whole = f"(?:^|[^0-9]){abroad}{_spelt(country)}{_GAP}(?:{_spelt('0')}{_GAP})?{_spelt(rest)}(?:$|[^0-9])"
    within = number.in_country()
    if len(within) < FEWEST_DIGITS:
        return whole
    # Behind a plus the same digits are another country's number.
    return f"{whole}|(?:^|[^0-9+]){_spelt(within)}(?:$|[^0-9])"


def _spelt(digits: str) -> str:
    """The digits with what may stand between two of them."""
    return _GAP.join(
        f"(?:[{''.join(chr(ord(zero) + int(d)) for zero in _ZEROES)}]|\\\\+u003{d}|%(?:25)*3{d})"
        for d in digits
    )

"""Telephone numbers: what is one, its canonical form, and where texts hold some."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Final

import phonenumbers

NAME: Final = "*" * 8
FEWEST_DIGITS: Final = 7
"""What a number has at least to be seen in a text; shorter ones are extensions and amounts."""

# Also as a web address, JSON or HTML spells them, for numbers in links and in what does not parse.
_PLUS: Final = r"(?:[+\uff0b]|%(?:25)*2b|\\+u002b|&\#(?:43|x2b);)"
_SCHEME: Final = r"(?:\b(?:tel|sips?|callto)(?::|%(?:25)*3a)(?://)?)"
_DIGIT: Final = r"(?:\d|\\+u003\d)"
_GAP: Final = r"(?:[\s().\-/\u2010-\u2015]|%(?:25)*(?:20|28|29|2d)){0,3}+"
_FREE: Final = re.compile(
    rf"(?:(?P<plus>{_SCHEME}?{_PLUS})|(?P<scheme>{_SCHEME}))(?P<digits>{_GAP}{_DIGIT}(?:{_GAP}{_DIGIT}){{6,24}}+)",
    re.IGNORECASE,
)
_HINTS: Final = ("%2", "%3", "u002", "&#", "tel:", "sip", "callto")
_ONE_DIGIT: Final = re.compile(r"\\+u003(\d)|%(?:25)*(?:20|28|29|2[dD])|(\d)")
_SIP: Final = re.compile(r"\s*<?sips?:(?P<user>[^@;:>]+)(?:[:;][^@]*)?(?:@.*)?", re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=65_536)
def e164(told: str, region: str | None = None) -> str | None:
    """The number as `+<country><number>` if it can be one by its country's rules, else None.

    Without a region, a number must begin with `+` (RFC 3966 `tel:` addresses included) to have a country.
    """
    try:
        parsed = phonenumbers.parse(told, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def number_told(value: str) -> str:
    """The number in a SIP or `tel:` address; any other value as it is."""
    value = unicodedata.normalize("NFKC", value).strip()
    sip = _SIP.fullmatch(value)
    if (
        sip is not None
        and sum(map(str.isdigit, sip["user"])) >= FEWEST_DIGITS
        and not _has_letters(sip["user"])
    ):
        return sip["user"]
    is_tel = value[:4].lower() == "tel:" and not _has_letters(value[4:].partition(";")[0])
    return value[4:].partition(";")[0] if is_tel else value


def _has_letters(value: str) -> bool:
    return any(char.isalpha() for char in value)


def digits_of(value: str) -> str:
    """The digits and the plus of what is no E.164 number; a name or an address whole, in lower case."""
    return value.lower() if _has_letters(value) else re.sub(r"[^0-9+]", "", value) or value


def mask(value: str) -> str:
    """All digits but the last four as `*`. What has too few digits to be a number is a name, and goes whole."""
    digits = [i for i, char in enumerate(value) if char.isdigit() or char == "*"]
    if len(digits) < 5 or _has_letters(value):
        return NAME[: len(value)]
    hidden = set(digits[:-4])
    return "".join("*" if i in hidden else char for i, char in enumerate(value))


def may_hold_numbers(text: str) -> bool:
    """Whether a text is worth looking through; told by what is quickly seen."""
    if "+" in text or "\uff0b" in text:
        return True
    if "%" not in text and ":" not in text and "\\" not in text and "&" not in text:
        return False
    lower = text.lower()
    return any(hint in lower for hint in _HINTS)


def replace_numbers(text: str, told: Callable[[str], str]) -> str:
    """The text with every number in it put through `told`, which gets it as E.164 or, behind a scheme, as digits.

    Seen as numbers are those that begin with a plus and can be one by their country's rules, and what follows `tel:`,
    `sip:` or `callto:`. Digits alone are not: times, amounts and ids are written so too.
    """
    if not may_hold_numbers(text):
        return text

    def replaced(found: re.Match[str]) -> str:
        places = [m for m in _ONE_DIGIT.finditer(found["digits"]) if m[1] or m[2]]
        digits = "".join(unicodedata.normalize("NFKC", m[1] or m[2]) for m in places)
        if found["plus"] is None:
            return found["scheme"] + told(digits)
        count = _digits_of_number(digits, [m.end() == n.start() for m, n in pairwise(places)])
        if count == 0:
            return found[0]
        scheme = re.match(_SCHEME, found["plus"], re.IGNORECASE)
        return (
            (scheme[0] if scheme else "")
            + told("+" + digits[:count])
            + found["digits"][places[count - 1].end() :]
        )

    return _FREE.sub(replaced, text)


def _digits_of_number(digits: str, is_joined: list[bool]) -> int:
    """How many of the digits behind a plus are a number's: the longest that ends at a gap, else the longest."""
    counts = range(min(len(digits), 17), FEWEST_DIGITS - 1, -1)
    at_gaps = [count for count in counts if count == len(digits) or not is_joined[count - 1]]
    for count in (*at_gaps, *(count for count in counts if count not in at_gaps)):
        if e164("+" + digits[:count]) is not None:
            return count
    return 0

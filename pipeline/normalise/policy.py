"""The privacy settings, and what they make of one value."""

import hashlib
import hmac
import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from pipeline.normalise.numbers import digits_of, e164, mask, number_told, replace_numbers

_HASHED: Final = re.compile("hmac:[0-9a-f]{64}")


class Privacy(NamedTuple):
    """The privacy settings."""

    numbers: Literal["keep", "mask", "hmac"] = "keep"
    key: bytes = b""
    transcripts: Literal["drop", "keep"] = "drop"
    region: str | None = None
    """ISO 3166 country of numbers that name none; without it they are hashed by their digits."""
    own_secrets: tuple[str, ...] = ()
    """Our own credentials, which no payload should repeat, and which are taken out should one do it."""

    def number(self, value: str | None) -> str | None:
        """A telephone number as it may be stored. What is stored already stays as it is."""
        if value is None or self.numbers == "keep" or not value or _HASHED.fullmatch(value):
            return value
        return _stored(self, value)

    def numbers_in(self, text: str) -> str:
        """A text with the telephone numbers in it as they may be stored."""
        return text if self.numbers == "keep" else replace_numbers(text, lambda told: self.number(told) or "")


@lru_cache(maxsize=65_536)
def _stored(privacy: Privacy, value: str) -> str:
    told = number_told(value)
    number = e164(told, privacy.region)
    if privacy.numbers == "mask":
        # As it is written, unless words stand beside it.
        return mask(number) if number and any(map(str.isalpha, told)) else mask(told)
    # However a number is written, it is one number.
    hashed = number or digits_of(told)
    return "hmac:" + hmac.new(privacy.key, hashed.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

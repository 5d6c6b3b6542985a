"""What of a webhook may be stored: secrets never, numbers and conversation as the privacy settings say.

Works on the parsed payload, so that no way of writing a key escapes it. A body that does not parse is searched as
text for its secret fields, which are cut out up to where they end, or to the body's end.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from pipeline.providers import Redacted

SECRET_HEADERS: Final = frozenset({"authorization", "x-interactly-secret", "cookie", "proxy-authorization"})
DROPPED: Final = "[dropped]"


class Privacy(NamedTuple):
    """The privacy settings."""

    numbers: Literal["keep", "mask", "hmac"] = "keep"
    key: bytes = b""
    transcripts: Literal["drop", "keep"] = "drop"

    def number(self, value: str | None) -> str | None:
        """A telephone number as it may be stored. What is stored already stays as it is."""
        if value is None or self.numbers == "keep" or value.startswith("hmac:"):
            return value
        if self.numbers == "mask":
            return mask(value)
        told = re.sub(r"[^0-9+]", "", value) or value
        return "hmac:" + hmac.new(self.key, told.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def mask(value: str) -> str:
    """All digits but the last four as `*`. What has too few digits to be a number is a name, and goes whole."""
    digits = [i for i, char in enumerate(value) if char.isdigit() or char == "*"]
    if len(digits) < 5 or any(char.isalpha() for char in value):
        return "*" * min(len(value), 8)
    hidden = set(digits[:-4])
    return "".join("*" if i in hidden else char for i, char in enumerate(value))


class Redactor:
    """Applies one provider's `Redacted` and the privacy settings to whole webhooks."""

    def __init__(self, redacted: Redacted, privacy: Privacy) -> None:
        self._privacy = privacy
        self._secrets = redacted.secrets
        self._numbers = redacted.numbers if privacy.numbers != "keep" else frozenset()
        self._transcripts = redacted.transcripts if privacy.transcripts == "drop" else frozenset()
        self._unparsed = [_field_pattern(name) for name in sorted(redacted.secrets)]

    def body(self, body: bytes) -> bytes:
        """The body as it may be stored; the very same bytes if there is nothing to take out."""
        try:
            payload = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._cut_out(body)
        changed = False

        def note() -> None:
            nonlocal changed
            changed = True

        redacted = self._walk(payload, note, 0)
        return msgspec.json.encode(redacted) if changed else body

    def _walk(self, value: Any, note: Callable[[], None], depth: int) -> Any:
        if depth > 200:
            note()
            return DROPPED
        if isinstance(value, list):
            return [self._walk(item, note, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if key in self._secrets:
                note()
            elif (
                key in self._numbers
                and isinstance(item, (str, int))
                and not isinstance(item, bool)
                and item != ""
            ):
                note()
                kept[key] = self._privacy.number(str(item))
            elif (
                key in self._transcripts
                and item
                and item != DROPPED
                and not self._holds_all(key, item, depth)
            ):
                note()
                kept[key] = DROPPED if isinstance(item, str) else type(item)()
            else:
                kept[key] = self._walk(item, note, depth + 1)
        return kept

    @staticmethod
    def _holds_all(key: str, item: Any, depth: int) -> bool:
        # `data`-like wrappers at the top are the payload itself, not a conversation.
        return depth == 0 and isinstance(item, dict)

    def _cut_out(self, body: bytes) -> bytes:
        for pattern in self._unparsed:
            place = 0
            while (found := pattern.search(body, place)) is not None:
                end = _value_end(body, found.end())
                body = body[: found.start()] + body[end:]
                place = found.start()
        return body

    @staticmethod
    def headers(headers: Mapping[str, str]) -> dict[str, str]:
        """The headers without credentials."""
        return {name: value for name, value in headers.items() if name.lower() not in SECRET_HEADERS}


def _field_pattern(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\"" + re.escape(name.encode()) + rb"\"?\s*:?\s*", re.IGNORECASE)


def _value_end(body: bytes, start: int) -> int:
    """Where the JSON value that starts here ends, as far as can be told from broken text; else the body's end."""
    depth, at, quoted = 0, start, False
    while at < len(body):
        char = body[at : at + 1]
        if quoted:
            if char == b"\\":
                at += 1
            elif char == b'"':
                quoted = False
                if depth == 0:
                    return at + 1
        elif char == b'"':
            quoted = True
        elif char in b"{[":
            depth += 1
        elif char in b"}]":
            depth -= 1
            if depth <= 0:
                return at + (depth == 0)
        elif char == b"," and depth == 0:
            return at
        at += 1
    return len(body)

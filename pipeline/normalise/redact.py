"""What of a webhook may be stored: secrets never, numbers and conversation as the privacy settings say.

Works on the parsed payload, read as leniently as the provider modules read it, so that no way of writing a key
escapes it. A body that does not parse is searched as text for the fields, which are cut out up to where they end,
or to the body's end.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from pipeline.model import Rejection
from pipeline.providers import Redacted, read_json

SECRET_HEADERS: Final = frozenset({"authorization", "x-interactly-secret", "cookie", "proxy-authorization"})
SECRET_QUERY: Final = frozenset({"token", "access_token", "api_key", "apikey", "secret"})
DROPPED: Final = "[dropped]"
NAME: Final = "*" * 8


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
        return NAME[: len(value)]
    hidden = set(digits[:-4])
    return "".join("*" if i in hidden else char for i, char in enumerate(value))


class Redactor:
    """Applies one provider's `Redacted` and the privacy settings to whole webhooks."""

    def __init__(self, redacted: Redacted, privacy: Privacy) -> None:
        self._privacy = privacy
        self._secrets = redacted.secrets
        self._secrets_lower = frozenset(name.lower() for name in redacted.secrets)
        self._numbers = redacted.numbers if privacy.numbers != "keep" else frozenset()
        self._no_numbers = redacted.no_numbers
        self._ids = redacted.ids
        self._transcripts = redacted.transcripts if privacy.transcripts == "drop" else frozenset()
        names = self._secrets | self._numbers | self._transcripts
        self._has_work = bool(names)
        self._named = _key_pattern(names, b'"', b'"\\s*:') if names else None
        self._broken = [_key_pattern(names, rb"\\*[\"']", rb"\\*[\"']\s*:\s*")] if names else []
        if self._secrets:
            # A form, a log line, half a key: what is no JSON may name a secret in any way.
            self._broken.append(_key_pattern(self._secrets, rb"[\"'\\]*", rb"[\"'\\]*\s*[:=]\s*"))
        self._told_inside = re.compile(_inside(self._secrets)) if self._secrets else None

    def body(self, body: bytes) -> bytes:
        """The body as it may be stored; the very same bytes if there is nothing to take out."""
        if not self._has_work:
            return body
        payload = _read(body)
        if isinstance(payload, Rejection):
            return self._cut_out(body)
        seen = changed = 0

        def note(is_changed: bool) -> None:
            nonlocal seen, changed
            seen += 1
            changed += is_changed

        redacted = self._walk(payload, note, 0)
        if not changed and self._named is not None and not _is_all(payload, body):
            # Of a key that stands twice the parser keeps the last; the bytes would still hold the first.
            changed = len(self._named.findall(_as_utf8(body))) > seen
        return msgspec.json.encode(redacted) if changed else body

    def _walk(self, value: Any, note: Callable[[bool], None], depth: int) -> Any:
        if depth > 200:
            note(True)
            return DROPPED
        if isinstance(value, list):
            return [self._walk(item, note, depth + 1) for item in value]
        if isinstance(value, str):
            return self._told(value, note)
        if not isinstance(value, dict):
            return value
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if key.lower() in self._secrets_lower:
                note(True)
            elif key in self._numbers and not isinstance(item, dict):
                is_id = key in self._ids and item == value.get(self._ids[key])
                kept[key] = item if is_id else self._number(item, note, depth)
                note(kept[key] != item)
            elif key in self._transcripts and not self._holds_all(key, item, depth):
                is_told = bool(item) and item != DROPPED
                note(is_told)
                kept[key] = (DROPPED if isinstance(item, str) else type(item)()) if is_told else item
            else:
                kept[key] = self._walk(item, note, depth + 1)
        return kept

    def _number(self, value: Any, note: Callable[[bool], None], depth: int) -> Any:
        if isinstance(value, list):
            return [self._number(item, note, depth + 1) for item in value]
        if isinstance(value, dict):
            return self._walk(value, note, depth + 1)
        if isinstance(value, bool) or value is None or value == "":
            return value
        name = next((start for start in self._no_numbers if str(value).startswith(start)), None)
        return self._privacy.number(str(value)) if name is None else name + NAME

    def _told(self, value: str, note: Callable[[bool], None]) -> str:
        """A text that holds a payload of its own, without the secrets in it."""
        if self._told_inside is None or not ('"' in value or "'" in value):
            return value
        if not self._told_inside.search(value):
            return value
        note(True)
        return self._cut_out(value.encode("utf-8", "replace")).decode("utf-8", "replace")

    @staticmethod
    def _holds_all(key: str, item: Any, depth: int) -> bool:
        # `data`-like wrappers at the top are the payload itself, not a conversation.
        return depth == 0 and isinstance(item, dict)

    def _cut_out(self, body: bytes) -> bytes:
        text = _as_utf8(body)
        for pattern in self._broken:
            kept, place = [], 0
            while (found := pattern.search(text, place)) is not None:
                kept.append(text[place : found.start()])
                place = _value_end(text, found.end())
            if kept:
                text = body = b"".join([*kept, text[place:]])
        return body

    @staticmethod
    def headers(headers: Mapping[str, str]) -> dict[str, str]:
        """The headers without credentials."""
        return {name: value for name, value in headers.items() if name.lower() not in SECRET_HEADERS}

    def query(self, query: Mapping[str, str]) -> dict[str, str]:
        """The query without credentials, its numbers as the privacy setting says."""
        told = {n: v for n, v in query.items() if n.lower() not in SECRET_QUERY | self._secrets_lower}
        return {n: (self._privacy.number(v) or "") if n in self._numbers else v for n, v in told.items()}


def _read(body: bytes) -> Any:
    """The payload as its provider's module may have read it, or a `Rejection`."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        payload = read_json(body)
    if isinstance(payload, Rejection):
        # A module that skips a broken text has seen the rest.
        payload = read_json(_as_utf8(body).decode("utf-8", "replace").encode())
    return payload


def _is_all(payload: Any, body: bytes) -> bool:
    """Whether the bytes are plainly the payload and nothing more, which is quicker told than searched for."""
    try:
        return bool(msgspec.json.format(body, indent=-1) == msgspec.json.encode(payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _as_utf8(body: bytes) -> bytes:
    """The bytes in the encoding that patterns are written in; JSON may come in others."""
    encoding = json.detect_encoding(body)
    return body if encoding.startswith("utf-8") else body.decode(encoding, "replace").encode()


def _key_pattern(names: Iterable[str], before: bytes, after: bytes) -> re.Pattern[bytes]:
    """Any of the names between two patterns, each of its letters plain or as a JSON escape."""
    spelt = [b"".join(_letter(char) for char in name) for name in sorted(names, key=len, reverse=True)]
    return re.compile(before + b"(?:" + b"|".join(spelt) + b")" + after, re.IGNORECASE)


def _letter(char: str) -> bytes:
    return b"(?:%b|\\\\+u00%02x)" % (re.escape(char.encode()), ord(char))


def _inside(names: Iterable[str]) -> str:
    return "[\"'](?:" + "|".join(map(re.escape, sorted(names))) + ")\\\\*[\"']\\s*:"


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

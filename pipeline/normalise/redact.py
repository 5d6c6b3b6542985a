"""What of a webhook may be stored: secrets never, numbers and conversation as the privacy settings say.

Works on the parsed payload, read as leniently as the provider modules read it, so that no way of writing a key
escapes it. Texts are searched too: for payloads inside them, credentials and numbers. A body that does not parse is
one such text; fields are cut out of it up to where they end, or to the body's end.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final

import msgspec

from pipeline.model import Rejection
from pipeline.normalise.broken import as_bytes, as_text, cut_out, key_pattern
from pipeline.normalise.credentials import DROPPED, is_secret_name, signed_time, without_credentials
from pipeline.normalise.fields import (
    LIKELY_NUMBER_FIELDS,
    NUMBER_FIELDS,
    PLAIN_HEADERS,
    SECRET_FIELDS,
    TRANSCRIPT_FIELDS,
)
from pipeline.normalise.in_place import PAYLOAD, PLAIN, InPlace, Rules, is_all, restore
from pipeline.normalise.numbers import NAME
from pipeline.normalise.policy import Privacy
from pipeline.providers import Redacted, read_json

DEEPEST: Final = 200
_QUOTED_KEY: Final = re.compile(r"[\"']\s*+:").search
"""How a key in a text ends. Sentences have apostrophes: to look for all the names after each took 0.3 µs a letter."""
_LOOKS_LIKE_NUMBER: Final = re.compile(r"[\s+(]*[\d*](?:[\s().\-/]*[\d*]){6,}\s*")


class _Pass:
    """What one reading of a payload came across."""

    __slots__ = ("is_changed", "seen")

    def __init__(self) -> None:
        self.seen = 0
        """Fields whose names say that they may hold something."""
        self.is_changed = False


class Redactor:
    """Applies one provider's `Redacted` and the privacy settings to whole webhooks."""

    def __init__(self, redacted: Redacted, privacy: Privacy, kept_headers: Iterable[str] | None = ()) -> None:
        """`kept_headers` are those to keep beside the plain ones; None keeps all but credentials."""
        self._privacy = privacy
        self._own = privacy.own_secrets
        self._kept_headers = None if kept_headers is None else PLAIN_HEADERS.union(kept_headers)
        self._secrets = _lower(redacted.secrets) | SECRET_FIELDS
        drops = privacy.transcripts == "drop"
        self._transcripts = _lower(redacted.transcripts) | TRANSCRIPT_FIELDS if drops else frozenset()
        self._changes_numbers = privacy.numbers != "keep"
        certain = _lower(redacted.numbers) | NUMBER_FIELDS
        self._numbers = certain | LIKELY_NUMBER_FIELDS if self._changes_numbers else frozenset()
        self._names = self._secrets | self._numbers | self._transcripts
        self._likely_numbers = LIKELY_NUMBER_FIELDS - certain
        self._no_numbers = redacted.no_numbers
        self._ids = redacted.ids
        self._keys = redacted.keys
        self._quick = InPlace(
            Rules(
                self._secrets,
                self._numbers,
                self._likely_numbers,
                self._transcripts,
                self._ids,
                self._keys,
                not self._changes_numbers,
                _is_number,
                self._number_field,
                self._told,
            )
        )

    # Patterns of hundreds of names: 40 ms, which a process that meets no such body need not spend as it starts.

    @cached_property
    def _named(self) -> re.Pattern[str]:
        return key_pattern(self._names, '"', '"\\s*:')

    @cached_property
    def _inside(self) -> list[re.Pattern[str]]:
        return [key_pattern(self._names, "[\"']", r"\\*+[\"']\s*+:\s*+")]

    @cached_property
    def _broken(self) -> list[re.Pattern[str]]:
        """A form, a log line, half a key: what is no JSON may name a secret in any way."""
        found = [*self._inside, key_pattern(self._secrets, "", r"[\"'\\]*+\s*+[:=]\s*+")]
        if self._numbers:
            found.append(key_pattern(self._numbers, r"(?:^|(?<=[&?\s]))", "=[^&\\s]*"))
        return found

    def body(self, body: bytes) -> bytes:
        """The body as it may be stored; the very same bytes if there is nothing to take out."""
        return self.body_and_identity(body)[0]

    def body_and_identity(self, body: bytes) -> tuple[bytes, bytes | None]:
        """The body as it may be stored, and what `webhook_id` makes of that of the two bodies which it is told by.

        None: not known yet. A hash of the body as it came would give away the numbers that are taken out of it,
        which are not many to try; so then the identity is that of the stored body.
        """
        return self._quick.body(body) or (self.plain_body(body), None)

    def plain_body(self, body: bytes) -> bytes:
        """What `body` gives, found without its quick way."""
        return self._body(body, 0)

    def _body(self, body: bytes, depth: int) -> bytes:
        payload = _read(body)
        if isinstance(payload, Rejection):
            text = as_text(body)
            told = self.text(cut_out(text, self._broken))
            return body if told == text else as_bytes(told)
        done = _Pass()
        redacted = self._walk(payload, done, depth)
        if depth == 0:
            for path in self._keys:
                restore(redacted, payload, path)
        if not done.is_changed and not is_all(payload, body):
            # Of a key that stands twice the parser keeps the last; the bytes would still hold the first.
            text = as_text(body)
            named = sum(1 for _ in self._named.finditer(text))
            done.is_changed = named > done.seen or self.text(text) != text
        return msgspec.json.encode(redacted) if done.is_changed else body

    def _walk(self, value: Any, done: _Pass, depth: int) -> Any:
        if depth > DEEPEST:
            done.is_changed = True
            return DROPPED
        if isinstance(value, str):
            told = self._told(value, depth)
            done.is_changed |= told is not value and told != value
            return told
        if isinstance(value, list):
            return [self._walk(item, done, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        kept: dict[str, Any] = {}
        for key, item in value.items():
            name = key.lower()
            if name in self._secrets:
                done.seen, done.is_changed = done.seen + 1, True
                continue
            stored = key if PLAIN(key) is not None else self._told(key, depth)
            if name in self._numbers and (name not in self._likely_numbers or _is_number(item)):
                is_id = key in self._ids and item == value.get(self._ids[key])
                kept[stored] = item if is_id else self._number(item, done, depth + 1)
                done.seen += 1
            elif name in self._transcripts and not (depth == 0 and isinstance(item, dict)):
                # `data`-like wrappers at the top are the payload itself, not a conversation.
                is_told = bool(item) and item != DROPPED
                kept[stored] = (DROPPED if isinstance(item, str) else type(item)()) if is_told else item
                done.seen, done.is_changed = done.seen + 1, done.is_changed or is_told
            else:
                kept[stored] = self._walk(item, done, depth + 1)
            done.is_changed |= stored != key
        return kept

    def _number_field(self, value: Any, depth: int) -> tuple[Any, bool]:
        done = _Pass()
        return self._number(value, done, depth), done.is_changed

    def _number(self, value: Any, done: _Pass, depth: int) -> Any:
        if depth > DEEPEST:
            return self._walk(value, done, depth)
        if isinstance(value, list):
            return [self._number(item, done, depth + 1) for item in value]
        if isinstance(value, dict):
            walked = self._walk(value, done, depth)
            return {
                key: self._number(item, done, depth + 1) if _is_number(item) else item
                for key, item in walked.items()
            }
        if isinstance(value, bool) or value is None or value == "":
            return value
        name = next((start for start in self._no_numbers if str(value).startswith(start)), None)
        told = self._privacy.number(str(value)) if name is None else name + NAME
        done.is_changed |= told != value
        return told

    def _told(self, value: str, depth: int) -> str:
        """A text without the secrets, numbers and payloads in it that may not be stored."""
        if PLAIN(value) is not None:
            # Ids, words and times: nothing stands in them but perhaps a secret of ours.
            return value if not self._own else self.text(value)
        if PAYLOAD(value) is not None:
            # A payload in a text: what parses is read as one.
            body = value.encode("utf-8", "replace")
            told = self._body(body, depth + 1)
            return value if told is body else told.decode("utf-8", "replace")
        if ('"' in value or "'" in value) and _QUOTED_KEY(value) is not None:
            value = cut_out(value, self._inside)
        return self.text(value)

    def text(self, text: str) -> str:
        """A text without credentials, its telephone numbers as the privacy setting says."""
        text = without_credentials(text, self._own)
        return self._privacy.numbers_in(text) if self._changes_numbers else text

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers that a replay needs, without credentials: of a signature its time, which may be the event's."""
        told: dict[str, str] = {}
        for name, value in headers.items():
            lower = name.lower()
            if self._kept_headers is not None and lower not in self._kept_headers:
                continue
            if "signature" in lower:
                time = signed_time(value)
                told |= {name: time} if time else {}
            elif not is_secret_name(lower):
                told[name] = self.text(value)
        return told

    def query(self, query: Mapping[str, str]) -> dict[str, str]:
        """The query without credentials, its numbers as the privacy setting says."""
        told = {}
        for name, value in query.items():
            if is_secret_name(name) or name.lower() in self._secrets:
                continue
            if (name,) in self._keys:
                told[name] = value
            elif name.lower() in self._numbers and (
                name.lower() not in self._likely_numbers or _is_number(value)
            ):
                told[name] = self._privacy.number(value) or ""
            else:
                # In a query a plus that is not encoded stands for a space.
                spaced = self._changes_numbers and re.fullmatch(r" \d{7,15}", value)
                told[self.text(name)] = self.text("+" + value[1:] if spaced else value)
        return told


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and _LOOKS_LIKE_NUMBER.fullmatch(value) is not None


def _read(body: bytes) -> Any:
    """The payload as its provider's module may have read it, or a `Rejection`."""
    payload = read_json(body)
    if isinstance(payload, Rejection) and payload.code != "too_deep":
        # A module that skips a broken text has seen the rest.
        payload = read_json(as_text(body).encode("utf-8", "replace"))
    return payload

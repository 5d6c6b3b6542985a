"""The quick way through a payload: what may not be stored is taken out of the parsed values where they stand.

It makes the bytes that `Redactor.plain_body` makes, or None; then that one is asked: for what is no JSON object, what
is written so that its bytes may hold more than its values, and keys that must be written otherwise. Three things make
it quick:

* what a key means is found once and then looked up: names compare in any case, and senders use the same few hundred;
* so is what becomes of a text: nine of ten have come by before, as words and names do, and as the ids of a call;
* nothing is copied: a payload that was read for this may be changed.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.model.rejection import DEEPEST
from pipeline.normalise.credentials import DROPPED
from pipeline.providers import is_too_deep

MOST_KEYS: Final = 4_096
"""Keys whose meaning is remembered; senders that make keys up have theirs looked at each time."""
LONGEST_KEY: Final = 256
MOST_REMEMBERED: Final = 2 * 1024 * 1024
"""Letters of texts that are remembered; then all are forgotten, and it begins anew."""
LONGEST_REMEMBERED: Final = 16 * 1024
_BESIDE_TEXT: Final = 150
"""What a text that is remembered takes beside its letters, in bytes."""

PLAIN: Final = re.compile(r"[\w.\-]*|[0-9T:.\-]+Z").fullmatch
"""Ids, words and times."""
PAYLOAD: Final = re.compile(r'\s*(?:\{\s*["}]|\[\s*["{\[\d\-tfn\]])').match
"""The beginning of a text that may be a payload."""

# What a key means: nothing for most of them, which is asked for by its truth.
_NOTHING, _SECRET, _NUMBER, _LIKELY_NUMBER, _TRANSCRIPT, _ODD = range(6)
# What a walk has done, in bits.
_CHANGED, _TEXT_CHANGED = 1, 3

_GONE: Final = object()
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_format: Final = msgspec.json.format


class Rules(NamedTuple):
    """What a `Redactor` takes out, names in lower case, and how it does it."""

    secrets: frozenset[str]
    numbers: frozenset[str]
    likely_numbers: frozenset[str]
    """Those of `numbers` that count only where `is_number` says so."""
    transcripts: frozenset[str]
    ids: Mapping[str, str]
    keys: tuple[tuple[str, ...], ...]
    is_known_as_received: bool
    """Whether the identity of a webhook is told by its body as it came, and not by what is stored of it."""
    is_number: Callable[[Any], bool]
    number: Callable[[Any, int], tuple[Any, bool]]
    """A number field's value at this depth as it may be stored, and whether it is another."""
    told: Callable[[str, int], str]
    """A text at this depth as it may be stored; the depth matters only for a payload in a text."""


class _OddKeyError(Exception):
    """A key that must be written otherwise, or that means two things: the plain way knows how."""


class InPlace:
    """One redactor's quick way. Several threads may use it: each looks up and remembers in single steps."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._meanings: dict[str, int] = {}
        self._neutral: set[str] = set()
        self._clean: set[str] = set()
        self._changed: dict[str, str] = {}
        self._numbers: dict[str, Any] = {}
        self._room = MOST_REMEMBERED
        named = rules.secrets | rules.numbers | rules.transcripts
        # Else what stands at the end of a path is changed only if texts are.
        self._always_restores = any(name.lower() in named for path in rules.keys for name in path)

    def body(self, body: bytes) -> tuple[bytes, bytes] | None:
        """The body as it may be stored, the very same if there is nothing to take out, and the one of the two that
        tells the webhook's identity, as it is written without spaces; None: ask the plain way.
        """
        # A level takes two bytes at least: less than so many that parse are not too deep.
        if len(body) > 2 * DEEPEST and is_too_deep(body):
            return None
        try:
            payload = _decode(body)
            if type(payload) is not dict:
                return None
            done = self._object(payload, 0)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _OddKeyError):
            return None
        if not done:
            packed = _encode(payload)
            return (body, packed) if packed == body or _format(body, indent=-1) == packed else None
        if self._always_restores or done == _TEXT_CHANGED:
            received = _decode(body)
            for path in self._rules.keys:
                restore(payload, received, path)
        packed = _encode(payload)
        return packed, _format(body, indent=-1) if self._rules.is_known_as_received else packed

    def _object(self, value: dict[str, Any], depth: int) -> int:
        # Each key and each value comes by here: what is asked of most of them are two look-ups and a type.
        neutral, clean, below, done = self._neutral, self._clean, depth + 1, 0
        changes: list[tuple[str, Any]] = []
        for key, item in value.items():
            if key in neutral or not self._is_meant(key, item, depth):
                kind = type(item)
                if kind is str:
                    if item not in clean and (told := self._text(item, below)) is not item:
                        changes.append((key, told))
                        done |= _TEXT_CHANGED
                elif kind is dict:
                    if item:
                        done |= self._object(item, below)
                elif kind is list and item:
                    done |= self._array(item, below)
            else:
                told, is_changed = self._field(key, value, depth)
                if is_changed:
                    changes.append((key, told))
                    done |= _CHANGED
        # Not before: an id is known by what stands beside it.
        for key, told in changes:
            if told is _GONE:
                del value[key]
            else:
                value[key] = told
        return done

    def _array(self, value: list[Any], depth: int) -> int:
        done, below = 0, depth + 1
        for place, item in enumerate(value):
            kind = type(item)
            if kind is dict:
                done |= self._object(item, below)
            elif kind is str:
                if item not in self._clean and (told := self._text(item, below)) is not item:
                    value[place] = told
                    done |= _TEXT_CHANGED
            elif kind is list:
                done |= self._array(item, below)
        return done

    def _is_meant(self, key: str, item: Any, depth: int) -> bool:
        """Whether the name of a field says something, and what stands in it is that."""
        means = self._meaning(key)
        if means == _LIKELY_NUMBER:
            return self._rules.is_number(item)
        # `data`-like wrappers at the top are the payload itself, not a conversation.
        return means != _NOTHING and (means != _TRANSCRIPT or depth != 0 or type(item) is not dict)

    def _meaning(self, key: str) -> int:
        means = self._meanings.get(key)
        if means is None:
            means = _meaning_of(key, self._rules)
            if len(self._meanings) < MOST_KEYS and len(key) <= LONGEST_KEY:
                self._meanings[key] = means
                if means == _NOTHING:
                    self._neutral.add(key)
        return means

    def _field(self, key: str, beside: Mapping[str, Any], depth: int) -> tuple[Any, bool]:
        """A field's value as it may be stored, and whether it is another."""
        item, rules, means = beside[key], self._rules, self._meaning(key)
        if means == _SECRET:
            return _GONE, True
        if means == _TRANSCRIPT:
            if not item or item == DROPPED:
                return item, False
            return DROPPED if type(item) is str else type(item)(), True
        if means == _ODD:
            raise _OddKeyError
        if key in rules.ids and item == beside.get(rules.ids[key]):
            return item, False
        if type(item) is not str:
            return rules.number(item, depth + 1)
        told = self._numbers.get(item)
        if told is None:
            told, _ = rules.number(item, depth + 1)
            if self._may_remember(item):
                self._numbers[item] = told
        return told, told != item

    def _text(self, text: str, depth: int) -> str:
        """A text as it may be stored; the very same if it may be as it is."""
        told = self._changed.get(text)
        if told is not None:
            return told
        told = self._rules.told(text, depth)
        if self._may_remember(text) and PAYLOAD(text) is None:
            if told == text:
                self._clean.add(text)
            else:
                self._changed[text] = told
        return text if told == text else told

    def _may_remember(self, text: str) -> bool:
        if len(text) > LONGEST_REMEMBERED:
            return False
        self._room -= len(text) + _BESIDE_TEXT
        if self._room < 0:
            self._clean.clear()
            self._changed.clear()
            self._numbers.clear()
            self._room = MOST_REMEMBERED
        return True


def _meaning_of(key: str, rules: Rules) -> int:
    name = key.lower()
    if name in rules.secrets:
        return _SECRET
    if PLAIN(key) is None and (PAYLOAD(key) is not None or rules.told(key, 0) != key):
        return _ODD
    if name in rules.numbers and name not in rules.likely_numbers:
        return _NUMBER
    if name in rules.numbers:
        return _ODD if name in rules.transcripts else _LIKELY_NUMBER
    return _TRANSCRIPT if name in rules.transcripts else _NOTHING


def restore(redacted: Any, payload: Any, path: tuple[str, ...]) -> None:
    """Puts the id at the end of a path back as it was."""
    for name in path[:-1]:
        redacted, payload = (v.get(name) if isinstance(v, dict) else None for v in (redacted, payload))
    last = path[-1]
    if isinstance(redacted, dict) and isinstance(payload, dict) and isinstance(payload.get(last), str):
        redacted[last] = payload[last]


def is_all(payload: Any, body: bytes) -> bool:
    """Whether the bytes are plainly the payload and nothing more, which is quicker told than searched for."""
    try:
        return bool(msgspec.json.format(body, indent=-1) == msgspec.json.encode(payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False

"""Fields in text that does not parse: found by their names however these are spelt, cut out up to where they end."""

import json
import re
from collections.abc import Iterable
from functools import lru_cache


def as_text(body: bytes) -> str:
    """The bytes as text, in any encoding that JSON may come in; `as_bytes` gives back even what is no text."""
    encoding = json.detect_encoding(body)
    if encoding.startswith("utf-8"):
        return body.decode("utf-8", "surrogateescape")
    return body.decode(encoding, "replace")


def as_bytes(text: str) -> bytes:
    """What `as_text` read, in UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


@lru_cache(maxsize=64)  # of a few providers, for each of which it takes milliseconds
def key_pattern(names: frozenset[str], before: str, after: str) -> re.Pattern[str]:
    """Any of the names between two patterns, each of its letters plain or as a JSON escape."""
    spelt = ["".join(map(_letter, name)) for name in sorted(names, key=len, reverse=True)]
    return re.compile(before + "(?:" + "|".join(spelt) + ")" + after, re.IGNORECASE)


def _letter(char: str) -> str:
    # Only where a row of backslashes begins: there may be hundreds of thousands in one.
    codes = "|".join(sorted({f"{ord(char.lower()):02x}", f"{ord(char.upper()):02x}"}))
    return rf"(?:{re.escape(char)}|(?<!\\)\\++u00(?:{codes}))"


def cut_out(text: str, fields: Iterable[re.Pattern[str]]) -> str:
    """The text without the fields that the patterns find and without their values."""
    for pattern in fields:
        kept, place = [], 0
        while (found := pattern.search(text, place)) is not None:
            kept.append(text[place : found.start()])
            place = value_end(text, found.end())
        if kept:
            text = "".join([*kept, text[place:]])
    return text


def value_end(text: str, start: int) -> int:
    """Where the JSON value that starts here ends, as far as can be told from broken text; else the text's end."""
    depth, at, quoted = 0, start, False
    while at < len(text):
        char = text[at]
        if quoted:
            if char == "\\":
                at += 1
            elif char == '"':
                quoted = False
                if depth == 0:
                    return at + 1
        elif char == '"':
            quoted = True
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth <= 0:
                return at + (depth == 0)
        elif char == "," and depth == 0:
            return at
        at += 1
    return len(text)

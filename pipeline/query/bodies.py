"""Shows what a stranger has sent without letting it act on the terminal that shows it."""

import json
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from pipeline.model import Rejection
from pipeline.providers import read_json

_ACTING: Final = re.compile(
    # Control characters of both kinds, what turns the direction of writing, line ends of Unicode, halves of a pair.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_END: Final = re.compile(r"[\t\n]")
BYTES_A_LINE: Final = 16


def harmless(text: str) -> str:
    """The text with all that a terminal would obey spelt out, as JSON spells it; so JSON stays the same JSON."""
    return _ACTING.sub(_spelt, text)


def harmless_line(text: str) -> str:
    """The same for what has to stay on one line."""
    return _LINE_END.sub(_spelt, harmless(text))


def _spelt(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def shown_body(body: bytes) -> tuple[str, Iterator[str]]:
    """What the body is, and its lines: as JSON where it parses, else with the offset of each line's first byte."""
    if not body:
        return "empty", iter(())
    pretty = _pretty(body)
    if pretty is not None:
        return "JSON", iter(harmless(pretty).splitlines())
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8; offset, bytes, ASCII", _dump(body)
    return "text; byte offsets on the left", _with_offsets(text)


def _pretty(body: bytes) -> str | None:
    payload = read_json(body)
    if isinstance(payload, Rejection):
        return None
    try:
        return msgspec.json.format(body, indent=2).decode("utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The lenient parser takes more.
        return json.dumps(payload, indent=2, ensure_ascii=False)


def _with_offsets(text: str) -> Iterator[str]:
    offset = 0
    for line in text.splitlines(keepends=True):
        yield f"{offset:>8}  {harmless(line.rstrip(chr(10)))}"
        offset += len(line.encode())


def _dump(body: bytes) -> Iterator[str]:
    for offset in range(0, len(body), BYTES_A_LINE):
        part = body[offset : offset + BYTES_A_LINE]
        readable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{offset:>8}  {part.hex(' '):<{3 * BYTES_A_LINE - 1}}  {readable}"

"""Webhook archives: one JSON object per line, plain, `.gz` or `.zst`. Lines may repeat and come in any order."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

import msgspec
import zstandard

from pipeline import native
from pipeline.model import Rejection, Webhook
from pipeline.providers import read_instant, read_json


class UnreadableLine(NamedTuple):
    """A line that is no webhook: which, and why. The others go on."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class _Line(msgspec.Struct):
    provider: str
    received_at: Any
    body: msgspec.Raw
    headers: Any = None
    query: Any = None


_DECODER = msgspec.json.Decoder(_Line)
_BUFFERED = 1 << 18
_PACKED = (".gz", ".zst")

BYTES_AT_ONCE: Final = 1 << 20
"""Of lines that the compiled part reads together."""
_UNREADABLE: Final = (OSError, EOFError, zlib.error, zstandard.ZstdError)


def read_archive(
    file: Path, advanced: Callable[[int], None] = lambda _: None
) -> Iterator[Webhook | UnreadableLine]:
    """The webhooks of one archive. `advanced` is told how many bytes of the file (as stored) have been read."""
    number = 0
    try:
        with _opened(file) as (lines, position):
            for number, line in enumerate(lines, start=1):
                if line.isspace():
                    continue
                yield _webhook(file, number, line)
                if number % 1000 == 0:
                    advanced(position())
            advanced(position())
    except _UNREADABLE as error:
        # A cut-off or unreadable file: what could be read of it counts.
        yield _cut_off(file, number + 1, error)


def _cut_off(file: Path, number: int, problem: Exception) -> UnreadableLine:
    return UnreadableLine(file, number, getattr(problem, "strerror", None) or str(problem))


class Block(NamedTuple):
    """Some of an archive's bytes. Its first line begins with `head`; what is behind its last line end is of the next.

    Without any line end it is one line.
    """

    head: bytes
    data: bytes
    end: int = 0
    """Where its last line ends."""
    position: int = 0
    """How many bytes of the file, as stored, had been read then."""
    problem: Exception | None = None
    """What kept from reading on; such a block is the last one, and has no lines."""


Blocks = Generator[Block, None, None]
ReadBlocks = Generator[tuple[Block, native.Taken | None], None, None]
Ahead = Callable[[Blocks], ReadBlocks]
"""Goes through blocks, and may have the lines of some of them read already."""


def not_ahead(blocks: Blocks) -> ReadBlocks:
    """Reads nothing before it is its turn."""
    return ((block, None) for block in blocks)


def read_archive_quickly(
    file: Path,
    reader: native.LineReader,
    most: Callable[[], int],
    advanced: Callable[[int], None] = lambda _: None,
    ahead: Ahead = not_ahead,
) -> Iterator[native.Taken | Webhook | UnreadableLine]:
    """The same, with the events of ordinary webhooks in their place, many at a time.

    `most` says how many webhooks are wanted by the time that it is asked again.
    """
    number = 0
    with closing(_blocks(file)) as blocks, closing(ahead(blocks)) as read:
        for block, whole in read:
            start = 0
            while start < block.end:
                wanted = most()
                if start == 0 and whole is not None and whole.lines <= wanted:
                    taken = whole
                else:
                    # Also if it was read ahead, and more of it than is wanted.
                    taken = reader.read(block.head, block.data, start, wanted)
                yield taken
                for place, line in taken.left:
                    if not line.isspace():
                        yield _webhook(file, number + place + 1, line)
                number += taken.lines
                start = taken.end
            if block.problem is None:
                advanced(block.position)
            else:
                yield _cut_off(file, number + 1, block.problem)


def _blocks(file: Path) -> Blocks:
    head: list[bytes] = []
    try:
        with _opened(file) as (lines, position):
            # Each as it was read: if the next one fails, this one counts.
            while data := lines.read1(_BUFFERED if file.suffix in _PACKED else BYTES_AT_ONCE):
                end = data.rfind(b"\n") + 1
                if not end:
                    head.append(data)
                    continue
                yield Block(b"".join(head), data, end, position())
                head = [data[end:]]
            last = b"".join(head)
            yield Block(b"", last, len(last), position())
    except _UNREADABLE as error:
        yield Block(b"", b"", problem=error)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[io.BufferedReader, Callable[[], int]]]:
    # The usual buffer holds five lines, and most would be put together of two parts.
    with file.open("rb", _BUFFERED) as stored:
        if file.suffix == ".gz":
            with gzip.open(stored) as lines:
                yield io.BufferedReader(cast("io.RawIOBase", lines), _BUFFERED), stored.tell
        elif file.suffix == ".zst":
            yield io.BufferedReader(_Unzstd(stored), _BUFFERED), stored.tell
        else:
            yield cast("io.BufferedReader", stored), stored.tell


class _Unzstd(io.RawIOBase):
    """The content of a `.zst` file; EOFError where it is cut off, which the library's own reader does not tell."""

    def __init__(self, stored: IO[bytes]) -> None:
        self._stored = stored
        self._frame: Any = None
        self._rest = b""
        self._out = memoryview(b"")

    def readable(self) -> bool:
        """True: this is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer; 0 at the end of the last whole frame."""
        while not self._out:
            data = self._rest or self._stored.read(1 << 15)
            if not data and self._frame is not None:
                raise EOFError("the file ends in the middle of its compressed data")
            if not data:
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._out, self._rest = memoryview(self._frame.decompress(data)), b""
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._out))
        buffer[:size], self._out = self._out[:size], self._out[size:]
        return size


def _webhook(file: Path, number: int, line: bytes) -> Webhook | UnreadableLine:
    try:
        found = _DECODER.decode(line)
    except msgspec.ValidationError as error:
        return UnreadableLine(file, number, f"not a webhook: {error}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _leniently(file, number, line)
    return _built(
        file, number, found.provider, found.received_at, (found.headers, found.query), bytes(found.body)
    )


def _leniently(file: Path, number: int, line: bytes) -> Webhook | UnreadableLine:
    # A line that only a lenient parser takes; what is left of its body is the provider module's affair.
    found = read_json(line)
    if isinstance(found, Rejection):
        return UnreadableLine(file, number, f"not JSON: {found.message}")
    if not isinstance(found, dict) or not isinstance(found.get("provider"), str) or "body" not in found:
        return UnreadableLine(
            file, number, "not a webhook: an object with `provider` and `body` was expected"
        )
    rest = (found.get("headers"), found.get("query"))
    body = msgspec.json.encode(found["body"])
    return _built(file, number, found["provider"], found.get("received_at"), rest, body)


def _built(
    file: Path, number: int, provider: str, received_at: Any, rest: tuple[Any, Any], body: bytes
) -> Webhook | UnreadableLine:
    received_us = read_instant(received_at)
    if received_us is None:
        return UnreadableLine(file, number, "`received_at` is missing or not a time between 2000 and 2100")
    if body.startswith(b'"'):
        # The raw body as a string: what the provider sent was not JSON, or was to be kept to the letter.
        body = json.loads(body).encode("utf-8", "replace")
    headers, query = rest
    return Webhook(
        provider,
        received_us,
        body,
        {name.lower(): value for name, value in _texts(headers).items()} if headers else {},
        _texts(query) if query else {},
    )


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(k): str(v) for k, v in value.items() if isinstance(v, (str, int, float))}

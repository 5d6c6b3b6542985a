"""Reads a request's body, within what one sender may take: bytes, time, and a share of the memory."""

import asyncio
from collections.abc import Mapping
from functools import lru_cache

from aiohttp import web

MEMORY_BYTES = 256 * 1024 * 1024
"""Bodies held at a time, of all senders: as many as a thousand of the largest would be too many."""


class RefusedError(Exception):
    """The answer to a request that is not taken."""

    def __init__(self, status: int, why: str, retry_seconds: int | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.retry_seconds = retry_seconds


class _Reading:
    """One body that is on its way."""

    def __init__(self, timer: asyncio.Timeout) -> None:
        self.size = 0
        self.is_ended = False
        self._timer = timer

    def end(self) -> None:
        """It has to make room; whoever reads it is told by a cancellation."""
        self.is_ended = True
        self._timer.reschedule(0)


class Intake:
    """Bodies of one collector."""

    def __init__(self, max_body_bytes: int, request_seconds: float) -> None:
        self._max_body_bytes = max_body_bytes
        self._request_seconds = request_seconds
        #: the one that has taken longest first
        self._readings: dict[_Reading, None] = {}
        self.held_bytes = 0
        """Of bodies that are being read, or have been and were not released."""

    def check_head(self, headers: Mapping[str, str]) -> None:
        """What can be refused before the body is read; names of headers in lower case. Raises `RefusedError`."""
        if not _is_json(headers.get("content-type", "")):
            raise RefusedError(415, "the content type is not JSON")
        content = headers.get("content-encoding", "identity")
        transfer = headers.get("transfer-encoding", "chunked")
        if content.lower() != "identity" or transfer.lower() != "chunked":
            raise RefusedError(415, "the body is compressed")
        # That it is a number has been seen to by aiohttp's parser.
        if int(headers.get("content-length", 0)) > self._max_body_bytes:
            raise self._too_large()

    async def read(self, request: web.Request) -> bytes:
        """The whole body, to be released when its answer is known. Raises `RefusedError`."""
        if not request.can_read_body:
            return b""
        try:
            if request.content.is_eof():
                # The usual case: head and body came together.
                body = request.content.read_nowait()
                self._hold(len(body), len(body))
                return body
            async with asyncio.timeout(self._request_seconds) as timer:
                return await self._read_in_pieces(request, _Reading(timer))
        except TimeoutError:
            raise RefusedError(408, "the body took too long") from None
        except RefusedError:
            raise
        except Exception as problem:  # whatever a broken body makes of aiohttp, it is the sender's
            raise RefusedError(400, "the body does not come through") from problem

    def release(self, body: bytes) -> None:
        """The body is not needed any longer."""
        self.held_bytes -= len(body)

    async def _read_in_pieces(self, request: web.Request, reading: _Reading) -> bytes:
        pieces: list[bytes] = []
        self._readings[reading] = None
        try:
            while piece := await request.content.readany():
                self._hold(len(piece), reading.size + len(piece))
                reading.size += len(piece)
                pieces.append(piece)
            if reading.is_ended:
                raise _too_many()
        except BaseException:
            self.held_bytes -= reading.size
            if reading.is_ended:
                raise _too_many() from None
            raise
        finally:
            del self._readings[reading]
        return b"".join(pieces)

    def _hold(self, more_bytes: int, body_bytes: int) -> None:
        """Count more bytes of a body that has so many now. Raises `RefusedError`."""
        if body_bytes > self._max_body_bytes:
            raise self._too_large()
        while self.held_bytes + more_bytes > MEMORY_BYTES:
            # It is the slowest that makes room: those who never finish must not keep out those who do.
            slowest = next((reading for reading in self._readings if reading.size), None)
            if slowest is None:
                raise _too_many()
            self.held_bytes -= slowest.size
            slowest.size = 0
            slowest.end()
        self.held_bytes += more_bytes

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"the body is over {self._max_body_bytes} bytes")


def _too_many() -> RefusedError:
    return RefusedError(503, "too many bodies at a time", 1)


@lru_cache(maxsize=256)
def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")

"""The connections of the collector: so many at a time, and none that a slow or broken sender holds for long.

A subclass of aiohttp's connection, because nothing documented bounds how long a request's head may take, closes the
idlest of too many, or keeps what a broken request said out of the log.
"""

import asyncio
import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

from aiohttp import web

log = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 75.0
"""How long an idle connection stays open: long, for a sender that never tries again may be about to use it."""
LINGERING_SECONDS = 2.0
"""How long the rest of a refused body is read, so that the sender sees the answer before the end."""

_NO_HTTP = "the request is no HTTP that is taken here"


def _last_answer(status: str, message: str, *headers: str) -> bytes:
    body = json.dumps({"message": message})
    about = ("Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}")
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, *about, "", body)).encode()


_BROKEN = _last_answer("400 Bad Request", _NO_HTTP)
_FULL = _last_answer("503 Service Unavailable", "too many connections", "Retry-After: 1")

Count = Callable[[str], None]


class Connections:
    """Makes the connections of one server, and is what aiohttp's site asks for them.

    `count_other` is called with the answer to a request that was no HTTP, or for which there is no page or method;
    `count_closed` with why a connection was closed.
    """

    def __init__(
        self,
        limit: int,
        request_seconds: float,
        max_header_bytes: int,
        count_other: Count,
        count_closed: Count,
    ) -> None:
        self.limit = limit
        self.request_seconds = request_seconds
        self.count_other = count_other
        self.count_closed = count_closed
        self._limits = {"max_line_size": max_header_bytes, "max_field_size": max_header_bytes}
        #: in the order of their last sign of life
        self._open: dict[Connection, None] = {}
        self._server: web.Server | None = None

    def serve(self, server: web.Server) -> None:
        """The server whose requests come in by them."""
        self._server = server

    def __len__(self) -> int:
        return len(self._open)

    def __call__(self) -> asyncio.Protocol:
        """A protocol for a connection that has come in."""
        if len(self._open) >= self.limit and not self._close_idlest():
            self.count_closed("full")
            return _Full()
        assert self._server is not None
        return Connection(
            self._server,
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGERING_SECONDS,
            # What is signed are the bytes as they came.
            auto_decompress=False,
            access_log=None,
            **self._limits,
        )

    def note_alive(self, connection: "Connection") -> None:
        """It is open, and has just done something useful."""
        self._open.pop(connection, None)
        self._open[connection] = None

    def note_closed(self, connection: "Connection") -> None:
        """It is open no longer."""
        self._open.pop(connection, None)

    def _close_idlest(self) -> bool:
        idle = (connection for connection in self._open if not connection.is_working)
        # Who has brought a webhook may be about to bring the next: those who never did make room first.
        idlest = min(idle, key=lambda connection: connection.is_proven, default=None)
        if idlest is None:
            return False
        self.count_closed("idlest")
        self._open.pop(idlest, None)
        idlest.cut_off()
        return True


class Connection(web.RequestHandler):
    """One sender's connection."""

    __slots__ = ("_connections", "_timer", "is_proven", "is_working")

    def __init__(self, server: web.Server, connections: Connections, **options: Any) -> None:
        super().__init__(server, **options)
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None
        #: whether a webhook came by it that was believed and stored
        self.is_proven = False
        #: whether a whole request is in hand, so that closing it now would lose an answer
        self.is_working = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        super().connection_made(transport)
        self._connections.note_alive(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is closed, by whichever side."""
        self._stop_timer()
        self._connections.note_closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A piece of a request; from the first one on the time runs."""
        if self._timer is None and not self.is_working:
            self._start_timer()
        super().data_received(data)

    async def start(self) -> None:
        """Handle what comes, until the connection is closed."""
        try:
            await super().start()
        except Exception as problem:  # noqa: BLE001  aiohttp cannot make a request of all that its parser lets through
            log.debug("a request was refused: %s", type(problem).__name__)
            self._connections.count_other("400")
            if isinstance(self.transport, asyncio.Transport):
                self.transport.write(_BROKEN)
            self.force_close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """A request has come to its answer, which the sender has to take in time as well."""
        if isinstance(resp, web.HTTPException):
            self._connections.count_other(str(resp.status))
        if self._timer is None:
            self._start_timer()
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._stop_timer()
            if self.transport is not None:
                self._connections.note_alive(self)

    def cut_off(self) -> None:
        """Close it whatever is under way."""
        transport = self.transport
        self.force_close()
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, or to an error of ours. The log says where it was, not what was sent."""
        expected = request.headers.get("Expect", "100-continue")
        if isinstance(exc, UnicodeError) and expected.lower() != "100-continue":
            # aiohttp refuses it by quoting it, which it cannot if it is no text.
            status = 417
        self._connections.count_other(str(status))
        if status >= 500 and exc is not None:
            _tell(exc)
        answer = web.json_response(
            {"message": "internal error" if status >= 500 else _NO_HTTP}, status=status
        )
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What aiohttp would log with a traceback, whose last line may quote what was sent."""
        exc = kw.get("exc_info")
        if isinstance(exc, Exception) and not isinstance(exc, web.RequestPayloadError):
            _tell(exc)

    def _too_slow(self) -> None:
        self._timer = None
        if not self.is_working:
            self._connections.count_closed("slow")
            self.cut_off()

    def _start_timer(self) -> None:
        # Twice: the head may take as long as the body, which has a limit of its own, with an answer.
        seconds = 2 * self._connections.request_seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _tell(exc: BaseException) -> None:
    where = traceback.extract_tb(exc.__traceback__)[-1:]
    place = f"{where[0].filename}:{where[0].lineno}" if where else "an unknown place"
    log.error("internal error: %s in %s", type(exc).__name__, place)


class _Full(asyncio.Protocol):
    """A connection that there is no room for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_FULL)
        transport.close()

# ruff: noqa: SLF001  aiokafka, pinned exactly, offers no public way to how its connections read
"""What Kafka answers, read into one buffer that is used again and again, and each partition's bytes copied out of it.

aiokafka's connection reads by asyncio's stream: a byte is copied from the kernel into a piece of 256 KiB, from there
into the stream's buffer, into the bytes of the frame, and into those of its partition. All but the last are as large
as the whole answer and new each time, so that the kernel hands out fresh pages for them, which costs more than the
copies. Here the kernel writes into the buffer, and the partition's bytes are the one copy.

Only the client that is given to `read_frames` does so, and only how it reads is replaced: its connections are made,
authenticated, timed out and closed by aiokafka, which handles all frames but answers to fetches as well. Their streams
get no more bytes, yet learn of the connection's end, and of what is wrong with a frame: that closes it, as ever.
"""

import asyncio
import struct
import time
import weakref
from typing import Any

from aiokafka.protocol.fetch import FetchRequest

FIRST_BYTES = 64 * 1024
KEPT_BYTES = 32 * 1024 * 1024
"""A buffer that has grown beyond it, for a message that large, is given back."""

_SIZE = struct.Struct(">i")


class _Reading:
    """Reads from a frame as aiokafka does from `io.BytesIO`, which would copy it first."""

    def __init__(self, frame: memoryview) -> None:
        self._frame = frame
        self._at = 0

    def read(self, count: int) -> bytes:
        """So many bytes, or what is left."""
        start = self._at
        self._at += count
        return bytes(self._frame[start : self._at])


class FrameProtocol(asyncio.BufferedProtocol):
    """Cuts what a connection receives into frames: a length of four bytes, and so many bytes.

    Nobody holds anything of the buffer once a frame is handled.
    """

    def __init__(self, connection: Any) -> None:
        """Takes the place of the connection's own protocol, which hears of all but the bytes as before."""
        transport = connection._writer.transport
        self._own = transport.get_protocol()
        # A connection that nobody holds closes itself.
        self._connection = weakref.ref(connection)
        self._stream: asyncio.StreamReader = connection._reader
        self._buffer = bytearray(FIRST_BYTES)
        self._filled = 0
        #: how much there must be before there is anything to do; always more than `_filled`
        self._wanted = _SIZE.size
        transport.set_protocol(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the stream, and with it aiokafka's reader."""
        self._own.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Ends the stream too, and the connection: kept open, only its reader would close it, when its turn comes."""
        self._own.eof_received()
        return False

    def pause_writing(self) -> None:
        """Kafka takes no more for now."""
        self._own.pause_writing()

    def resume_writing(self) -> None:
        """Kafka takes more."""
        self._own.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._filled == len(self._buffer):
            # The length is the sender's word: it is believed only as far as bytes have come.
            larger = bytearray(min(2 * self._filled, self._wanted))
            larger[: self._filled] = self._buffer
            self._buffer = larger
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        self._filled += nbytes
        if self._filled < self._wanted:
            return
        try:
            self._handle_frames()
        except Exception as problem:  # noqa: BLE001  whatever it is, aiokafka's reader fails by it, and closes
            self._drop()
            self._stream.set_exception(problem)

    def _handle_frames(self) -> None:
        """Hands over all whole frames; what is left moves to the front."""
        start, received = 0, memoryview(self._buffer)[: self._filled]
        while (connection := self._connection()) is not None and connection._reader is self._stream:
            self._wanted = _SIZE.size
            if len(received) - start >= _SIZE.size:
                (size,) = _SIZE.unpack_from(received, start)
                if size < 0:
                    raise ValueError(f"a frame of {size} bytes")
                self._wanted += size
            end = start + self._wanted
            if end > len(received):
                self._keep(received, start)
                return
            _handle(connection, received[start + _SIZE.size : end])
            start = end
        # It has been closed, and what still comes is nobody's.
        self._drop()

    def _keep(self, received: memoryview, start: int) -> None:
        rest = received[start:]
        self._filled = len(rest)
        if len(self._buffer) > KEPT_BYTES >= self._wanted:
            self._buffer = bytearray(max(FIRST_BYTES, self._filled))
        elif not start:
            return
        memoryview(self._buffer)[: self._filled] = rest

    def _drop(self) -> None:
        self._filled, self._wanted = 0, _SIZE.size


def _handle(connection: Any, frame: memoryview) -> None:
    """`AIOKafkaConnection._handle_frame`, which still handles all but an answer to a fetch that is waited for."""
    correlation_id, request, answer = connection._requests[0]
    # None is the request of an authentication, which has no header.
    if request is not None and request.API_KEY == FetchRequest.API_KEY and not answer.done():
        reading = _Reading(frame)
        if request.parse_response_header(reading).correlation_id == correlation_id:
            answer.set_result(request.RESPONSE_TYPE.decode(reading))
            connection._last_action = time.monotonic()
            connection._requests.popleft()
            return
    connection._handle_frame(bytes(frame))


def read_frames(client: Any) -> None:
    """Make an `AIOKafkaClient` that is not started read so, on every connection that it makes to a broker it knows."""
    connect = client._get_conn

    async def connect_and_read(*args: Any, **options: Any) -> Any:
        connection = await connect(*args, **options)
        # Nothing has been asked on a new one since it was authenticated: no frame is on its way.
        if connection is not None and connection._writer is not None:
            protocol = connection._writer.transport.get_protocol()
            if not isinstance(protocol, FrameProtocol):
                FrameProtocol(connection)
        return connection

    client._get_conn = connect_and_read

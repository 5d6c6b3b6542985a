"""What a connection receives, however it is cut, against aiokafka's own way of reading it."""

import asyncio
import gc
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v4
from aiokafka.protocol.metadata import MetadataRequest, MetadataResponse_v0

from pipeline.stream import frames
from pipeline.stream.frames import FrameProtocol, read_frames

VERSIONS = {FetchRequest.API_KEY: (4, 4), MetadataRequest.API_KEY: (0, 0)}
FETCH = FetchRequest(250, 1, 1000, 0, [("topic", [(0, 0, 1000)])])


class Wire(asyncio.Transport):
    """A transport of which the test is the other side."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written: list[bytes] = []
        self.is_closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def receive(self, data: bytes) -> None:
        """Deliver bytes as asyncio's transports do: to protocols of both kinds, in pieces no larger than asked for."""
        while data and not self.is_closed:
            if not isinstance(self.protocol, asyncio.BufferedProtocol):
                assert isinstance(self.protocol, asyncio.Protocol)
                self.protocol.data_received(data)
                return
            buffer = self.protocol.get_buffer(-1)
            assert len(buffer)
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]  # type: ignore[index]
            self.protocol.buffer_updated(count)
            data = data[count:]


def connected(*, reads_frames: bool = True) -> tuple[AIOKafkaConnection, Wire]:
    """A connection as aiokafka makes it, authenticated and idle; in a running loop."""
    connection = AIOKafkaConnection("broker", 9092)
    loop = asyncio.get_running_loop()
    connection._closed_fut = loop.create_future()
    reader = asyncio.StreamReader(loop=loop)
    protocol = AIOKafkaProtocol(connection._closed_fut, reader, loop=loop)
    wire = Wire(protocol)
    protocol.connection_made(wire)
    connection._reader, connection._protocol = reader, protocol
    connection._writer = asyncio.StreamWriter(wire, protocol, reader, loop)
    connection._versions = VERSIONS
    connection._read_task = connection._create_reader_task()
    if reads_frames:
        FrameProtocol(connection)
    return connection, wire


def framed(correlation_id: int, body: bytes) -> bytes:
    return struct.pack(">ii", 4 + len(body), correlation_id) + body


def fetched(correlation_id: int, records: bytes | None) -> bytes:
    partitions = [(0, 0, 7, 7, [(1, 2)], records), (1, 3, -1, -1, None, b"")]
    return framed(correlation_id, FetchResponse_v4(5, [("topic", partitions)]).encode())


def metadata(correlation_id: int) -> bytes:
    return framed(correlation_id, MetadataResponse_v0([(0, "broker", 9092)], []).encode())


async def answers_to(requests: list[Any], chunks: list[bytes], *, reads_frames: bool) -> list[Any]:
    connection, wire = connected(reads_frames=reads_frames)
    waiting = [asyncio.ensure_future(connection.send(request)) for request in requests]
    for chunk in chunks:
        wire.receive(chunk)
    answers = [await answer for answer in waiting]
    assert not connection._requests
    assert connection.connected()
    await ended(connection, wire)
    return [answer.encode() for answer in answers]


async def ended(connection: AIOKafkaConnection, wire: Wire) -> None:
    connection.close()
    wire.protocol.connection_lost(None)
    assert connection._closed_fut is not None
    await connection._closed_fut


REQUESTS = [FETCH, MetadataRequest([]), FETCH, FETCH]
STREAM = b"".join([fetched(1, b"records"), metadata(2), fetched(3, None), fetched(4, b"x" * 300)])


def test_frames_cut_at_every_byte_are_read_as_aiokafka_reads_them() -> None:
    async def compare() -> None:
        expected = await answers_to(REQUESTS, [STREAM], reads_frames=False)
        for cut in range(len(STREAM) + 1):
            chunks = [STREAM[:cut], STREAM[cut:]]
            assert await answers_to(REQUESTS, chunks, reads_frames=True) == expected
        single = [STREAM[at : at + 1] for at in range(len(STREAM))]
        assert await answers_to(REQUESTS, single, reads_frames=True) == expected

    asyncio.run(compare())


@pytest.mark.parametrize("size", [0, frames.FIRST_BYTES - 1, frames.FIRST_BYTES, 5_000_000, 40_000_000])
def test_frames_of_any_size_are_whole_and_only_an_ordinary_buffer_is_kept(size: int) -> None:
    async def receive() -> None:
        connection, wire = connected()
        records = bytes(range(256)) * (size // 256) + b"." * (size % 256)
        for correlation_id in (1, 3):
            answer = connection.send(FETCH)
            wire.receive(fetched(correlation_id, records) + b"\0")
            wire.receive(b"\0\0")
            assert (await answer).topics[0][1][0][-1] == records
            # What follows has begun to come: the three bytes belong to its length.
            answer = connection.send(MetadataRequest([]))
            wire.receive(metadata(correlation_id + 1)[3:])
            await answer
        assert isinstance(wire.protocol, FrameProtocol)
        assert len(wire.protocol._buffer) <= max(frames.FIRST_BYTES, min(size + 1000, frames.KEPT_BYTES))
        await ended(connection, wire)

    asyncio.run(receive())


def test_what_was_handed_over_stays_as_it_is_when_the_buffer_is_used_again() -> None:
    async def receive() -> None:
        connection, wire = connected()
        kept = []
        for correlation_id in range(1, 4):
            answer = connection.send(FETCH)
            wire.receive(fetched(correlation_id, b"%d" % correlation_id * 1000))
            kept.append((await answer).topics[0][1][0][-1])
        assert kept == [b"1" * 1000, b"2" * 1000, b"3" * 1000]
        await ended(connection, wire)

    asyncio.run(receive())


def lost(wire: Wire) -> None:
    wire.protocol.connection_lost(ConnectionResetError("reset"))


def cut_off(wire: Wire) -> None:
    wire.receive(fetched(1, b"records")[:-1])
    wire.protocol.eof_received()  # type: ignore[attr-defined]


FAILURES: dict[str, Callable[[Wire], None]] = {
    "the end of the connection": lost,
    "the end within a frame": cut_off,
    "another correlation id": lambda wire: wire.receive(fetched(9, b"")),
    "a length below zero": lambda wire: wire.receive(b"\xff\xff\xff\xff"),
    "a frame without a header": lambda wire: wire.receive(b"\0\0\0\0"),
    "an answer that is cut": lambda wire: wire.receive(framed(1, fetched(1, b"records")[8:-20])),
    "a list longer than the answer": lambda wire: wire.receive(framed(1, b"\0\0\0\0\x7f\0\0\0")),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("reads_frames", [False, True])
def test_what_goes_wrong_closes_the_connection_and_fails_what_waits(
    failure: Callable[[Wire], None], reads_frames: bool
) -> None:
    async def fail() -> None:
        connection, wire = connected(reads_frames=reads_frames)
        answer = asyncio.ensure_future(connection.send(FETCH))
        later = asyncio.ensure_future(connection.send(FETCH))
        failure(wire)
        results = await asyncio.gather(answer, later, return_exceptions=True)
        assert all(
            isinstance(result, KafkaConnectionError) or "Correlation" in repr(result) for result in results
        )
        assert not connection.connected()
        if reads_frames:
            # What still comes is nobody's, and does no harm.
            wire.is_closed = False
            wire.receive(fetched(2, b"records"))
        with pytest.raises(KafkaConnectionError):
            connection.send(FETCH)

    asyncio.run(fail())


def test_an_answer_that_nobody_waits_for_any_more_is_passed_over() -> None:
    async def give_up() -> None:
        connection, wire = connected()
        given_up = asyncio.ensure_future(connection.send(FETCH))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        answer = connection.send(FETCH)
        wire.receive(fetched(1, b"late") + fetched(2, b"in time"))
        assert (await answer).topics[0][1][0][-1] == b"in time"
        await ended(connection, wire)

    asyncio.run(give_up())


def test_a_token_of_an_authentication_is_passed_through() -> None:
    async def authenticate() -> None:
        connection, wire = connected()
        answer = connection._send_sasl_token(b"token")
        wire.receive(b"\0\0\0\3yes")
        assert await answer == b"yes"
        await ended(connection, wire)

    asyncio.run(authenticate())


@pytest.mark.filterwarnings("ignore:Unclosed AIOKafkaConnection:ResourceWarning")
def test_a_connection_that_nobody_holds_is_not_held_here_either() -> None:
    async def forget() -> None:
        connection, wire = connected()
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        seen = weakref.ref(connection)
        await asyncio.sleep(0)
        del connection
        gc.collect()
        assert seen() is None
        wire.is_closed = False
        wire.receive(fetched(1, b"records"))

    asyncio.run(forget())


def test_writing_waits_while_kafka_takes_no_more() -> None:
    async def write() -> None:
        connection, wire = connected()
        assert connection._writer is not None
        assert isinstance(wire.protocol, FrameProtocol)
        wire.protocol.pause_writing()
        draining = asyncio.ensure_future(connection._writer.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        wire.protocol.resume_writing()
        await draining
        await ended(connection, wire)

    asyncio.run(write())


def test_only_the_client_that_is_asked_to_reads_so_and_takes_each_connection_once() -> None:
    class Client:
        def __init__(self, connection: AIOKafkaConnection | None) -> None:
            self.connection = connection

        async def _get_conn(self, node_id: int, *, no_hint: bool = False) -> AIOKafkaConnection | None:
            return self.connection

    async def connect() -> None:
        connection, wire = connected(reads_frames=False)
        ours, other, unreachable = Client(connection), Client(connection), Client(None)
        for client in (ours, unreachable):
            read_frames(client)
        assert await other._get_conn(0) is connection
        assert isinstance(wire.protocol, AIOKafkaProtocol)
        assert await ours._get_conn(0, no_hint=True) is connection
        protocol = wire.protocol
        assert isinstance(protocol, FrameProtocol)
        assert await ours._get_conn(0) is connection
        assert wire.protocol is protocol
        assert await unreachable._get_conn(0) is None
        await ended(connection, wire)

    asyncio.run(connect())

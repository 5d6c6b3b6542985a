"""Posts prepared HTTP requests over keep-alive connections as fast as they are answered, and tells how that went.

    python benchmarks/load.py HOST:PORT FILE [--connections 64] [--seconds 10 | --requests N]

FILE holds whole requests, each with four bytes of its length before it. They are sent in turn, again and again. Printed
is one line of JSON: requests, seconds, answers by status, and the latencies' percentiles in milliseconds.
A client of its own, because the usual ones in Python cost more than the server that is measured.
"""

import argparse
import asyncio
import itertools
import json
import struct
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


class Answers(asyncio.Protocol, ABC):
    """One connection, which tells each answer's status once all of the answer is there."""

    received = b""

    @abstractmethod
    def answered(self, status: int) -> None:
        """An answer has come."""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, rest = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self.received = rest[length:]
        self.answered(int(head[9:12]))


class Sender(Answers):
    """A request, its answer, the next request."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        request = self.load.next_request()
        if request is None:
            self.transport.close()
            return
        self.sent_at = time.perf_counter()
        self.transport.write(request)  # type: ignore[attr-defined]

    def answered(self, status: int) -> None:
        self.load.answered(status, time.perf_counter() - self.sent_at)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.closed(exc)


class Load:
    """What all connections share: the requests that are left, and what came of them."""

    def __init__(self, requests: list[bytes], connections: int, seconds: float, limit: int | None) -> None:
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._left = limit
        self._until = time.perf_counter() + seconds
        self._open = connections
        self.done = asyncio.Event()
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.broken = 0

    def next_request(self) -> bytes | None:
        if self._left is not None:
            self._left -= 1
            return next(self._requests) if self._left >= 0 else None
        return next(self._requests) if time.perf_counter() < self._until else None

    def answered(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.latencies.append(seconds)

    def closed(self, problem: Exception | None) -> None:
        self.broken += problem is not None
        self._open -= 1
        if self._open == 0:
            self.done.set()


def read_requests(file: Path) -> list[bytes]:
    data, place, requests = file.read_bytes(), 0, []
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        requests.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    return requests


async def run(options: argparse.Namespace) -> None:
    host, _, port = options.address.rpartition(":")
    began = time.perf_counter()
    load = Load(read_requests(options.file), options.connections, options.seconds, options.requests)
    loop = asyncio.get_running_loop()
    await asyncio.gather(
        *(loop.create_connection(lambda: Sender(load), host, int(port)) for _ in range(options.connections))
    )
    await load.done.wait()
    seconds = time.perf_counter() - began
    load.latencies.sort()

    def percentile_ms(share: float) -> float:
        return round(1000 * load.latencies[min(len(load.latencies) - 1, int(share * len(load.latencies)))], 3)

    told = {
        "requests": len(load.latencies),
        "seconds": round(seconds, 3),
        "statuses": dict(load.statuses),
        "broken": load.broken,
        "p50_ms": percentile_ms(0.5),
        "p99_ms": percentile_ms(0.99),
    }
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("file", type=Path)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--requests", type=int)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

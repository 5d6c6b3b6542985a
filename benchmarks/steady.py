"""Posts prepared HTTP requests at a steady rate, each once and in turn, and keeps when each was answered with 202.

    python benchmarks/steady.py HOST:PORT FILE TIMES --per-second 2000 [--connections 32]

FILE holds whole requests as `load.py` takes them. TIMES gets a double for each request: the time of its 202, in seconds
since the epoch. A request that is due waits for a free connection; any other answer ends the program.
"""

import argparse
import asyncio
import time
from array import array
from collections import deque
from pathlib import Path

from load import Answers, read_requests


class Connection(Answers):
    """One connection; free, or waiting for the answer to one request."""

    def __init__(self, rate: "Steady") -> None:
        self.rate, self.index = rate, -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.rate.free.append(self)

    def send(self, index: int, request: bytes) -> None:
        self.index = index
        self.transport.write(request)  # type: ignore[attr-defined]

    def answered(self, status: int) -> None:
        self.rate.answered(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        self.rate.lost(exc)


class Steady:
    """What the connections share: the schedule, and the times of the answers."""

    def __init__(self, requests: list[bytes], per_second: float) -> None:
        self.requests, self.per_second = requests, per_second
        self.free: deque[Connection] = deque()
        self.times = array("d", bytes(8 * len(requests)))
        self.sent = self.done = 0
        self.problem: str | None = None

    async def run(self) -> None:
        began = time.monotonic()
        while self.done < len(self.requests) and self.problem is None:
            due = min(len(self.requests), int((time.monotonic() - began) * self.per_second) + 1)
            while self.sent < due and self.free:
                self.free.popleft().send(self.sent, self.requests[self.sent])
                self.sent += 1
            await asyncio.sleep(0.002)
        if self.problem is not None:
            raise SystemExit(self.problem)

    def answered(self, connection: Connection, status: int) -> None:
        if status != 202:
            self.problem = f"request {connection.index} was answered with {status}"
        self.times[connection.index] = time.time()
        self.done += 1
        self.free.append(connection)

    def lost(self, problem: Exception | None) -> None:
        if self.done < len(self.requests):
            self.problem = f"a connection was lost: {problem!r}"


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("file", type=Path)
    parser.add_argument("times", type=Path)
    parser.add_argument("--per-second", type=float, required=True)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    steady = Steady(read_requests(options.file), options.per_second)
    loop = asyncio.get_running_loop()
    await asyncio.gather(
        *(
            loop.create_connection(lambda: Connection(steady), host, int(port))
            for _ in range(options.connections)
        )
    )
    await steady.run()
    options.times.write_bytes(steady.times.tobytes())


if __name__ == "__main__":
    asyncio.run(main())

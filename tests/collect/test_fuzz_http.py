"""A hundred thousand bent requests over raw sockets: nothing breaks, nothing is lost, and the count adds up.

`CALLFOLD_FUZZ_SEED` changes what is sent, `CALLFOLD_FUZZ_BATCHES` how much.
"""

import asyncio
import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mutated
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from running import PROVIDERS, Collecting, metrics_on, until

from pipeline.stream.embedded import EmbeddedBroker
from pipeline.stream.topics import bootstrap_servers

SEED = int(os.environ.get("CALLFOLD_FUZZ_SEED", "1"))
BATCHES = int(os.environ.get("CALLFOLD_FUZZ_BATCHES", "500"))
BATCH = 220
"""Some requests make those behind them on their connection go unanswered: more than 200 are answered."""
ANSWERS = {202, 400, 401, 404, 405, 408, 413, 415, 417, 429, 503}
OWN_PAGES = {200, 204, 304}
"""Of the collector's own pages, which no webhook gets and which are not counted."""
_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3}) ")
_NEVER = 1 << 30
_LAST = b"GET /health/live HTTP/1.1\r\nHost: collector\r\nConnection: close\r\n\r\n"


class Batch(NamedTuple):
    """What a batch is made of: the kinds of mutations, how many requests follow one another, and all the rest."""

    names: list[str]
    depth: int
    number: int


batches = st.builds(
    Batch,
    st.lists(st.sampled_from(mutated.NAMES), min_size=3, max_size=10, unique=True),
    st.integers(1, 20),
    st.integers(0, 2**64 - 1),
)


class _Talk(asyncio.Protocol):
    """One connection. A stream of asyncio's would forget what was said before a reset."""

    def __init__(self, raw: bytes, count: int) -> None:
        self.said = b""
        self.ended = asyncio.get_running_loop().create_future()
        self._raw, self._count = raw, count
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._raw)

    def data_received(self, data: bytes) -> None:
        self.said += data
        if len(_statuses(self.said)) >= self._count:
            self._count = _NEVER
            self._transport.write(_LAST)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Senders:
    """Sends on an event loop of its own, and keeps what was answered."""

    def __init__(self, port: int) -> None:
        self.answers: Counter[int] = Counter()
        self.sent = 0
        self.problems: list[str] = []
        self._corpus = mutated.Corpus()
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._pending: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
        assert not self.problems, self.problems[:3]

    async def send(self, batch: Batch) -> None:
        """Send a batch; those that wait for the collector to lose its patience are not waited for."""
        rng = random.Random(batch.number)
        together: list[bytes] = []
        for _ in range(BATCH):
            names = rng.sample(batch.names, rng.randint(1, 2))
            draft, is_alone = self._corpus.request(rng, names)
            raw = mutated.flipped(rng, draft.raw()) if "bytes" in names else draft.raw()
            if is_alone or "bytes" in names:
                self._begin(self._one(raw))
            else:
                together.append(raw)
        self.sent += BATCH
        lines = [together[n : n + batch.depth] for n in range(0, len(together), batch.depth)]
        await asyncio.gather(*(self._several(line) for line in lines))
        while len(self._pending) > 150:
            await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)

    async def finish(self) -> None:
        while self._pending:
            await asyncio.wait(self._pending)

    async def _give_up(self) -> None:
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._give_up(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _several(self, line: list[bytes]) -> None:
        """Requests that are answered one by one, in their order, whatever else is wrong with them."""
        said = await self._talk(b"".join(line), len(line))
        statuses = self._note(said, b"".join(line))
        if len(statuses) < len(line) and 408 not in statuses:
            self.problems.append(f"{statuses} to {len(line)}: {line[len(statuses) - 1][:2000]!r}")

    async def _one(self, raw: bytes) -> None:
        """A request that may be none, or two, or the beginning of one."""
        self._note(await self._talk(raw, 1), raw)

    async def _talk(self, raw: bytes, count: int) -> bytes:
        """Everything that comes back until the collector closes, which is asked for after so many answers."""
        talk = _Talk(raw, count)
        try:
            async with asyncio.timeout(30):
                transport, _ = await self._loop.create_connection(lambda: talk, "127.0.0.1", self._port)
                try:
                    await talk.ended
                finally:
                    transport.abort()
        except TimeoutError:
            self.problems.append(f"no end: {raw[:2000]!r} -> {talk.said[-500:]!r}")
        return talk.said

    def _note(self, said: bytes, raw: bytes) -> list[int]:
        statuses = _statuses(said)
        self.answers.update(statuses)
        odd = [status for status in statuses if status not in ANSWERS | OWN_PAGES]
        if odd:
            self.problems.append(f"{odd}: {raw[:2000]!r} -> {said[-500:]!r}")
        return statuses


def _statuses(said: bytes) -> list[int]:
    found = [int(status) for status in _STATUS.findall(said)]
    return [status for status in found if status >= 200]


@contextmanager
def collecting(folder: Path, broker: EmbeddedBroker) -> Iterator[Collecting]:
    given = mutated.settings() | {
        "CALLFOLD_BROKER": broker.url,
        "CALLFOLD_SPOOL_MAX_BYTES": "0",
        "CALLFOLD_HTTP_REQUEST_SECONDS": "1",
        "CALLFOLD_LOG_FORMAT": "json",
    }
    collector = Collecting(folder, **given)
    try:
        yield collector
    finally:
        collector.kill_all()


async def _records(url: str) -> int:
    """How many records were ever put on the topics of the webhooks: the broker forgets bytes, and no offset."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers(url))
    await consumer.start()
    try:
        places = [TopicPartition(f"callfold.webhooks.{name}", n) for name in PROVIDERS for n in range(4)]
        return sum((await consumer.end_offsets(places)).values())
    finally:
        await consumer.stop()


@pytest.mark.slow
def test_bent_requests_are_answered_and_counted(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker, collecting(tmp_path, broker) as collector:
        port = int(collector.settings["CALLFOLD_HTTP_PORT"])
        senders = Senders(port)
        began = time.monotonic()

        @seed(SEED)
        @settings(
            max_examples=BATCHES,
            deadline=None,
            database=None,
            # What failed is told; a smaller batch would not tell more, and the count is over all of them.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(batches)
        def send(batch: Batch) -> None:
            senders.run(senders.send(batch))
            assert collector.process.poll() is None, collector.said()

        try:
            send()
            senders.run(senders.finish())
        finally:
            senders.close()
        seconds = time.monotonic() - began
        told = metrics_on(port)
        print(f"{senders.sent} sent, {seconds:.0f} s, {dict(senders.answers)}")
        assert senders.sent == BATCHES * BATCH
        received = _sums(told, "callfold_webhooks_received_total", "answer")
        answered = Counter({str(s): n for s, n in senders.answers.items() if s not in OWN_PAGES})
        assert received == answered
        stored = sum(_sums(told, "callfold_webhooks_stored_total", "where").values())
        assert stored == received["202"] == asyncio.run(_records(broker.url))
        refused = sum(n for status, n in received.items() if status != "202")
        assert sum(received.values()) == stored + refused >= BATCHES * 200
        assert received["202"] > BATCHES * BATCH / 10
        _check_series(told)
        until(lambda: metrics_on(port)["callfold_bodies_in_memory_bytes"] == 0, "all bodies let go")
        assert collector.is_ready()
        assert collector.stop() == 0
    _check_log(collector.said())


def _sums(told: dict[str, float], metric: str, label: str) -> Counter[str]:
    sums: Counter[str] = Counter()
    for series, value in told.items():
        if series.startswith(f"{metric}{{"):
            found = re.search(rf'{label}="([^"]*)"', series)
            assert found is not None
            sums[found[1]] += int(value)
    return sums


def _check_series(told: dict[str, float]) -> None:
    """Labels are words of ours, whatever was sent."""
    names = {match[1] for series in told for match in re.finditer(r'provider="([^"]*)"', series)}
    assert names == {*PROVIDERS, "unknown"}
    assert len(told) < 400


def _check_log(said: str) -> None:
    """What it said is little, and none of it is an error of ours."""
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["level"] for line in lines} <= {"INFO", "WARNING"}
    assert len(lines) < 1000

"""Three brokers, one of which fails: everything that was answered 202 is in the lake, each call once."""

import asyncio
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from real_kafka import KafkaBroker, KafkaCluster, require_kafka
from running import Collecting, Program, Working, until

from pipeline.demo import compare
from pipeline.providers import providers
from pipeline.query.views import connect
from pipeline.simulate import generate

POSTERS = 6
RETRY_SECONDS = 0.3


@pytest.fixture
def three_brokers(tmp_path: Path) -> Iterator[KafkaCluster]:
    require_kafka()
    with KafkaCluster(tmp_path / "kafka", brokers=3) as cluster:
        yield cluster


class Deliveries:
    """Webhooks posted until each is answered 202.

    An attempt that was answered 503, or not at all, may have been stored all the same: each carries a name of its
    own in its query, which the collector keeps, so that it can be told afterwards which of them there are.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()
        self.attempts: dict[str, bytes] = {}
        self.accepted: set[str] = set()

    async def post(self, lines: Iterable[bytes]) -> None:
        """All of them, several calls at a time, each call's (on the bus: each agent's) in their order."""
        shares: list[list[bytes]] = [[] for _ in range(POSTERS)]
        for line in lines:
            shares[zlib.crc32(stream_of(line)) % POSTERS].append(line)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            await asyncio.gather(*(self._post_in_order(share, session) for share in shares))

    async def _post_in_order(self, lines: list[bytes], session: aiohttp.ClientSession) -> None:
        for line in lines:
            while not await self._attempt(line, session):  # noqa: ASYNC110  it is tried again, not waited for
                await asyncio.sleep(RETRY_SECONDS)

    async def _attempt(self, line: bytes, session: aiohttp.ClientSession) -> bool:
        name = f"delivery-{next(self._numbers)}"
        told = msgspec.json.decode(line)
        told["query"] = (told.get("query") or {}) | {"delivery": name}
        self.attempts[name] = msgspec.json.encode(told)
        try:
            async with session.post(
                f"{self._url}/webhooks/{told['provider']}",
                data=msgspec.json.encode(told["body"]),
                headers={"content-type": "application/json"} | (told.get("headers") or {}),
                params=told["query"],
            ) as answer:
                if answer.status == 202:
                    self.accepted.add(name)
                assert answer.status in {202, 503}, await answer.text()
                return answer.status == 202
        except (aiohttp.ClientError, TimeoutError):
            return False


def stream_of(line: bytes) -> bytes:
    told = msgspec.json.decode(line)
    key = providers()[told["provider"]].stream_key(msgspec.json.encode(told["body"]), told.get("query") or {})
    return (key or told["provider"]).encode()


def is_whole(cluster: KafkaCluster) -> bool:
    """Whether every partition is on all its brokers again."""
    topics = (
        AdminClient({"bootstrap.servers": cluster.servers, "log_level": 0}).list_topics(timeout=10).topics
    )
    return all(len(p.isrs) == len(p.replicas) == 3 for t in topics.values() for p in t.partitions.values())


@pytest.mark.kafka
@pytest.mark.slow
def test_each_broker_in_turn_is_killed_and_comes_back(
    three_brokers: KafkaCluster, start: Callable[..., Program], tmp_path: Path
) -> None:
    settings = {
        "CALLFOLD_BROKER": three_brokers.url,
        "CALLFOLD_TOPICS_REPLICATION": "3",
        "CALLFOLD_LAKE": str(tmp_path / "lake"),
    }
    worker = start(Working, **settings)
    worker.wait_for("working:")
    collector = start(Collecting, **settings)
    lines = list(generate(500, 29, duplicates=0.05))
    deliveries = Deliveries(collector.url)

    async def post_and_kill(some: list[bytes], broker: KafkaBroker) -> None:
        posting = asyncio.create_task(deliveries.post(some))
        await accepted(150)
        await asyncio.to_thread(broker.kill)
        await accepted(150)
        broker.start()
        await posting

    async def accepted(more: int) -> None:
        wanted = len(deliveries.accepted) + more
        await asyncio.to_thread(until, lambda: len(deliveries.accepted) >= wanted, f"{more} more webhooks")

    # Whoever is controller and whoever coordinates the group: each has its turn.
    share = len(lines) // 3 + 1
    for number, broker in enumerate(three_brokers.brokers):
        asyncio.run(post_and_kill(lines[number * share :][:share], broker))
        three_brokers.wait_until_ready()
        until(lambda: is_whole(three_brokers), "all copies in step")
    assert collector.stop() == 0, collector.said()
    assert worker.finish() == 0, worker.said()
    with connect(worker.lake) as connection:
        stored = [
            name for (name,) in connection.execute("select query->>'delivery' from webhooks").fetchall()
        ]
    assert len(set(stored)) == len(stored)
    assert deliveries.accepted <= set(stored)
    assert len(deliveries.accepted) == len(lines)
    compare(worker.lake, [deliveries.attempts[name] for name in stored])

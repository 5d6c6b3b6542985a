"""Workers that come and go while records flow, on a real Kafka: what aiokafka and Faust do then is not in the mock."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from real_kafka import KafkaCluster, require_kafka

from pipeline.settings import load_settings
from pipeline.stream.build import TOPICS_LOOK_SECONDS, build_app
from pipeline.stream.handler import Partitions, RecordBatch
from pipeline.stream.topics import TopicSpec, create_missing_topics
from pipeline.stream.worker import run_until

PARTITIONS = 8
TOPIC = "moving.webhooks.test"
SETTINGS = load_settings({"topics.prefix": "moving"}, {})
REBALANCES = 6


class Keeper:
    """Acknowledges a batch only after a while, as a worker does at its next flush."""

    def __init__(self, kept: set[bytes]) -> None:
        self._kept = kept
        self._batches: list[RecordBatch] = []

    async def take(self, batch: RecordBatch) -> None:
        self._batches.append(batch)

    async def assigned(self, partitions: Partitions) -> None:
        """No state."""

    async def revoked(self, partitions: Partitions) -> None:
        await self.drain()

    async def drain(self) -> None:
        for batch in self._batches:
            self._kept.update(record.value or b"" for record in batch.records)
            batch.ack()
        self._batches.clear()


class Worker:
    def __init__(self, url: str, kept: set[bytes], topic: str = TOPIC) -> None:
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()
        keeper = Keeper(kept)
        app = build_app(SETTINGS, url, {topic: keeper}, session_seconds=6)
        app.every(0.5, keeper.drain)
        self._running = asyncio.create_task(run_until(app, self._stopping, self._ready.set))

    async def ready(self) -> None:
        await asyncio.wait_for(self._ready.wait(), 30)

    async def stop(self) -> None:
        self._stopping.set()
        await self._running


def test_a_fetch_that_spans_a_rebalance_loses_nothing(fresh_kafka: KafkaCluster) -> None:
    sent: set[bytes] = set()
    kept: set[bytes] = set()
    committed, ends = asyncio.run(_traffic_and_rebalances(fresh_kafka, sent, kept))
    assert len(sent) > 10_000
    assert len(sent - kept) == 0, f"{len(sent - kept)} of {len(sent)} records were handed to nobody"
    assert committed == ends


async def _traffic_and_rebalances(
    cluster: KafkaCluster, sent: set[bytes], kept: set[bytes]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    await create_missing_topics(cluster.url, [TopicSpec(TOPIC, PARTITIONS)])
    producing = asyncio.create_task(_produce(cluster.servers, sent))
    stays = Worker(cluster.url, kept)
    await stays.ready()
    for _ in range(REBALANCES // 2):
        comes_and_goes = Worker(cluster.url, kept)
        await comes_and_goes.ready()
        await asyncio.sleep(0.5)
        await comes_and_goes.stop()
        await asyncio.sleep(0.3)
    producing.cancel()
    await asyncio.gather(producing, return_exceptions=True)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=cluster.servers, group_id="moving-worker", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        ends = await consumer.end_offsets(partitions)
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while not sent <= kept:  # noqa: ASYNC110  filled by the other tasks of this loop
                    await asyncio.sleep(0.1)
        await stays.stop()
        return {tp: await consumer.committed(tp) or 0 for tp in partitions}, ends
    finally:
        await consumer.stop()


def test_a_topic_that_the_broker_does_not_know_yet_is_read_once_it_does(fresh_kafka: KafkaCluster) -> None:
    kept: set[bytes] = set()
    asyncio.run(_topic_later(fresh_kafka, kept))
    assert kept == {b"late"}


async def _topic_later(cluster: KafkaCluster, kept: set[bytes]) -> None:
    # As after the restart of a broker: the group divides what there is, which is nothing.
    topic = "later.webhooks.test"
    worker = Worker(cluster.url, kept, topic)
    await worker.ready()
    await create_missing_topics(cluster.url, [TopicSpec(topic, 2)])
    producer = AIOKafkaProducer(bootstrap_servers=cluster.servers)
    await producer.start()
    await producer.send_and_wait(topic, b"late")
    await producer.stop()
    with suppress(TimeoutError):
        async with asyncio.timeout(4 * TOPICS_LOOK_SECONDS):
            while not kept:  # noqa: ASYNC110  filled by the worker's own task
                await asyncio.sleep(0.1)
    await worker.stop()


async def _produce(servers: str, sent: set[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=5, max_batch_size=64_000)
    await producer.start()
    number = 0
    try:
        while True:
            waiting = []
            for _ in range(200):
                value = b"%d" % number
                waiting.append((value, await producer.send(TOPIC, value, partition=number % PARTITIONS)))
                number += 1
            for value, stored in waiting:
                await stored
                sent.add(value)
    finally:
        await producer.stop()


@pytest.fixture
def fresh_kafka(tmp_path: Path) -> Iterator[KafkaCluster]:
    require_kafka()
    with KafkaCluster(tmp_path / "kafka") as cluster:
        yield cluster

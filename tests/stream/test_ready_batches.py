"""Batches that are made here are taken by real brokers, and read by other clients, as those of aiokafka are."""

import asyncio
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from msgspec.structs import replace
from real_kafka import KafkaCluster

from pipeline.errors import DestinationUnavailable
from pipeline.model import CallRecord
from pipeline.stream import producer
from pipeline.stream.embedded import PARTITIONS, EmbeddedBroker
from pipeline.stream.producer import Backlog, BulkProducer
from pipeline.stream.topics import TopicSpec, bootstrap_servers, create_missing_topics

native = pytest.importorskip("pipeline.native._native")
world = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "assemble" / "world.py")))

Told = list[tuple[str, CallRecord | None]]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of each kind of broker."""
    if request.param == "kafka":
        yield request.getfixturevalue("kafka").url
        return
    with EmbeddedBroker() as broker:
        yield broker.url


@cache
def told() -> Told:
    """Records and tombstones, several of each call."""
    worker = world.assembler(world.MemoryLake())
    for line in world.simulated(300, 3):
        worker.add(0, world.events_of(line))
    records = [record for _, record in worker.collect(lambda _: 2**60).records]
    found: Told = [
        (f"ü{place % 97}", replace(record, revision=place)) for place, record in enumerate(records)
    ]
    return found + [(f"ü{place}", None) for place in range(0, 97, 3)] + found[:50]


def create(broker_url: str, topic: str, **config: str) -> None:
    """The topic, with as many partitions as the embedded broker gives each."""
    settings = {name.replace("_", "."): value for name, value in config.items()}
    asyncio.run(create_missing_topics(broker_url, [TopicSpec(topic, PARTITIONS, settings)]))


def send(broker_url: str, topic: str, messages: Any) -> dict[int, int]:
    """Sends them; the bytes of each partition that are still to be committed."""

    async def sending() -> None:
        await bulk.start()
        try:
            await bulk.send(topic, messages)
        finally:
            await bulk.stop()

    bulk = BulkProducer(broker_url)
    backlog = bulk.backlogs[topic] = Backlog()
    asyncio.run(sending())
    last = {partition: sent[-1][0] for partition, sent in backlog._sent.items()}
    sizes = dict(backlog._bytes)
    for partition, offset in last.items():
        backlog.committed(partition, offset)
    assert backlog.most_bytes() == 0
    return sizes


def held(broker_url: str, topic: str) -> dict[int, list[tuple[bytes, bytes | None]]]:
    """All messages of the topic, by partition, read by librdkafka with its checks of checksums."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers(broker_url),
            "group.id": "h",
            "log_level": 0,
            "check.crcs": True,
        }
    )
    found: dict[int, list[tuple[bytes, bytes | None]]] = {}
    try:
        for partition in range(PARTITIONS):
            place = TopicPartition(topic, partition, 0)
            _, end = consumer.get_watermark_offsets(place, timeout=10)
            consumer.assign([place])
            found[partition] = []
            while len(found[partition]) < end:
                message = consumer.poll(20)
                assert message is not None, f"{len(found[partition])} of {end} came"
                assert message.error() is None
                assert message.offset() == len(found[partition])
                found[partition].append((message.key(), message.value()))
    finally:
        consumer.close()
    return found


@pytest.mark.parametrize("most_bytes", [4_000, 512 * 1024])
def test_brokers_hold_what_the_plain_way_would_have_sent(
    broker_url: str, prefix: str, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "BATCH_BYTES", most_bytes)
    messages = native.messages(told())
    found = {}
    for name, each_way in (("plain", list(messages)), ("ready", messages)):
        topic = f"{prefix}.{name}"
        create(broker_url, topic)
        sizes = send(broker_url, topic, each_way)
        assert (min(sizes.values()) > 3 * most_bytes) == (most_bytes == 4_000)
        found[name] = held(broker_url, topic)
    assert found["ready"] == found["plain"]
    assert sum(map(len, found["ready"].values())) == len(told())


@pytest.mark.kafka
def test_a_message_that_kafka_will_not_have(kafka: KafkaCluster, prefix: str) -> None:
    (key, record), *others = told()
    assert record is not None
    large = native.messages([(key, replace(record, failure_reason="x" * 20_000)), *others[:3]])
    for name, each_way in (("plain", list(large)), ("ready", large)):
        topic = f"{prefix}.{name}"
        create(kafka.url, topic, max_message_bytes="10000")
        with pytest.raises(DestinationUnavailable, match="MessageSizeTooLargeError"):
            send(kafka.url, topic, each_way)

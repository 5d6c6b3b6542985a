"""Webhooks put onto their topics directly, as a collector would, with times of receipt that a test chooses."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Sequence

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.collect.received import iso_utc, webhook_record
from pipeline.providers import provider_names, providers
from pipeline.settings import load_settings
from pipeline.stream.topics import bootstrap_servers, create_missing_topics, topic_specs
from pipeline.topic_names import webhooks_topic

RECEIVED_US = 1_772_702_480_000_000
"""2026-03-05T09:21:20Z: when the first webhook was received; each further one a millisecond later."""


def create_topics(broker_url: str, prefix: str, partitions: int = 8, **others: int) -> None:
    """All topics of an installation, as its first worker makes them; `others` are partitions by provider."""
    settings = load_settings({"topics.prefix": prefix, "topics.partitions": partitions}, {})
    wanted = {webhooks_topic(prefix, provider): count for provider, count in others.items()}
    specs = [
        dataclasses.replace(spec, partitions=wanted.get(spec.name, partitions))
        for spec in topic_specs(settings, provider_names())
    ]
    asyncio.run(create_missing_topics(broker_url, specs))


def produce_webhooks(
    broker_url: str, prefix: str, lines: Iterable[bytes], astray: Callable[[int], int | None] = lambda _: None
) -> int:
    """The lines of an archive, in their order; how many there were.

    `astray` may give the partition of a line by its number: None for that which the collector would have chosen.
    """
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers(broker_url), "linger.ms": 50, "acks": "all", "log_level": 0}
    )
    count = 0
    for line in lines:
        told = msgspec.json.decode(line)
        provider = providers()[told["provider"]]
        body, query = msgspec.json.encode(told["body"]), told.get("query") or {}
        key = provider.stream_key(body, query)
        headers = {name.lower(): value for name, value in (told.get("headers") or {}).items()}
        received_us = RECEIVED_US + 1000 * count
        record = webhook_record(
            told["provider"], key and key.encode(), body, received_us, headers, query, provider.kept_headers
        )  # fmt: skip
        topic, partition = webhooks_topic(prefix, record.provider), astray(count)
        place = {} if partition is None else {"partition": partition}
        producer.produce(topic, record.value, record.key, headers=record.headers, **place)
        producer.poll(0)
        count += 1
    assert producer.flush(60) == 0
    return count


def as_produced(lines: Iterable[bytes]) -> list[bytes]:
    """The same lines with the times of receipt that `produce_webhooks` gives them."""
    found = []
    for count, line in enumerate(lines):
        received_at = iso_utc(RECEIVED_US + 1000 * count)
        found.append(msgspec.json.encode(msgspec.json.decode(line) | {"received_at": received_at}))
    return found


def busy_calls(count: int, padding: int = 0, first: int = 0) -> Sequence[bytes]:
    """That many calls of one webhook each, with so many bytes of nothing in each body."""
    body = {"requestType": "callStatus", "callStatus": "busy", "padding": "x" * padding}
    return [
        msgspec.json.encode({"provider": "freeclimb", "body": body | {"callId": f"CA{number}"}})
        for number in range(first, first + count)
    ]


def count_on(broker_url: str, topic: str) -> int:
    """How many messages the topic holds, over all partitions."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers(broker_url), "group.id": "count", "log_level": 0}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10) for n in partitions]
        return sum(high - low for low, high in ends)
    finally:
        consumer.close()

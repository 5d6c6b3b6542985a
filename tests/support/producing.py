"""Webhooks put onto their topics directly, as a collector would, with times of receipt that a test chooses."""

import asyncio
from collections.abc import Iterable, Sequence

import msgspec
from confluent_kafka import Producer

from pipeline.collect.received import webhook_record
from pipeline.providers import provider_names, providers
from pipeline.settings import load_settings
from pipeline.stream.topics import bootstrap_servers, create_missing_topics, topic_specs
from pipeline.topic_names import webhooks_topic

RECEIVED_US = 1_772_702_480_000_000
"""2026-03-05T09:21:20Z: when the first webhook was received; each further one a millisecond later."""


def create_topics(broker_url: str, prefix: str, partitions: int = 8) -> None:
    """All topics of an installation, as its first worker makes them."""
    settings = load_settings({"topics.prefix": prefix, "topics.partitions": partitions}, {})
    asyncio.run(create_missing_topics(broker_url, topic_specs(settings, provider_names())))


def produce_webhooks(broker_url: str, prefix: str, lines: Iterable[bytes]) -> int:
    """The lines of an archive, in their order; how many there were."""
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
        producer.produce(
            webhooks_topic(prefix, record.provider), record.value, record.key, headers=record.headers
        )
        producer.poll(0)
        count += 1
    assert producer.flush(60) == 0
    return count


def busy_calls(count: int, padding: int = 0, first: int = 0) -> Sequence[bytes]:
    """That many calls of one webhook each, with so many bytes of nothing in each body."""
    body = {"requestType": "callStatus", "callStatus": "busy", "padding": "x" * padding}
    return [
        msgspec.json.encode({"provider": "freeclimb", "body": body | {"callId": f"CA{number}"}})
        for number in range(first, first + count)
    ]

"""The webhooks that every program is measured with, as an archive and on Kafka, and the calls that must come of them.

They are the simulator's five-provider mix, sizes as they come, without repeats: most peers recognise none. Recho's
second endpoint, where the simulator has one, is sent each event again; those are left out for the same reason.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from calls import comparable_key, compared, microseconds
from confluent_kafka import Producer
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from pipeline.collect.received import WebhookRecord, webhook_record
from pipeline.providers import providers
from pipeline.simulate import generate
from pipeline.simulate.truth import truth
from pipeline.topic_names import webhooks_topic

SEED = 1
NEVER_SECONDS = 1e9
"""No call is closed by silence: the peers know no timeouts."""
CALL_UUID = re.compile(rb'("callUuid":"CA[0-9a-f]{27})[0-9a-f]{5}')


class Traffic(NamedTuple):
    """An archive, how many webhooks and bytes of bodies are in it, and its true calls by their comparable keys."""

    archive: Path
    webhooks: int
    body_bytes: int
    calls: dict[str, tuple[Any, ...]]


def without_repeats(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The archive's objects; of a Recho event that goes to two endpoints, one."""
    seen: set[bytes] = set()
    for line in lines:
        webhook = msgspec.json.decode(line)
        if webhook["provider"] == "recho":
            told = {name: value for name, value in webhook["body"].items() if name != "webhookEndpoint"}
            digest = hashlib.blake2b(msgspec.json.encode(told, order="sorted"), digest_size=12).digest()
            if digest in seen:
                continue
            seen.add(digest)
        yield webhook


def simulate(
    folder: Path, calls: int, days: float, progress: Callable[[int], None] = lambda n: None
) -> Traffic:
    """Simulates so many calls, begun within so many days, into an archive."""
    archive, count, size = folder / f"webhooks-{calls}.ndjson", 0, 0

    def webhooks() -> Iterator[dict[str, Any]]:
        nonlocal count, size
        with archive.open("wb") as file:
            for webhook in without_repeats(generate(calls, SEED, days=days)):
                file.write(msgspec.json.encode(webhook) + b"\n")
                count += 1
                size += len(msgspec.json.encode(webhook["body"]))
                progress(1)
                yield webhook

    records = {comparable_key(record): compared(record) for record in truth(webhooks(), NEVER_SECONDS)}
    return Traffic(archive, count, size, records)


def records_of(archive: Path) -> Iterator[WebhookRecord]:
    """The archive's webhooks as the collector puts them on Kafka."""
    known = providers()
    with archive.open("rb") as lines:
        for line in lines:
            told = msgspec.json.decode(line)
            provider = known[told["provider"]]
            body, query = msgspec.json.encode(told["body"]), told.get("query") or {}
            key = provider.stream_key(body, query)
            headers = {name.lower(): value for name, value in (told.get("headers") or {}).items()}
            yield webhook_record(
                told["provider"],
                key and key.encode(),
                body,
                microseconds(datetime.fromisoformat(told["received_at"])),
                headers,
                query,
                provider.kept_headers,
            )


def preload(servers: str, prefix: str, records: Iterable[WebhookRecord]) -> int:
    """Puts webhooks on their topics (which are there) and waits until Kafka has them; how many.

    librdkafka places a key by its CRC-32, as the collector does; idempotent, it keeps the order when it must try again.
    """
    options = {"bootstrap.servers": servers, "linger.ms": 20, "partitioner": "consistent_random"}
    options |= {"enable.idempotence": True, "queue.buffering.max.messages": 50_000, "log_level": 0}
    producer, count = Producer(options), 0
    for record in records:
        topic = webhooks_topic(prefix, record.provider)
        while True:
            try:
                producer.produce(topic, record.value, record.key, headers=record.headers)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        count += 1
    if producer.flush(120):
        raise SystemExit("Kafka did not take all webhooks")
    return count


def multiplied(records: Iterable[WebhookRecord], copies: int) -> Iterator[WebhookRecord]:
    """Each webhook so many times, for as many calls (agents) that differ in their ids and in nothing else."""
    for record in records:
        yield record
        for copy in range(1, copies):
            yield _copied(record, copy)


def _copied(record: WebhookRecord, copy: int) -> WebhookRecord:
    assert record.key is not None
    own_id = record.key.rpartition(b":")[2]
    if record.provider != "aircall_bus":
        # Ids are hexadecimal and long: other last digits make another id. They are counted on from its own ones, or
        # a copy of an id that ends in a small number would be the id itself.
        other = own_id[:-5] + b"%05x" % ((int(own_id[-5:], 16) + copy) % 0x100000)
        return replace(
            record, key=record.key.replace(own_id, other), value=record.value.replace(own_id, other)
        )
    agent = b"%d" % (int(own_id) + 100_000 * copy)
    value = record.value.replace(b'"agent_id":' + own_id, b'"agent_id":' + agent)
    value = CALL_UUID.sub(rb"\g<1>%05x" % copy, value)
    headers = [
        (name, told.replace(own_id, agent) if name == "query" else told) for name, told in record.headers
    ]
    key = record.key.replace(own_id, agent)
    return replace(record, key=key, value=value, headers=headers)

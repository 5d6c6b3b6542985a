"""What stands on the topics of a round, and how far the workers have committed."""

import time
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from real_kafka import admin_of

from pipeline.model import CallEvent, Rejection
from pipeline.normalise import Normaliser, Privacy
from pipeline.providers import provider_names, providers
from pipeline.stream.messages import WebhookReader
from pipeline.topic_names import (
    call_events_topic,
    call_records_topic,
    home_partition,
    webhooks_topic,
    worker_group,
)

KAFKA_SECONDS = 10.0

Place = tuple[str, int]
"""Topic and partition."""


class Entry(NamedTuple):
    """One message: its key, and what identifies it in the lake."""

    key: str | None
    told: Any
    """The attempt's name of a webhook; the event of `call-events`; the record, or None, of `call-records`."""
    events: tuple[CallEvent, ...] = ()
    """What a webhook says."""
    is_home: bool = False
    """Whether all of that is folded where the webhook stands: it is in the lake when its offset is committed."""


class TopicLog:
    """Reads every partition from its beginning, a little further each time it is asked to."""

    def __init__(self, servers: str, prefix: str, partitions: int) -> None:
        self.events_topic, self.records_topic = call_events_topic(prefix), call_records_topic(prefix)
        self.webhook_topics = [webhooks_topic(prefix, name) for name in provider_names()]
        self.entries: dict[Place, dict[int, Entry]] = defaultdict(dict)
        self._group = worker_group(prefix)
        self._prefix = prefix
        quiet = {"bootstrap.servers": servers, "log_level": 0, "reconnect.backoff.max.ms": 500}
        self._servers = servers
        options = {
            "group.id": f"{prefix}-judge",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
        self._consumer = Consumer(quiet | options)
        # It asks in the workers' group, joins nothing and fetches nothing, so that nothing waits behind a fetch. The
        # admin client could tell the same, but librdkafka 2.16 aborts the process when a broker goes away meanwhile.
        self._onlooker = Consumer(quiet | {"group.id": self._group, "enable.auto.commit": False})
        topics = [*self.webhook_topics, self.events_topic, self.records_topic]
        self._readers = {webhooks_topic(prefix, name): WebhookReader(name) for name in provider_names()}
        self._normaliser = Normaliser(providers(), Privacy())
        self._partitions = partitions
        self._places = [(topic, number) for topic in topics for number in range(partitions)]

    def webhooks_topic(self, provider: str) -> str:
        """Where the provider's webhooks stand."""
        return webhooks_topic(self._prefix, provider)

    def wait_for_topics(self, seconds: float = 60.0) -> None:
        """Until the first worker has created them; then the reading can begin."""
        wanted, deadline = {topic for topic, _ in self._places}, time.monotonic() + seconds
        while time.monotonic() < deadline:
            if wanted <= admin_of(self._servers).list_topics(timeout=KAFKA_SECONDS).topics.keys():
                self._consumer.assign([TopicPartition(*place, 0) for place in self._places])
                return
            time.sleep(0.1)
        raise AssertionError("the topics are not there")

    def committed(self) -> dict[Place, int]:
        """The group's offsets, of what it reads; 0 where it has committed nothing yet."""
        places = [TopicPartition(*place) for place in self._places if place[0] != self.records_topic]
        found = self._onlooker.committed(places, timeout=KAFKA_SECONDS)
        return {(tp.topic, tp.partition): max(0, tp.offset) for tp in found}

    def ends(self) -> dict[Place, int]:
        """Where the next message of each partition will stand."""
        return {
            place: self._onlooker.get_watermark_offsets(TopicPartition(*place), timeout=KAFKA_SECONDS)[1]
            for place in self._places
        }

    def behind(self) -> list[str]:
        """What the workers have not committed yet; of the webhooks first, since events come of them."""
        for topics in (self.webhook_topics, [self.events_topic]):
            try:
                committed, ends = self.committed(), self.ends()
            except (KafkaException, TimeoutError) as problem:
                return [f"Kafka does not tell: {problem!r}"]
            late = [place for place in committed if place[0] in topics and committed[place] < ends[place]]
            if late:
                return [
                    f"{topic}-{number} at {committed[topic, number]} of {ends[topic, number]}"
                    for topic, number in late
                ]
        return []

    def wait_until_drained(self, seconds: float) -> None:
        """Until everything is committed."""
        deadline = time.monotonic() + seconds
        while behind := self.behind():
            shown = f"{', '.join(behind[:3])} and {len(behind)} partitions in all"
            assert time.monotonic() < deadline, f"not committed within {seconds:g} s: {shown}"
            time.sleep(0.2)

    def read_to(self, targets: dict[Place, int], seconds: float = 30.0) -> None:
        """Reads on until every message below these offsets is known."""
        deadline = time.monotonic() + seconds
        while any(target and target - 1 not in self.entries[place] for place, target in targets.items()):
            assert time.monotonic() < deadline, "the topics could not be read"
            for message in self._consumer.consume(1000, timeout=0.2):
                if message.error() is None:
                    place = (message.topic(), message.partition())
                    self.entries[place][message.offset()] = self._entry(message)

    def _entry(self, message: Any) -> Entry:
        key = None if message.key() is None else message.key().decode()
        if message.topic() == self.events_topic:
            return Entry(key, msgspec.json.decode(message.value()))
        if message.topic() == self.records_topic:
            return Entry(key, None if message.value() is None else msgspec.json.decode(message.value()))
        return self._webhook(key, message)

    def _webhook(self, key: str | None, message: Any) -> Entry:
        record: Any = SimpleNamespace(
            headers=message.headers(), value=message.value(), timestamp=message.timestamp()[1]
        )
        webhook = self._readers[message.topic()].webhook(record)
        found = self._normaliser.events(webhook)
        events = () if isinstance(found, Rejection) else tuple(found)
        is_home = all(
            home_partition(event.stream_key.encode(), self._partitions) == message.partition()
            for event in events
        )
        return Entry(key, webhook.query.get("chaos"), events, is_home)

    def in_order(self, topic: str) -> list[Entry]:
        """The messages of a topic, those of a partition in their order."""
        return [
            entries[offset]
            for place, entries in sorted(self.entries.items())
            if place[0] == topic
            for offset in sorted(entries)
        ]

    def events(self) -> Iterator[tuple[Place, CallEvent]]:
        """What the webhooks say, with the place of each, those of a partition in their order."""
        for place, entries in sorted(self.entries.items()):
            for offset in sorted(entries):
                yield from ((place, event) for event in entries[offset].events)

    def below(self, topics: list[str], committed: dict[Place, int]) -> list[Entry]:
        """What the workers have said is done with."""
        return [
            self.entries[place][offset]
            for place, end in committed.items()
            if place[0] in topics
            for offset in range(end)
        ]

    def delete_topics(self) -> None:
        """Leaves nothing of the round on the brokers."""
        admin, prefix = admin_of(self._servers), f"{self._prefix}."
        topics = [t for t in admin.list_topics(timeout=KAFKA_SECONDS).topics if t.startswith(prefix)]
        for done in admin.delete_topics(topics, request_timeout=KAFKA_SECONDS).values():
            done.result(KAFKA_SECONDS)

    def close(self) -> None:
        self._consumer.close()
        self._onlooker.close()

"""What Kafka says of a consumer group, asked from outside it."""

import time
from collections.abc import Mapping

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipeline.providers import provider_names
from pipeline.topic_names import webhooks_topic

PARTITIONS = 8


class Group:
    """A consumer group, seen from outside by one lasting client."""

    def __init__(self, servers: str, name: str) -> None:
        self.name = name
        self._admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})

    def is_stable(self) -> bool:
        """Whether it has a member, and its partitions are dealt."""
        asked = self._admin.describe_consumer_groups([self.name], request_timeout=10)
        try:
            found = asked[self.name].result()
        except KafkaException:
            return False  # its coordinator is not known yet
        return found.state == ConsumerGroupState.STABLE and len(found.members) > 0

    def ends(self, topics: list[str]) -> dict[tuple[str, int], int]:
        """Of every partition that holds anything, where the next message will be."""
        wanted = {
            TopicPartition(topic, number): OffsetSpec.latest()
            for topic in topics
            for number in range(PARTITIONS)
        }
        found = self._admin.list_offsets(wanted, request_timeout=10)
        ends = {(place.topic, place.partition): future.result().offset for place, future in found.items()}
        return {place: offset for place, offset in ends.items() if offset > 0}

    def committed(self) -> dict[tuple[str, int], int]:
        futures = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self.name)])
        found = futures[self.name].result().topic_partitions
        return {(place.topic, place.partition): place.offset for place in found}

    def has_committed(self, ends: Mapping[tuple[str, int], int]) -> bool:
        done = self.committed()
        return all(done.get(place, 0) >= offset for place, offset in ends.items())

    def rewind(self, topics: list[str]) -> None:
        """From their beginnings again; the group must be empty, which it is soon after its last member left."""
        places = [TopicPartition(topic, number, 0) for topic in topics for number in range(PARTITIONS)]
        deadline = time.monotonic() + 60
        while True:
            asked = self._admin.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(self.name, places)]
            )
            try:
                asked[self.name].result()
                return
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


def webhook_topics(prefix: str) -> list[str]:
    return [webhooks_topic(prefix, name) for name in provider_names()]

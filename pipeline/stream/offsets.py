"""How far a consumer group has come, as Kafka itself tells it."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.stream.connection import PLAINTEXT, ClientOptions, bootstrap_servers

AT_ONCE = 16
"""Questions under way at a time: a worker may have hundreds of partitions."""


class GroupOffset(NamedTuple):
    """Of one partition: where the group goes on after a restart, and where the next message will be."""

    committed: int
    end: int

    @property
    def lag(self) -> int:
        """Messages that are there and not committed."""
        return max(0, self.end - self.committed)


async def read_offsets(
    broker_url: str,
    group: str,
    partitions: Iterable[tuple[str, int]],
    options: ClientOptions = PLAINTEXT,
) -> Mapping[tuple[str, int], GroupOffset]:
    """Asks with a client of its own: the worker's may be what stands still. Raises `KafkaError` or `OSError`.

    What was never committed counts from the oldest message that is still there, as the workers read it.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers(broker_url),
        group_id=group,
        enable_auto_commit=False,
        **options,
    )
    try:
        await consumer.start()
        wanted = [TopicPartition(topic, number) for topic, number in partitions]
        if not wanted:
            return {}
        ends, begins = await consumer.end_offsets(wanted), await consumer.beginning_offsets(wanted)
        turn = asyncio.Semaphore(AT_ONCE)

        async def committed(partition: TopicPartition) -> int:
            async with turn:
                return int(await consumer.committed(partition) or 0)

        found = await asyncio.gather(*(committed(partition) for partition in wanted))
        return {
            (partition.topic, partition.partition): GroupOffset(
                max(offset, begins[partition]), ends[partition]
            )
            for partition, offset in zip(wanted, found, strict=True)
        }
    finally:
        await consumer.stop()

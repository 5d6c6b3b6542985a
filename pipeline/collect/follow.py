"""Follows what the workers on the embedded broker have committed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.collect.hold_back import HoldBack, Partition
from pipeline.topic_names import call_events_topic, worker_group

log = logging.getLogger(__name__)

POLL_SECONDS = 0.3


async def follow_commits(
    servers: str,
    prefix: str,
    hold_back: HoldBack,
    partitions: int,
    in_lake: Callable[[int], Awaitable[None]],
) -> None:
    """Until cancelled: gives room in the broker back, and calls `in_lake` with the newest webhook that is there."""
    events = [TopicPartition(call_events_topic(prefix), number) for number in range(partitions)]
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        consumer = AIOKafkaConsumer(bootstrap_servers=servers)
        try:
            await admin.start()
            await consumer.start()
            while True:
                if not hold_back.is_settled:
                    await _look(admin, consumer, worker_group(prefix), hold_back, events, in_lake)
                await asyncio.sleep(POLL_SECONDS)
        except (KafkaError, OSError) as problem:
            log.debug("committed offsets cannot be read now: %r", problem)
        finally:
            await consumer.stop()
            await admin.close()
        await asyncio.sleep(POLL_SECONDS)


async def _look(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    hold_back: HoldBack,
    events: list[TopicPartition],
    in_lake: Callable[[int], Awaitable[None]],
) -> None:
    webhooks = [TopicPartition(*partition) for partition in hold_back.unread()]
    newest = hold_back.committed(await _committed(admin, group, webhooks))
    if newest is not None:
        # Asked for after the commit was seen, so that the events of these webhooks are below the ends.
        ends = await consumer.end_offsets(events)
        hold_back.normalised(newest, {(tp.topic, tp.partition): end for tp, end in ends.items()})
    if hold_back.is_assembling:
        done = hold_back.assembled(await _committed(admin, group, events))
        if done is not None:
            await in_lake(done)


async def _committed(
    admin: AIOKafkaAdminClient, group: str, partitions: list[TopicPartition]
) -> dict[Partition, int]:
    if not partitions:
        return {}
    told = await admin.list_consumer_group_offsets(group, partitions=partitions)
    # Where nothing was committed yet Kafka says -1.
    return {(tp.topic, tp.partition): max(0, found.offset) for tp, found in told.items()}

"""What a running Kafka says of Callfold's topics and of its consumer group; it only looks."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, for_code

from pipeline.stream.connection import ClientOptions, bootstrap_servers, check_access

LOOK_MS = 10_000


@dataclass(frozen=True)
class TopicState:
    """One topic as it is."""

    partitions: int
    #: brokers that keep each partition, and the fewest of them that are up to date for any
    copies: int
    copies_in_sync: int
    config: Mapping[str, str]
    #: messages that the group has not committed yet, over all partitions
    lag: int


@dataclass(frozen=True)
class Member:
    """One worker in the group."""

    host: str
    partitions: int


@dataclass(frozen=True)
class ClusterState:
    """A Kafka cluster, as far as Callfold uses it. A topic that is not there is not in `topics`."""

    brokers: int
    topics: Mapping[str, TopicState]
    #: what the group does, in Kafka's words (`Stable`, `PreparingRebalance`, `Empty`, `Dead`)
    group_state: str
    members: tuple[Member, ...]


async def look_at_cluster(
    broker_url: str, options: ClientOptions, topics: Iterable[str], group: str
) -> ClusterState:
    """The state of these topics and this group.

    Raises `BrokerRefused`, `DestinationUnavailable`, or the client's own `KafkaError` where Kafka answers no.
    """
    await check_access(broker_url, options)
    servers = bootstrap_servers(broker_url)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=LOOK_MS, **options)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, request_timeout_ms=LOOK_MS, enable_auto_commit=False, **options
    )
    try:
        await admin.start()
        await consumer.start()
        brokers = len((await admin.describe_cluster())["brokers"])
        await _coordinator(admin, group)
        there = set(await admin.list_topics())
        described = await admin.describe_topics(sorted(there & set(topics))) if there & set(topics) else []
        names = [told["topic"] for told in described]
        configs = await _configs(admin, names)
        lag = await _lag(admin, consumer, group, described)
        state, members = await _group(admin, group)
    finally:
        await consumer.stop()
        await admin.close()
    found = {told["topic"]: _topic(told, configs, lag) for told in described}
    return ClusterState(brokers, found, state, members)


async def _coordinator(admin: AIOKafkaAdminClient, group: str) -> None:
    """Returns once somebody keeps the group: a new Kafka makes room for groups when it is first asked about one."""
    async with asyncio.timeout(LOOK_MS / 1000):
        while True:
            try:
                await admin.find_coordinator(group)
            except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
                await asyncio.sleep(0.2)
            else:
                return


def _topic(
    told: Mapping[str, Any], configs: Mapping[str, Mapping[str, str]], lag: Mapping[str, int]
) -> TopicState:
    partitions = told["partitions"]
    return TopicState(
        partitions=len(partitions),
        copies=min(len(partition["replicas"]) for partition in partitions),
        copies_in_sync=min(len(partition["isr"]) for partition in partitions),
        config=configs[told["topic"]],
        lag=lag[told["topic"]],
    )


async def _configs(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, dict[str, str]]:
    found = {}
    for response in await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, t) for t in topics]
    ):
        for code, reason, _, name, entries in response.resources:
            if code:
                raise for_code(code)(reason)
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def _lag(
    admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, group: str, described: list[Mapping[str, Any]]
) -> dict[str, int]:
    partitions = [
        TopicPartition(told["topic"], partition["partition"])
        for told in described
        for partition in told["partitions"]
    ]
    if not partitions:
        return {}
    ends = await consumer.end_offsets(partitions)
    begins = await consumer.beginning_offsets(partitions)
    committed = await admin.list_consumer_group_offsets(group, partitions=partitions)
    lag = dict.fromkeys((tp.topic for tp in partitions), 0)
    for tp in partitions:
        # A group that has not committed yet begins with the oldest message; so does one whose messages have expired.
        offset = max(committed[tp].offset if tp in committed else -1, begins[tp])
        lag[tp.topic] += max(ends[tp] - offset, 0)
    return lag


async def _group(admin: AIOKafkaAdminClient, group: str) -> tuple[str, tuple[Member, ...]]:
    (response,) = await admin.describe_consumer_groups([group])
    code, _, state, _, _, members, *_ = response.groups[0]
    if code:
        # A group that nobody has joined yet is an error in newer protocols, and `Dead` in older ones.
        return "Dead", ()
    return state, tuple(Member(_host(member[2]), _assigned(member[4])) for member in members)


def _host(told: str) -> str:
    return told.removeprefix("/")


def _assigned(assignment: bytes) -> int:
    if not assignment:
        return 0
    decoded = ConsumerProtocol.ASSIGNMENT.decode(assignment)
    return sum(len(partitions) for _, partitions in decoded.assignment)

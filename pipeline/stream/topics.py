"""Creates Callfold's topics; Faust may not, for its leader has its own idea of them."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from pipeline.errors import DestinationUnavailable, UserError
from pipeline.settings import Settings
from pipeline.topic_names import call_events_topic, call_records_topic, quarantine_topic, webhooks_topic

log = logging.getLogger(__name__)

DAY_MS = 24 * 60 * 60 * 1000
#: what the collector's headers and Kafka's framing may add to a body, and quarantine's explanation to that
MESSAGE_MARGIN_BYTES = 256 * 1024
#: librdkafka's in-process broker has no topic administration, but creates topics when they are asked for
EMBEDDED_CLUSTER = "mockCluster"


@dataclass(frozen=True)
class TopicSpec:
    """One topic as it is created; an existing topic is left as it is."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


def topic_specs(settings: Settings, provider_names: Iterable[str]) -> tuple[TopicSpec, ...]:
    """Every topic of this installation. All have the same number of partitions.

    Kafka's own limit of 1 MB a message would refuse the largest body that the collector takes.
    """
    prefix, partitions = settings.topic_prefix, settings.topic_partitions
    size = {"max.message.bytes": str(settings.http_max_body_bytes + MESSAGE_MARGIN_BYTES)}
    week = {"retention.ms": str(7 * DAY_MS), **size}
    month = {"retention.ms": str(30 * DAY_MS), **size}
    return (
        *(TopicSpec(webhooks_topic(prefix, name), partitions, week) for name in provider_names),
        TopicSpec(call_events_topic(prefix), partitions, week),
        TopicSpec(call_records_topic(prefix), partitions, {"cleanup.policy": "compact"}),
        TopicSpec(quarantine_topic(prefix), partitions, month),
    )


def bootstrap_servers(broker_url: str) -> str:
    """`kafka://a:1;kafka://b:2` or `kafka://a:1;b:2` as the host list that Kafka clients take."""
    return ",".join(part.removeprefix("kafka://") for part in broker_url.split(";"))


async def create_missing_topics(broker_url: str, specs: Iterable[TopicSpec]) -> tuple[str, ...]:
    """Create the topics that are not there yet, copied to up to three brokers; the names created.

    Raises `DestinationUnavailable` if Kafka cannot be reached and `UserError` if it refuses.
    """
    servers = bootstrap_servers(broker_url)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=20_000)
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        present = set(await admin.list_topics())
        missing = [spec for spec in specs if spec.name not in present]
        if str(cluster.get("cluster_id", "")).startswith(EMBEDDED_CLUSTER):
            await _ask_for(servers, missing)
        elif missing:
            copies = min(3, len(cluster["brokers"]))
            await _create(admin, missing, copies)
    except (KafkaError, OSError) as problem:
        raise DestinationUnavailable(f"Kafka at {servers} cannot be reached: {problem!r}") from problem
    finally:
        await admin.close()
    return tuple(spec.name for spec in missing)


async def _create(admin: AIOKafkaAdminClient, specs: list[TopicSpec], copies: int) -> None:
    topics = [NewTopic(spec.name, spec.partitions, copies, topic_configs=dict(spec.config)) for spec in specs]
    response = await admin.create_topics(topics, timeout_ms=20_000)
    for name, code, *reason in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise UserError(f"topic {name} cannot be created: {reason[0] if reason else error.__name__}")
    log.info("created topics %s", ", ".join(spec.name for spec in specs))


async def _ask_for(servers: str, specs: list[TopicSpec]) -> None:
    """Asking for a topic's partitions creates it on the embedded broker, with four of them."""
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        await asyncio.gather(*(producer.partitions_for(spec.name) for spec in specs))
    finally:
        await producer.stop()

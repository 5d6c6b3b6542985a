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
from pipeline.stream.connection import PLAINTEXT, ClientOptions, bootstrap_servers, check_access
from pipeline.topic_names import call_events_topic, call_records_topic, quarantine_topic, webhooks_topic

log = logging.getLogger(__name__)

DAY_MS = 24 * 60 * 60 * 1000
#: what waits for somebody to mend it is kept longer than what passes through
QUARANTINE_DAYS = 30
#: what the collector's headers and Kafka's framing may add to a body, and quarantine's explanation to that
MESSAGE_MARGIN_BYTES = 256 * 1024
#: as many copies as Kafka needs to lose a broker without a pause; more cost traffic and little else
MOST_COPIES = 3
#: librdkafka's in-process broker has no topic administration, but creates topics when they are asked for
EMBEDDED_CLUSTER = "mockCluster"


@dataclass(frozen=True)
class TopicSpec:
    """One topic as it is created; an existing topic is left as it is."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    #: brokers that it is kept on; 0 for as many as there are, up to `MOST_COPIES`
    copies: int = 0

    def copies_on(self, brokers: int) -> int:
        """How many brokers of a cluster of this size keep it."""
        return self.copies or min(MOST_COPIES, brokers)

    def config_on(self, brokers: int) -> dict[str, str]:
        """Its configuration on a cluster of this size.

        With three copies, a webhook that was acknowledged is on two of them: losing any one broker loses nothing and
        stops nothing. With two copies the same demand would stop everything whenever one of them is away.
        """
        safe = {"min.insync.replicas": "2"} if self.copies_on(brokers) >= 3 else {}
        return {**self.config, **safe}


def topic_specs(settings: Settings, provider_names: Iterable[str]) -> tuple[TopicSpec, ...]:
    """Every topic of this installation. All have the same number of partitions.

    Kafka's own limit of 1 MB a message would refuse the largest body that the collector takes.
    """
    prefix, days = settings.topic_prefix, settings.topic_retention_days
    size = {"max.message.bytes": str(settings.http_max_body_bytes + MESSAGE_MARGIN_BYTES)}
    passing = {"retention.ms": str(days * DAY_MS), **size}
    quarantined = {"retention.ms": str(max(days, QUARANTINE_DAYS) * DAY_MS), **size}

    def spec(name: str, config: Mapping[str, str]) -> TopicSpec:
        return TopicSpec(name, settings.topic_partitions, config, settings.topic_replication)

    return (
        *(spec(webhooks_topic(prefix, name), passing) for name in provider_names),
        spec(call_events_topic(prefix), passing),
        spec(call_records_topic(prefix), {"cleanup.policy": "compact"}),
        spec(quarantine_topic(prefix), quarantined),
    )


async def create_missing_topics(
    broker_url: str, specs: Iterable[TopicSpec], options: ClientOptions = PLAINTEXT
) -> tuple[str, ...]:
    """Create the topics that are not there yet; the names created.

    Raises `BrokerRefused` if Kafka does not let us in, `DestinationUnavailable` if it cannot be reached and
    `UserError` if it does not make a topic as it is to be.
    """
    await check_access(broker_url, options)
    servers = bootstrap_servers(broker_url)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=20_000, **options)
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        present = set(await admin.list_topics())
        missing = [spec for spec in specs if spec.name not in present]
        if str(cluster.get("cluster_id", "")).startswith(EMBEDDED_CLUSTER):
            await _ask_for(servers, missing)
        elif missing:
            await _create(admin, missing, len(cluster["brokers"]))
    except (KafkaError, OSError) as problem:
        raise DestinationUnavailable(f"Kafka at {servers} cannot be reached: {problem!r}") from problem
    finally:
        await admin.close()
    return tuple(spec.name for spec in missing)


async def _create(admin: AIOKafkaAdminClient, specs: list[TopicSpec], brokers: int) -> None:
    topics = [
        NewTopic(spec.name, spec.partitions, spec.copies_on(brokers), topic_configs=spec.config_on(brokers))
        for spec in specs
    ]
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

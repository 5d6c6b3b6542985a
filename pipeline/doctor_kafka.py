"""The doctor's look at Kafka: each topic as it is against what the settings say, and who works."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from aiokafka.errors import KafkaError

from pipeline.errors import CallfoldError, DestinationUnavailable
from pipeline.providers import provider_names
from pipeline.settings import Settings
from pipeline.stream.cluster import ClusterState, TopicState, look_at_cluster
from pipeline.stream.connection import bootstrap_servers, client_options
from pipeline.stream.topics import DAY_MS, TopicSpec, topic_specs
from pipeline.topic_names import call_records_topic, quarantine_topic, worker_group

HOUR_MS = 60 * 60 * 1000


class Finding(NamedTuple):
    """One thing that was looked at. `advice` is empty where all is well."""

    what: str
    told: str
    advice: str = ""
    is_broken: bool = False

    def __str__(self) -> str:
        sign = "FAIL" if self.is_broken else "warn" if self.advice else "ok"
        return f"{sign:<4}  {self.what:<29}  {self.told}" + (
            f"\n      -> {self.advice}" if self.advice else ""
        )


def broker_findings(settings: Settings) -> Iterator[Finding]:
    """The broker, each topic and the group; one broken finding where Kafka cannot be asked."""
    if settings.is_embedded:
        told = "embedded: in memory, one worker, for a laptop and for tests"
        yield Finding("broker", told, "for production set broker to kafka://host:port")
        return
    specs = topic_specs(settings, provider_names())
    group = worker_group(settings.topic_prefix)
    try:
        look = look_at_cluster(
            settings.broker, client_options(settings), [spec.name for spec in specs], group
        )
        with _silence("aiokafka"):
            cluster = asyncio.run(look)
    except DestinationUnavailable as away:
        yield Finding("broker", str(away), "start Kafka, or mend broker (CALLFOLD_BROKER)", is_broken=True)
        return
    except CallfoldError as refused:
        told, _, advice = str(refused).partition(": ")
        yield Finding("broker", told, advice, is_broken=True)
        return
    except (KafkaError, OSError) as problem:
        advice = "see Kafka's log, and whether this user may describe the topics and the group"
        yield Finding("broker", f"{settings.broker} does not answer: {problem!r}", advice, is_broken=True)
        return
    yield _broker(settings, cluster)
    yield from (_topic(settings, spec, cluster) for spec in specs)
    yield _group(group, cluster)


@contextmanager
def _silence(name: str) -> Iterator[None]:
    """What a client logs of a broker that is away is a finding here, said once and in its place."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _broker(settings: Settings, cluster: ClusterState) -> Finding:
    spoken = "" if settings.kafka_security == "plaintext" else f" over {settings.kafka_security}"
    told = f"{settings.broker} answers{spoken}: {_count(cluster.brokers, 'broker')}"
    wanted = settings.topic_replication
    if wanted > cluster.brokers:
        advice = f"topics.replication is {wanted}: topics cannot be created until there are as many brokers"
        return Finding("broker", told, advice)
    return Finding("broker", told)


def _topic(settings: Settings, spec: TopicSpec, cluster: ClusterState) -> Finding:
    topic = cluster.topics.get(spec.name)
    if topic is None:
        return Finding(spec.name, "not there yet", "a worker creates it at its start")
    facts = [
        _count(topic.partitions, "partition"),
        f"replication {topic.copies}",
        f"min.insync.replicas {topic.config.get('min.insync.replicas', '?')}",
        _kept(topic),
    ]
    if topic.copies_in_sync < topic.copies:
        facts.append(f"only {topic.copies_in_sync} in sync")
    prefix, servers = settings.topic_prefix, bootstrap_servers(settings.broker)
    if spec.name not in {call_records_topic(prefix), quarantine_topic(prefix)}:
        facts.append(f"lag {topic.lag:,}")
    return Finding(
        spec.name, ", ".join(facts), "; ".join(_differences(spec, topic, cluster.brokers, servers))
    )


def _kept(topic: TopicState) -> str:
    if "compact" in topic.config.get("cleanup.policy", ""):
        return "compacted"
    kept = int(topic.config.get("retention.ms", -1))
    return "kept for ever" if kept < 0 else f"kept {_span(kept)}"


def _span(milliseconds: int) -> str:
    unit, noun = (DAY_MS, "day") if milliseconds >= DAY_MS else (HOUR_MS, "hour")
    number = f"{milliseconds / unit:.3g}"
    return f"{number} {noun}" + ("" if number == "1" else "s")


def _differences(spec: TopicSpec, topic: TopicState, brokers: int, servers: str) -> Iterator[str]:
    """What is not as the settings have it, each with what mends it."""
    if topic.partitions < spec.partitions:
        yield (
            f"topics.partitions is {spec.partitions}: set it to {topic.partitions} or, with no lag and all workers "
            f"stopped, kafka-topics --bootstrap-server {servers} --alter --topic {spec.name} "
            f"--partitions {spec.partitions}"
        )
    elif topic.partitions > spec.partitions:
        yield f"topics.partitions is {spec.partitions}: set it to {topic.partitions}, Kafka takes none away"
    copies = min(spec.copies_on(brokers), brokers)
    if topic.copies < copies:
        yield f"{_count(brokers, 'broker')} could keep {copies} copies: raise them with kafka-reassign-partitions"
    if topic.copies_in_sync < topic.copies:
        yield "a broker is away or behind: see to it before another one fails"
    wanted = {
        name: value
        for name, value in spec.config_on(brokers).items()
        if _falls_short(name, topic.config.get(name), value, topic)
    }
    if wanted:
        found = ", ".join(f"{name} is {topic.config[name]}" for name in wanted)
        config = ",".join(f"{name}={value}" for name, value in wanted.items())
        yield (
            f"{found}: kafka-configs --bootstrap-server {servers} --alter --topic {spec.name} "
            f"--add-config {config}"
        )


def _falls_short(name: str, found: str | None, wanted: str, topic: TopicState) -> bool:
    if found is None:
        return False  # a Kafka that does not tell
    if name == "cleanup.policy":
        return wanted not in found.split(",")
    if name == "min.insync.replicas":
        # More than there are copies would refuse every webhook; that is for the copies' own advice.
        return int(found) < int(wanted) <= topic.copies
    if name == "retention.ms" and int(found) < 0:
        return False
    return int(found) < int(wanted)


def _group(group: str, cluster: ClusterState) -> Finding:
    if not cluster.members:
        advice = "start one: callfold work" if any(topic.lag for topic in cluster.topics.values()) else ""
        return Finding("workers", f"nobody is in the group {group}", advice)
    hosts = Counter(member.host for member in cluster.members)
    shares = [
        f"{host} ({_count(number, 'worker')}, "
        f"{_count(sum(m.partitions for m in cluster.members if m.host == host), 'partition')})"
        for host, number in sorted(hosts.items())
    ]
    told = f"{len(cluster.members)} in the group {group}, {cluster.group_state.lower()}: {', '.join(shares)}"
    idle = sum(member.partitions == 0 for member in cluster.members)
    if idle and cluster.group_state == "Stable":
        return Finding(
            "workers", told, f"{_count(idle, 'worker')} without a partition: more than there is work for"
        )
    return Finding("workers", told)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

"""The names of Callfold's Kafka topics and of its consumer group, all under one prefix; and where a key is at home."""

import zlib


def webhooks_topic(prefix: str, provider: str) -> str:
    """Webhooks of one provider, as untouched bytes."""
    return f"{prefix}.webhooks.{provider}"


def call_events_topic(prefix: str) -> str:
    """Normalised events that are to be folded by another partition's owner, or all of them if the settings say so."""
    return f"{prefix}.call-events"


def call_records_topic(prefix: str) -> str:
    """Call records, compacted, keyed by call key."""
    return f"{prefix}.call-records"


def quarantine_topic(prefix: str) -> str:
    """Webhooks that could not be processed."""
    return f"{prefix}.quarantine"


def worker_group(prefix: str) -> str:
    """The consumer group that all workers share."""
    return f"{prefix}-worker"


def home_partition(key: bytes, partitions: int) -> int:
    """The partition of a key's webhooks and events: by CRC-32, as librdkafka does it by default.

    Who reads this partition of a provider's webhooks folds the calls that are at home in it. In Python, the way of
    Java's client (murmur2) takes 30 times as long.
    """
    return zlib.crc32(key) % partitions

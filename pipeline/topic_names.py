"""The names of Callfold's Kafka topics and of its consumer group, all under one prefix."""


def webhooks_topic(prefix: str, provider: str) -> str:
    """Webhooks of one provider, as untouched bytes."""
    return f"{prefix}.webhooks.{provider}"


def call_events_topic(prefix: str) -> str:
    """Normalised events."""
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

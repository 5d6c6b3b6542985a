"""A call is folded in one place, whichever partition its webhooks stand in: directly, or over `call-events`."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from producing import as_produced, count_on, create_topics, produce_webhooks
from real_kafka import KafkaCluster
from running import Call, Working, calls_in, free_ports, metrics_on, until

from pipeline.backfill import backfill
from pipeline.model import CallEvent
from pipeline.settings import load_settings
from pipeline.simulate import generate
from pipeline.stream.messages import event_message
from pipeline.stream.producer import BulkProducer, murmur2_partition
from pipeline.topic_names import call_events_topic, home_partition

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 8
TIMERS = {"CALLFOLD_IDLE_SECONDS": "1e9", "CALLFOLD_GRACE_SECONDS": "1e9"}


def calls_of(lake: Path) -> dict[str, Call]:
    """Without what may be higher after events that overtook one another (on the bus: `revision`)."""
    return {
        key: {name: value for name, value in call.items() if name != "revision" or "bus" not in key}
        for key, call in calls_in(lake).items()
    }


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return list(generate(120, 31, duplicates=0.05, shuffle=0.1, lose=0.03))


@pytest.fixture
def run(
    kafka: KafkaCluster, start: Callable[..., Working], prefix: str, tmp_path: Path, lines: list[bytes]
) -> Callable[..., tuple[dict[str, Call], int]]:
    """The calls that two workers come to, and how many messages there were on `call-events`."""

    def run(
        name: str,
        astray: Callable[[int], int | None] = lambda _: None,
        others: dict[str, int] | None = None,
        **settings: str,
    ) -> tuple[dict[str, Call], int]:
        own, ports = f"{prefix}-{name}", free_ports(2)
        create_topics(kafka.url, own, **(others or {}))
        program = start(
            Working,
            "--workers",
            "2",
            CALLFOLD_BROKER=kafka.url,
            CALLFOLD_TOPICS_PREFIX=own,
            CALLFOLD_LAKE=str(tmp_path / name),
            CALLFOLD_METRICS_PORT=str(ports),
            **TIMERS | settings,
        )
        until(
            lambda: all(metrics_on(ports + n).get("callfold_assigned_partitions") for n in range(2)),
            "both workers to have their share",
        )
        produce_webhooks(kafka.url, own, lines, astray)
        assert program.finish(**(others or {})) == 0, program.said()
        return calls_of(program.lake), count_on(kafka.url, call_events_topic(own))

    return run


@pytest.fixture(scope="module")
def backfilled(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Call]:
    """What the same webhooks come to with no topics at all, with the times of receipt that they are produced with."""
    folder = tmp_path_factory.mktemp("backfill")
    (folder / "webhooks.ndjson").write_bytes(b"\n".join(as_produced(lines)))
    settings = load_settings({"lake": str(folder / "lake"), "idle_seconds": 1e9, "grace_seconds": 1e9}, {})
    backfill(settings, [folder / "webhooks.ndjson"])
    return calls_of(folder / "lake")


def test_webhooks_in_any_partition_come_to_the_same_calls(
    run: Callable[..., tuple[dict[str, Call], int]], backfilled: dict[str, Call]
) -> None:
    astray, detours = run("astray", lambda number: number % PARTITIONS if number % 3 == 0 else None)
    assert detours > 100
    assert astray == backfilled


def test_topics_of_unequal_size_come_to_the_same_calls(
    run: Callable[..., tuple[dict[str, Call], int]], backfilled: dict[str, Call]
) -> None:
    unequal, detours = run("unequal", others={"recho": 5, "aircall_bus": 11})
    assert detours > 100
    assert unequal == backfilled


def test_all_events_are_on_their_topic_if_the_settings_say_so(
    run: Callable[..., tuple[dict[str, Call], int]], lines: list[bytes], backfilled: dict[str, Call]
) -> None:
    every, count = run("all", CALLFOLD_TOPICS_CALL_EVENTS="all")
    assert count > len(lines) * 0.9
    assert every == backfilled


def test_events_that_stand_elsewhere_on_call_events_are_folded_at_home(
    kafka: KafkaCluster, start: Callable[..., Working], prefix: str
) -> None:
    """As a version before this one put them, which chose partitions as Java's client does."""
    create_topics(kafka.url, prefix)
    events = [
        CallEvent(
            event_id=f"{number:032x}",
            provider="recho",
            stream_key=f"recho:{number}",
            call_id=str(number),
            event_type="OUTBOUND_CALL_CALLING",
            at_us=1_772_702_480_000_000,
            received_us=1_772_702_480_000_000,
            state="ringing",
        )
        for number in range(40)
    ]
    elsewhere = [
        event
        for event in events
        if home_partition(event.stream_key.encode(), PARTITIONS)
        != murmur2_partition(event.stream_key.encode(), PARTITIONS)
    ]
    assert len(elsewhere) > 20

    async def send() -> None:
        producer = BulkProducer(kafka.url)
        await producer.start()
        try:
            messages = [(event.stream_key, event_message(event)) for event in events]
            await producer.send(call_events_topic(prefix), messages)
        finally:
            await producer.stop()

    asyncio.run(send())
    worker = start(Working, CALLFOLD_BROKER=kafka.url, CALLFOLD_TOPICS_PREFIX=prefix, **TIMERS)
    until(lambda: len(calls_in(worker.lake, "open_calls")) == len(events), "all calls")
    assert worker.finish() == 0, worker.said()
    assert count_on(kafka.url, call_events_topic(prefix)) == len(events) + len(elsewhere)

"""Kafka fails: everything that was answered 202 is in the lake, each call once; with a spool everything is 202."""

import asyncio
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from real_kafka import KafkaBroker, KafkaCluster, require_kafka
from running import Collecting, Program, Working, metrics_on, until
from spooled_traffic import Deliveries, stream_of

from pipeline.demo import compare
from pipeline.errors import CallfoldError
from pipeline.query.views import connect
from pipeline.simulate import generate

AWAY_SECONDS = 8.0
LONG_SECONDS = 150.0
"""For what takes a few seconds where nobody else is at work."""


@pytest.fixture
def one_broker(tmp_path: Path) -> Iterator[KafkaCluster]:
    require_kafka()
    with KafkaCluster(tmp_path / "kafka") as cluster:
        yield cluster


@pytest.fixture
def three_brokers(tmp_path: Path) -> Iterator[KafkaCluster]:
    require_kafka()
    with KafkaCluster(tmp_path / "kafka", brokers=3) as cluster:
        yield cluster


def is_whole(cluster: KafkaCluster) -> bool:
    """Whether every partition is on all its brokers again."""
    topics = (
        AdminClient({"bootstrap.servers": cluster.servers, "log_level": 0}).list_topics(timeout=10).topics
    )
    return all(len(p.isrs) == len(p.replicas) == 3 for t in topics.values() for p in t.partitions.values())


@pytest.mark.kafka
@pytest.mark.slow
def test_each_broker_in_turn_is_killed_and_comes_back(
    three_brokers: KafkaCluster, start: Callable[..., Program], tmp_path: Path
) -> None:
    settings = {
        "CALLFOLD_BROKER": three_brokers.url,
        "CALLFOLD_TOPICS_REPLICATION": "3",
        "CALLFOLD_LAKE": str(tmp_path / "lake"),
    }
    worker = start(Working, **settings)
    worker.wait_for("working:")
    collector = start(Collecting, **settings)
    lines = list(generate(500, 29, duplicates=0.05))
    deliveries = Deliveries(collector.url)

    async def post_and_kill(some: list[bytes], broker: KafkaBroker) -> None:
        posting = asyncio.create_task(deliveries.post(some))
        await accepted(150)
        await asyncio.to_thread(broker.kill)
        await accepted(150)
        broker.start()
        await posting

    async def accepted(more: int) -> None:
        wanted = len(deliveries.accepted) + more
        await asyncio.to_thread(until, lambda: len(deliveries.accepted) >= wanted, f"{more} more webhooks")

    # Whoever is controller and whoever coordinates the group: each has its turn.
    share = len(lines) // 3 + 1
    for number, broker in enumerate(three_brokers.brokers):
        asyncio.run(post_and_kill(lines[number * share :][:share], broker))
        three_brokers.wait_until_ready()
        until(lambda: is_whole(three_brokers), "all copies in step")
    # What the collector could not pass on before it stops would be there at its next start, which there is none of.
    until(lambda: spooled(collector) == 0, "the spool to be passed on", LONG_SECONDS)
    assert collector.stop() == 0, collector.said()
    assert worker.finish() == 0, worker.said()
    all_are_there_once(worker.lake, deliveries)
    assert len(deliveries.accepted) == len(lines)


def all_are_there_once(lake: Path, deliveries: Deliveries) -> None:
    """Every attempt that was answered 202 is in the lake once, and the calls are the truth."""
    with connect(lake) as connection:
        stored = [
            name for (name,) in connection.execute("select query->>'delivery' from webhooks").fetchall()
        ]
    assert len(set(stored)) == len(stored)
    assert deliveries.accepted.keys() <= set(stored)
    try:
        # What a killed collector had in its spool is read after what was received later.
        compare(lake, [deliveries.attempts[name] for name in stored], is_in_order=False)
    except CallfoldError as difference:
        raise AssertionError(f"{difference}\n{story(lake, deliveries, str(difference))}") from None


def story(lake: Path, deliveries: Deliveries, difference: str) -> str:
    """What the lake holds of the streams that a difference is about: without it nobody knows what was lost where."""
    call_id = difference.split(" ", maxsplit=1)[0].rstrip(":").partition(":")[2].encode()
    streams = {stream_of(line).decode() for line in deliveries.attempts.values() if call_id in line}
    with connect(lake) as connection:
        events = connection.execute(
            "select stream_key, event_at, event_type, raw_status, call_key, received_at, event_id from call_events "
            "where list_contains($streams, stream_key) order by stream_key, event_at",
            {"streams": sorted(streams)},
        ).fetchall()
        revisions = connection.execute(
            "select call_key, state, revision, event_count from call_revisions where call_key in "
            "(select call_key from call_events where list_contains($streams, stream_key)) order by all",
            {"streams": sorted(streams)},
        ).fetchall()
    sent = [line.decode() for line in deliveries.attempts.values() if stream_of(line).decode() in streams]
    return "\n".join(["events:", *map(str, events), "revisions:", *map(str, revisions), "sent:", *sent])


def spooled(collector: Collecting) -> float:
    return metrics_on(int(collector.settings["CALLFOLD_HTTP_PORT"])).get("callfold_spool_webhooks", -1.0)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("is_paused", [False, True], ids=["killed", "paused"])
def test_the_only_broker_is_away_and_the_collector_is_killed_meanwhile(
    one_broker: KafkaCluster, start: Callable[..., Program], tmp_path: Path, *, is_paused: bool
) -> None:
    settings = {
        "CALLFOLD_BROKER": one_broker.url,
        "CALLFOLD_LAKE": str(tmp_path / "lake"),
        "CALLFOLD_SPOOL_DIR": str(tmp_path / "spool"),
    }
    worker = start(Working, **settings)
    worker.wait_for("working:")
    collector = start(Collecting, **settings)
    settings["CALLFOLD_HTTP_PORT"] = collector.settings["CALLFOLD_HTTP_PORT"]
    lines = list(generate(200, 37, duplicates=0.05))
    deliveries = Deliveries(collector.url)

    async def post_through_the_outage() -> Program:
        posting = asyncio.create_task(deliveries.post(lines, pause_seconds=0.05))
        await accepted(100)
        (one_broker.pause if is_paused else one_broker.kill)()
        began = time.monotonic()
        try:
            await accepted(80)
            await asyncio.to_thread(collector.stop, signal.SIGKILL)
            # Kafka is still away: nothing but the spool of the one before keeps what that one had taken.
            again = await asyncio.to_thread(start, Collecting, **settings)
            await accepted(80)
            assert spooled(again) > 100
            assert "are in the spool and go on to Kafka now" in again.said()
            await asyncio.to_thread(until, lambda: time.monotonic() - began > AWAY_SECONDS, "the time")
            assert again.is_ready()
        finally:
            (one_broker.resume if is_paused else one_broker.start)()
        await posting
        return again

    async def accepted(more: int) -> None:
        wanted = len(deliveries.accepted) + more
        await asyncio.to_thread(
            until, lambda: len(deliveries.accepted) >= wanted, f"{more} more webhooks", LONG_SECONDS
        )

    collector = asyncio.run(post_through_the_outage())
    assert set(deliveries.answers) == {202}
    assert deliveries.slowest_seconds < 10
    until(lambda: spooled(collector) == 0, "the spool to be passed on", LONG_SECONDS)
    assert collector.stop() == 0, collector.said()
    assert worker.finish() == 0, worker.said()
    # Its client asks ten times a second, and each time there are six things to say.
    assert worker.said().count(" ERROR aiokafka") < 10 * AWAY_SECONDS
    assert len(deliveries.accepted) == len(lines)
    all_are_there_once(worker.lake, deliveries)
    for path in (tmp_path / "spool").glob("spool-*.db"):
        connection = sqlite3.connect(path)
        assert connection.execute("select count(*) from webhook").fetchone() == (0,)
        assert connection.execute("select count(*) from set_aside").fetchone() == (0,)
        connection.close()

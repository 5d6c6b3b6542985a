"""How long a killed worker is missed: open calls on a real Kafka, one of two workers killed, the other takes over.

    python benchmarks/recovery.py [--open-calls 100000] [--rounds 3]

The calls are put on the topic as webhooks (three each, none of which ends its call), and folded by two workers. Then,
in each round, one is killed (SIGKILL), and at once one more webhook for a call in every partition is produced. Told
are the seconds from the kill until the other worker has all partitions (the group session, 10 s, is part of it), and
until all those webhooks are in the lake and committed; the memory of the worker that then holds every open call; and,
to compare with, the seconds that DuckDB takes to count the open calls in the lake.
Needs Java and Maven for Kafka's jars, as the tests do.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from aiokafka import AIOKafkaProducer
from processes import peak_mib
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from real_kafka import KafkaCluster, why_unavailable
from running import Program

from pipeline.collect.received import partition_of
from pipeline.query.views import connect
from pipeline.stream.offsets import read_offsets
from pipeline.topic_names import home_partition

PARTITIONS = 8
TOPIC = "callfold.webhooks.interactly"
EVENTS = "callfold.call-events"
STATUSES = ("queued", "ringing", "ongoing")


def webhook(call: str, status: str, at_ms: int) -> bytes:
    told = {"id": call, "status": status, "direction": "inbound", "assistantId": "a1", "teamId": "t1"}
    return json.dumps({"message": {"type": "status-update", "timestamp": at_ms, "call": told}}).encode()


def headers(at_ms: int) -> list[tuple[str, bytes]]:
    at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
    return [("provider", b"interactly"), ("received-at", at.encode())]


async def produce(servers: str, webhooks: list[tuple[str, bytes, int]]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, linger_ms=20, max_batch_size=500_000, partitioner=partition_of
    )
    await producer.start()
    for call, body, at_ms in webhooks:
        await producer.send(TOPIC, body, key=f"interactly:{call}".encode(), headers=headers(at_ms))
    await producer.stop()


async def lag(servers: str) -> int:
    partitions = [(topic, number) for topic in (TOPIC, EVENTS) for number in range(PARTITIONS)]
    offsets = await read_offsets(servers, "callfold-worker", partitions)
    return sum(offset.lag for offset in offsets.values())


def until_drained(servers: str, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while asyncio.run(lag(servers)) > 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"not drained within {seconds:g} s")
        time.sleep(0.2)


def open_calls(lake: Path) -> tuple[int, float]:
    began = time.perf_counter()
    with connect(lake) as connection:
        (count,) = connection.execute("select count(*) from open_calls").fetchone() or (0,)
    return count, time.perf_counter() - began


class Scene:
    """A Kafka, a lake and workers."""

    def __init__(self, folder: Path, kafka: KafkaCluster) -> None:
        self.folder, self.kafka, self.lake = folder, kafka, folder / "lake"

    def worker(self) -> Program:
        settings = {"CALLFOLD_BROKER": self.kafka.url, "CALLFOLD_LAKE": str(self.lake)}
        settings |= {"CALLFOLD_FLUSH_SECONDS": "1", "CALLFOLD_ARCHIVE_WEBHOOKS": "false"}
        started = Program(self.folder, "work", **settings)
        started.wait_for("working:")
        return started

    def fill(self, calls: int) -> None:
        now_ms = round(time.time() * 1000) - 3_600_000
        asyncio.run(produce(self.kafka.servers, [
            (f"open-{number}", webhook(f"open-{number}", status, now_ms + number + 1000 * place), now_ms + number)
            for number in range(calls) for place, status in enumerate(STATUSES)
        ]))  # fmt: skip
        until_drained(self.kafka.servers)

    def kill_one(self, dies: Program, stays: Program, number: int, calls: int) -> tuple[float, float]:
        now_ms = round(time.time() * 1000)
        one_a_partition = {
            home_partition(f"interactly:open-{n}".encode(), PARTITIONS): n for n in range(calls)
        }
        fresh = [
            (f"open-{n}", webhook(f"open-{n}", "ongoing", now_ms + number), now_ms)
            for n in one_a_partition.values()
        ]
        began = time.monotonic()
        os.kill(dies.process.pid, signal.SIGKILL)
        asyncio.run(produce(self.kafka.servers, fresh))
        while not self._has_all(stays):
            time.sleep(0.1)
        detected = time.monotonic() - began
        until_drained(self.kafka.servers)
        return detected, time.monotonic() - began

    def _has_all(self, stays: Program) -> bool:
        if stays.process.poll() is not None:
            raise SystemExit(f"the other worker ended:\n{stays.said()}")
        return asyncio.run(_owners(self.kafka.servers)) == 1


async def _owners(servers: str) -> int:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        (group,) = await admin.describe_consumer_groups(["callfold-worker"])
        _, _, state, _, _, members, *_ = group.groups[0]
        return len(members) if state == "Stable" else 0
    finally:
        await admin.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--open-calls", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console()
    if reason := why_unavailable():
        console.print(f"recovery is not measured: {reason}")
        return
    with tempfile.TemporaryDirectory() as name, KafkaCluster(Path(name) / "kafka") as kafka:
        scene = Scene(Path(name), kafka)
        workers = [scene.worker(), scene.worker()]
        with console.status(f"folding {options.open_calls:,} open calls"):
            began = time.monotonic()
            scene.fill(options.open_calls)
            filled = time.monotonic() - began
        measured = []
        for number in range(options.rounds):
            with console.status(f"round {number + 1}: one worker is killed"):
                dies, stays = workers
                measured.append(
                    (*scene.kill_one(dies, stays, number, options.open_calls), peak_mib(stays.process.pid))
                )
                workers = [stays, scene.worker()]
                until_drained(kafka.servers)
        count, seconds = open_calls(scene.lake)
        for worker in workers:
            worker.stop()
    _print(console, options.open_calls, count, filled, measured, seconds)
    if count != options.open_calls:
        raise SystemExit(f"{count:,} calls are open and should be {options.open_calls:,}")


def _print(
    console: Console,
    calls: int,
    count: int,
    filled: float,
    measured: list[tuple[float, float, float]],
    read: float,
) -> None:
    detected, caught_up, peak = (statistics.median(column) for column in zip(*measured, strict=True))
    console.print(
        f"{count:,} of {calls:,} open calls, {PARTITIONS} partitions; folded in {filled:.0f} s by two workers"
    )
    table = Table("what", "median")
    table.add_row("killed to detected and reassigned", f"{detected:.1f} s")
    table.add_row("killed to caught up, new webhooks in the lake", f"{caught_up:.1f} s")
    table.add_row("of which taking the calls up and flushing", f"{caught_up - detected:.1f} s")
    table.add_row("peak memory of the worker that holds them all", f"{peak:,.0f} MiB")
    table.add_row("reading the open calls from the lake by DuckDB", f"{read:.1f} s")
    console.print(table)


if __name__ == "__main__":
    main()

"""One round: processes start, traffic flows, faults happen, everything settles and stops, and the judge looks."""

import random
import shutil
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from checks import durable_before_committed, judge
from confluent_kafka import KafkaException
from faults import FAULTS, World
from reader import Reader
from real_kafka import KafkaCluster
from running import count_in, free_port, metrics_on, until
from services import Services
from topic_log import TopicLog
from traffic import Traffic, traffic_of

PARTITIONS = 8
CALLS = 300
TRAFFIC_SECONDS = 8.0
SETTLE_SECONDS = 90.0
IDLE_SECONDS = 14400.0


class Result(NamedTuple):
    """What became of a round."""

    seed: int
    faults: tuple[str, ...]
    fired: tuple[str, ...]
    """Steps at which a worker did something to itself."""
    webhooks: int
    calls: int
    queries: int
    seconds: float
    restarts: tuple[str, ...]
    """Workers that gave up where that is allowed."""
    problems: tuple[str, ...]


def run_round(
    seed: int, kinds: Sequence[str], kafka: KafkaCluster, folder: Path, *, calls: int = CALLS,
    traffic_seconds: float = TRAFFIC_SECONDS,
) -> Result:  # fmt: skip
    """Runs one round in `folder`, which is removed if all went well."""
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    one = Round(seed, tuple(kinds), kafka, folder, calls, traffic_seconds)
    try:
        problems = one.run()
    except Exception as error:  # noqa: BLE001  whatever it is, it is this round's failure and not the end of the run
        where = [] if isinstance(error, AssertionError) else traceback.format_exception(error)[-2:]
        problems = [f"{type(error).__name__}: {error}", *where, *one.reader.problems, *one.services.failed]
    finally:
        one.end()
    fired = folder / "fired.log"
    result = Result(
        seed, tuple(kinds), tuple(fired.read_text().split()) if fired.exists() else (), len(one.traffic.sendings),
        calls, one.reader.queries, time.monotonic() - began, tuple(one.restarts), tuple(problems),
    )  # fmt: skip
    if problems:
        (folder / "problems.txt").write_text(
            "\n".join([repr(result.faults), *fired_lines(result), *problems]) + "\n"
        )
    else:
        one.log.delete_topics()
        shutil.rmtree(folder)
    one.log.close()
    return result


def fired_lines(result: Result) -> list[str]:
    return [f"fired: {step}" for step in result.fired]


class Round:
    """The parts of a round."""

    def __init__(
        self, seed: int, kinds: tuple[str, ...], kafka: KafkaCluster, folder: Path, calls: int, seconds: float
    ) -> None:
        self.dice = random.Random(f"chaos-{seed}")
        self.kinds, self.kafka = kinds, kafka
        self.lake = folder / "lake"
        prefix, self.port = f"chaos{seed}-{time.time_ns() // 1_000_000:x}", free_port()
        self.idle_seconds = min(FAULTS[kind].idle_seconds or IDLE_SECONDS for kind in kinds)
        settings = _settings(folder, kafka.url, self.port, prefix, self.idle_seconds)
        self.services = Services(folder, settings, self.dice)
        self.traffic = Traffic(traffic_of(calls, seed), f"http://127.0.0.1:{self.port}", seconds)
        self.reader = Reader(self.lake)
        self.log = TopicLog(kafka.servers, prefix, PARTITIONS)
        self.world = World(self.services, kafka, random.Random(f"faults-{seed}"), seconds)
        self.restarts: list[str] = []
        self.looks = 0
        """How often committed offsets were compared with the lake."""
        self._ahead: list[str] = []

    def run(self) -> list[str]:
        """All that is wrong in the end."""
        faults = [FAULTS[kind] for kind in self.kinds]
        accidents = [accident for fault in faults for accident in fault.accidents(self.world.dice)]
        self.services.start(self.dice.randint(2, 3), accidents)
        self.log.wait_for_topics()
        self.reader.start()
        with ThreadPoolExecutor() as pool:
            tasks = [pool.submit(fault.inject, self.world) for fault in faults]
            tasks.append(pool.submit(self.traffic.run))
            watching = threading.Event()
            watch = pool.submit(self._watch_commits, watching)
            try:
                for task in tasks:
                    task.result()
                until(self.services.is_steady, "all processes run again", SETTLE_SECONDS)
                until(self._is_spool_empty, "the spool has gone to Kafka", SETTLE_SECONDS)
                self.log.wait_until_drained(SETTLE_SECONDS)
                if self.idle_seconds < IDLE_SECONDS:
                    until(self._are_all_closed, "every call is closed", SETTLE_SECONDS)
            except AssertionError:
                self.services.ask_where()
                raise
            finally:
                watching.set()
            watch.result()
        self.services.stop()
        self.reader.stop()
        return self._judge(may_end=any(fault.may_end_workers for fault in faults))

    def _is_spool_empty(self) -> bool:
        """Whether the collector that runs now has passed on all that it, or one before it, had put on the disk."""
        return metrics_on(self.port).get("callfold_spool_webhooks") == 0

    def _are_all_closed(self) -> bool:
        return count_in(self.lake, "int_latest_calls where state <> 'ended'") == 0

    def _watch_commits(self, is_over: threading.Event) -> None:
        """From time to time: is everything durable that is committed?"""
        while not is_over.wait(0.7):
            try:
                self._ahead += durable_before_committed(self.lake, self.log)
            except (KafkaException, TimeoutError, AssertionError):
                continue  # the broker is away, on purpose
            self.looks += 1

    def _judge(self, *, may_end: bool) -> list[str]:
        self.log.read_to(self.log.ends())
        problems = [*self._ahead, *self.reader.problems]
        if not self.looks:
            problems.append("committed offsets were never compared with the lake")
        self.restarts = [told for told in self.services.failed if may_end and told.startswith("work-")]
        problems += [told for told in self.services.failed if told not in self.restarts]
        return problems + judge(
            self.lake, self.traffic, self.log, self.reader.vanished,
            idle_seconds=self.idle_seconds, are_all_closed=self.idle_seconds < IDLE_SECONDS,
        )  # fmt: skip

    def end(self) -> None:
        """Nothing of the round goes on."""
        self.kafka.start()
        self.services.kill()
        if self.reader.is_alive():
            self.reader.stop()


def _settings(folder: Path, broker: str, port: int, prefix: str, idle_seconds: float) -> dict[str, str]:
    return {
        "CALLFOLD_BROKER": broker,
        "CALLFOLD_LAKE": str(folder / "lake"),
        # The collectors of a round, one after the other, have the same: what one leaves there the next one finds.
        "CALLFOLD_SPOOL_DIR": str(folder / "spool"),
        "CALLFOLD_HTTP_PORT": str(port),
        "CALLFOLD_TOPICS_PREFIX": prefix,
        "CALLFOLD_TOPICS_PARTITIONS": str(PARTITIONS),
        "CALLFOLD_FLUSH_SECONDS": "0.3",
        "CALLFOLD_GRACE_SECONDS": "1.5",
        "CALLFOLD_IDLE_SECONDS": str(idle_seconds),
        # Often, and soon done with the old files, so that readers and compaction meet.
        "CALLFOLD_COMPACT_SECONDS": "2",
        "CALLFOLD_COMPACT_GRACE_SECONDS": "5",
    }

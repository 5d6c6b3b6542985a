"""What ends a worker that stands still, and what does not: real processes on a real Kafka."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from producing import busy_calls, create_topics, produce_webhooks
from real_kafka import KafkaCluster
from running import Working, calls_in, count_in, free_port, lag_on, metrics_on, until

pytestmark = pytest.mark.kafka

STUCK_SECONDS = 3
STUCK_WORKER = str(Path(__file__).with_name("stuck_worker.py"))
TOLD = {
    "take": r"WorkerSteps\.take does not return",
    "thread": r"WorkerSteps\.take does not return",
    "block": r"the event loop is blocked",
    "flush": r"flush_for_ever does not return",
    "fetch": r"stuck-fetch\.\S+/\d.* is not fetched",
}


def with_fault(fault: str) -> type[Working]:
    return type("Stuck", (Working,), {"program": (STUCK_WORKER, fault)})


def settings(kafka: KafkaCluster, prefix: str, **others: str) -> dict[str, str]:
    return {
        "CALLFOLD_BROKER": kafka.url,
        "CALLFOLD_TOPICS_PREFIX": prefix,
        "CALLFOLD_STUCK_SECONDS": str(STUCK_SECONDS),
    } | others


def test_a_worker_that_stands_still_ends_with_one_clear_line(
    kafka: KafkaCluster, start: Callable[..., Working], tmp_path: Path
) -> None:
    workers = {}
    for fault in TOLD:
        prefix = f"stuck-{fault}"
        create_topics(kafka.url, prefix)
        produce_webhooks(kafka.url, prefix, busy_calls(20))
        lake = str(tmp_path / fault)
        workers[fault] = start(with_fault(fault), **settings(kafka, prefix, CALLFOLD_LAKE=lake))
    # It has fetched all that there was in one go; what comes now is what it will never fetch.
    until(lambda: calls_in(workers["fetch"].lake), "the first calls")
    produce_webhooks(kafka.url, "stuck-fetch", busy_calls(20))
    for fault, worker in workers.items():
        code = worker.process.wait(60)
        said = worker.said()
        lines = [line for line in said.splitlines() if line.startswith("callfold: ")]
        assert (code, len(lines)) == (1, 1), f"{fault}:\n{said}"
        assert re.fullmatch(
            rf"callfold: no progress for 3 s: {TOLD[fault]}; start the worker again", lines[0]
        )
        assert "Traceback" not in said, said


def test_a_worker_that_is_only_slow_goes_on(
    kafka: KafkaCluster, start: Callable[..., Working], prefix: str
) -> None:
    create_topics(kafka.url, prefix)
    produce_webhooks(kafka.url, prefix, busy_calls(40))
    worker = start(with_fault("slow"), **settings(kafka, prefix))
    # Eight partitions, each of whose batches takes half of what would be a standstill.
    until(lambda: len(calls_in(worker.lake)) == 40, "all calls")
    assert worker.finish() == 0, worker.said()
    assert "no progress" not in worker.said()


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def test_a_lake_that_cannot_be_written_holds_the_stream_back_and_ends_nobody(
    kafka: KafkaCluster, start: Callable[..., Working], prefix: str
) -> None:
    port, total = free_port(), 12_000
    create_topics(kafka.url, prefix)
    # The least that it may hold is far less than what is there.
    worker = start(with_fault("small"), **settings(kafka, prefix, CALLFOLD_METRICS_PORT=str(port)))
    worker.wait_for("working:")
    pid = worker.process.pid
    shutil.rmtree(worker.lake / "_tmp")
    (worker.lake / "_tmp").write_text("in the way")
    produce_webhooks(kafka.url, prefix, busy_calls(total, padding=2_000))
    events = 'callfold_events_total{provider="freeclimb"}'
    lag = f'callfold_committed_lag_messages{{partition="%d",topic="{prefix}.webhooks.freeclimb"}}'

    def lags(samples: dict[str, float]) -> float:
        return sum(samples.get(lag % partition, 0.0) for partition in range(8))

    until(lambda: lags(metrics_on(port)) == total, "the lag to be told")
    held, rss, begun = metrics_on(port)[events], rss_mb(pid), time.monotonic()

    def has_waited() -> bool:
        assert worker.process.poll() is None, worker.said()
        assert metrics_on(port)[events] <= held + 500
        assert rss_mb(pid) < rss + 30
        return time.monotonic() > begun + 3 * STUCK_SECONDS

    until(has_waited, "longer than a standstill")
    stopped = metrics_on(port)
    assert stopped[events] < total / 3
    assert stopped["callfold_destination_failures_total"] > 2
    assert stopped["callfold_assigned_partitions"] == 48
    (worker.lake / "_tmp").unlink()
    (worker.lake / "_tmp").mkdir()
    until(lambda: lag_on(kafka.url, prefix) == 0, "everything committed", 45)
    until(lambda: (told := metrics_on(port)) and lags(told) == 0, "no lag")
    now = metrics_on(port)
    assert abs(time.time() - now['callfold_last_flush_timestamp_seconds{step="assemble"}']) < 10
    assert now['callfold_flush_duration_seconds_count{step="normalise"}'] > 10
    assert worker.stop() == 0, worker.said()
    assert len(calls_in(worker.lake)) == count_in(worker.lake, "webhooks") == total
    assert "no progress" not in worker.said()

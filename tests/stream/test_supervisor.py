"""Several workers of one command: started, started again, stopped, and given up."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from jobs import fail, wait
from producing import busy_calls, produce_webhooks
from real_kafka import KafkaCluster
from running import Serving, Working, calls_in, count_in, free_ports, metrics_on, until
from settling import die_when_first_asked, die_whenever_asked, settle, write_when_asked

from pipeline.cli import main
from pipeline.stream import supervisor
from pipeline.stream.supervisor import RESTARTS_AT_MOST, Supervisor


@pytest.mark.kafka
def test_workers_of_one_command_share_the_work_and_the_dead_are_replaced(
    kafka: KafkaCluster, start: Callable[..., Working], prefix: str
) -> None:
    ports = free_ports(3)
    program = start(
        Working,
        "--workers",
        "3",
        CALLFOLD_BROKER=kafka.url,
        CALLFOLD_TOPICS_PREFIX=prefix,
        CALLFOLD_TOPICS_PARTITIONS="2",
        CALLFOLD_METRICS_PORT=str(ports),
        CALLFOLD_STUCK_SECONDS="8",
    )

    def assigned() -> list[float]:
        each = [metrics_on(ports + n).get("callfold_assigned_partitions", -1.0) for n in range(3)]
        return sorted(each)

    # Six topics of two partitions: two workers read one of each, the third has nothing to do.
    until(lambda: assigned() == [0.0, 6.0, 6.0], "the partitions to be shared")
    assert "3 workers for 2 partitions: 1 of them will be idle" in program.said()
    os.kill(program.children()[0], signal.SIGKILL)
    program.wait_for("the worker 0 died (exit code -9) and is started again")
    produce_webhooks(kafka.url, prefix, busy_calls(200))
    until(lambda: len(calls_in(program.lake)) == 200, "all calls")
    until(lambda: len(program.children()) == 3 and assigned() == [0.0, 6.0, 6.0], "the third worker again")
    workers = program.children()
    assert program.stop() == 0, program.said()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert count_in(program.lake, "webhooks") == 200


def test_when_one_worker_keeps_dying_the_others_are_stopped_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_SECONDS", 0.0)
    assert Supervisor([wait, fail]).run(threading.Event()) == 1
    told = [record.message for record in caplog.records if record.name == "pipeline.stream.supervisor"]
    assert told[:-1] == ["the worker 1 died (exit code 1) and is started again"] * RESTARTS_AT_MOST
    assert told[-1] == "the worker 1 died again (exit code 1) and is given up"


def test_all_workers_are_told_to_stop_at_once_and_waited_for() -> None:
    stopping = threading.Event()
    threading.Timer(1.0, stopping.set).start()
    begun = time.monotonic()
    assert Supervisor([wait, wait], collector=wait).run(stopping) == 0
    assert time.monotonic() - begun < supervisor.STOP_SECONDS / 2


def run_settling(folder: Path, worker: Callable[[Path, Callable[[], None]], None]) -> int:
    """The exit code of a collector that waits for such a worker; they are told to stop once both are there."""
    stopping, written = threading.Event(), folder / "written"
    program = Supervisor([partial(worker, written)], collector=partial(settle, written), is_settling=True)

    def stop() -> None:
        until(lambda: program._workers[0].is_ready, "the worker")
        stopping.set()

    telling = threading.Thread(target=stop)
    telling.start()
    try:
        return program.run(stopping)
    finally:
        telling.join()


@pytest.mark.parametrize("worker", [write_when_asked, die_when_first_asked])
def test_a_collector_that_waits_keeps_the_workers_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: Callable[..., None]
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_SECONDS", 0.0)
    assert run_settling(tmp_path, worker) == 0
    assert (tmp_path / "written").exists()
    assert not (tmp_path / "hurried").exists()
    assert (tmp_path / "died").exists() == (worker is die_when_first_asked)


def test_a_worker_that_is_given_up_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_SECONDS", 0.0)
    begun = time.monotonic()
    assert run_settling(tmp_path, die_whenever_asked) != 0
    assert (tmp_path / "hurried").exists()
    assert time.monotonic() - begun < supervisor.DRAIN_SECONDS


def test_the_embedded_broker_has_room_for_one_worker_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--workers", "2", "--lake", str(tmp_path / "lake")]) == 2
    assert "room for one worker" in capsys.readouterr().err
    assert main(["work", "--workers", "2", "--lake", str(tmp_path / "lake")]) == 1
    assert "needs a broker that other processes reach" in capsys.readouterr().err
    assert main(["work", "--workers", "0"]) == 2


@pytest.mark.kafka
@pytest.mark.parametrize("broker_settings", ["kafka"], indirect=True)
def test_serve_runs_several_workers_on_kafka(
    kafka: KafkaCluster, serving: Callable[..., Serving], prefix: str
) -> None:
    ports = free_ports(2)
    program = serving("--workers", "2", CALLFOLD_METRICS_PORT=str(ports))
    until(
        lambda: [metrics_on(ports + n).get("callfold_assigned_partitions") for n in range(2)] == [24.0, 24.0],
        "the partitions to be shared",
    )
    produce_webhooks(kafka.url, prefix, busy_calls(100))
    assert program.finish() == 0, program.said()
    assert len(calls_in(program.lake)) == 100

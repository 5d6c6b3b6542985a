"""Starts each program of the main job as a process of its own on one core, and measures it until all is committed.

`callfold backfill`, which needs no broker, is measured on all cores as well.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from day_of_calls import Traffic
from group import Group, webhook_topics

from pipeline.topic_names import call_events_topic, worker_group

HERE = Path(__file__).parent
FLUSH_SECONDS = 2
PATIENCE_SECONDS = 900.0
#: whoever takes fewer webhooks a second than this hangs, if he takes longer than `PATIENCE_SECONDS`
HANGING_PER_SECOND = 5_000
POLL_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
COMPILED = ("-m", "pipeline.cli")
PLAIN = ("-c", "from pipeline import cli, native; native.IS_COMPILED = False; cli.main()")
#: no call is closed by silence: the peers know no timeouts
IDLE_SECONDS = "1000000000"


class Failed(Exception):  # noqa: N818  it is told, not caught as an error of the code
    """A program did not do its job; the message says which and how."""


class NotInstalled(Failed):
    """A peer's packages are not there; the others can be measured all the same."""


class Measured(NamedTuple):
    """One run: seconds from the start of consuming until all is committed; CPU seconds likewise, its end included."""

    webhooks: int
    seconds: float
    cpu_seconds: float
    peak_mib: float

    @property
    def per_second(self) -> float:
        return self.webhooks / self.seconds

    @property
    def cpu_per_million(self) -> float:
        return self.cpu_seconds / self.webhooks * 1e6


class Place(NamedTuple):
    """Where programs run: the broker, the core that they have, the peers' Python."""

    servers: str
    core: int
    peers_python: Path
    every_core: frozenset[int] = frozenset()
    """For a program of several processes; the broker, idle then, may be on one of them."""


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    return kept | settings


def start(
    place: Place,
    command: list[str],
    log: Path,
    folder: Path,
    env: Mapping[str, str],
    cores: frozenset[int] | None = None,
) -> subprocess.Popen[bytes]:
    own = cores or {place.core}
    with log.open("wb") as said:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=said,
            preexec_fn=lambda: os.sched_setaffinity(0, own),  # noqa: PLW1509  no threads run here
        )


def finish(process: subprocess.Popen[bytes], name: str, log: Path) -> tuple[bytes, float, float]:
    """Its output, CPU seconds and peak MiB, once it has ended by itself. Raises `Failed` if it ended badly."""
    assert process.stdout is not None
    with process.stdout as stdout:
        said = stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGTERM):
        told = log.read_text("utf-8", "replace").strip().splitlines() or ["nothing said"]
        if told[-1].startswith(("ModuleNotFoundError", "ImportError")):
            raise NotInstalled(told[-1])
        raise Failed(f"{name} ended with {process.returncode}: {told[-1]}")
    return said, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def until(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes],
    name: str,
    log: Path,
    patience_s: float = PATIENCE_SECONDS,
) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if process.poll() is not None:
            raise Failed(f"{name} ended early: {log.read_text('utf-8', 'replace')[-500:]}")
        if time.monotonic() > deadline:
            process.kill()
            raise Failed(f"{name} did not finish within {patience_s:g} s")
        time.sleep(POLL_SECONDS)


class Worker:
    """`callfold work` on its core, with a new lake in `folder`; in a `with`, which sees to its end."""

    def __init__(
        self, place: Place, folder: Path, prefix: str, program: tuple[str, str] = COMPILED, **settings: str
    ) -> None:
        self.prefix, self.lake, self._log = prefix, folder / "lake", folder / "work.log"
        self.group = Group(place.servers, worker_group(prefix))
        own = {
            "CALLFOLD_BROKER": f"kafka://{place.servers.replace(',', ';')}",
            "CALLFOLD_LAKE": str(self.lake),
            "CALLFOLD_TOPICS_PREFIX": prefix,
            "CALLFOLD_ARCHIVE_WEBHOOKS": "false",
            "CALLFOLD_FLUSH_SECONDS": str(FLUSH_SECONDS),
            "CALLFOLD_IDLE_SECONDS": IDLE_SECONDS,
        }
        command = [sys.executable, *program, "work"]
        self.process = start(place, command, self._log, folder, environment(**(own | settings)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        kill(self.process)

    def until_it_has_its_partitions(self) -> None:
        self._until(self.group.is_stable)

    def until_drained(self, webhooks: int = 0) -> None:
        """Until everything that is on its topics is committed, which is after it is in the lake.

        `webhooks` is how many those are, where they may take longer than anything else here.
        """
        ends = self.group.ends(webhook_topics(self.prefix))
        patience_s = max(PATIENCE_SECONDS, webhooks / HANGING_PER_SECOND)
        self._until(lambda: self.group.has_committed(ends), patience_s)
        # All webhooks are events now: no more will come.
        events = self.group.ends([call_events_topic(self.prefix)])
        self._until(lambda: self.group.has_committed(events))

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        return cpu_seconds(self.process.pid)

    def stop(self) -> tuple[float, float]:
        """All its CPU seconds, and its peak MiB."""
        self.process.terminate()
        _, cpu, peak = finish(self.process, "callfold work", self._log)
        return cpu, peak

    def _until(self, condition: Callable[[], bool], patience_s: float = PATIENCE_SECONDS) -> None:
        until(condition, self.process, "callfold work", self._log, patience_s)


def callfold_work(
    place: Place,
    folder: Path,
    prefix: str,
    webhooks: int,
    archive: bool = False,
    program: tuple[str, str] = COMPILED,
    **settings: str,
) -> Measured:
    """`callfold work` over all webhooks of a prefix, from the first to the last, into a new lake in `folder`."""
    Group(place.servers, worker_group(prefix)).rewind(webhook_topics(prefix))
    settings = {"CALLFOLD_ARCHIVE_WEBHOOKS": str(archive).lower()} | settings
    with Worker(place, folder, prefix, program, **settings) as worker:
        worker.until_it_has_its_partitions()
        began, cpu_began = time.time(), worker.cpu_seconds()
        worker.until_drained(webhooks)
        ended = time.time()
        cpu, peak = worker.stop()
    return Measured(webhooks, ended - began, cpu - cpu_began, peak)


def callfold_backfill(place: Place, folder: Path, traffic: Traffic, processes: int) -> Measured:
    """`callfold backfill` of the archive; its start-up is measured with an empty one, and taken off.

    One process has the core of the others, several have all cores. An empty archive starts none: theirs counts.
    """
    empty = folder / "empty.ndjson"
    empty.write_bytes(b"")
    seconds, cpu, peak = _backfill(place, folder, traffic.archive, "lake", processes)
    idle_seconds, idle_cpu, _ = _backfill(place, folder, empty, "empty", processes)
    return Measured(traffic.webhooks, seconds - idle_seconds, cpu - idle_cpu, peak)


def _backfill(
    place: Place, folder: Path, archive: Path, lake: str, processes: int
) -> tuple[float, float, float]:
    env = environment(CALLFOLD_ARCHIVE_WEBHOOKS="false", CALLFOLD_IDLE_SECONDS=IDLE_SECONDS)
    command = [sys.executable, "-m", "pipeline.cli", "backfill", str(archive), "--lake", str(folder / lake)]
    command += ["--processes", str(processes)]
    log, began = folder / "backfill.log", time.time()
    process = start(place, command, log, folder, env, place.every_core if processes > 1 else None)
    try:
        below, all_peak = watched(process)
        _, cpu, peak = finish(process, "callfold backfill", log)
    finally:
        kill(process)
    return time.time() - began, cpu + below, max(peak, all_peak)


def watched(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """CPU seconds of the processes below one, and the peak MiB of all together, once it has ended.

    They end with it and unawaited, so they are looked at while they run: of each at most `POLL_SECONDS` are missing.
    Memory that they share counts once.
    """
    used: dict[int, float] = {}
    peak = 0.0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        below, resident = descendants(process.pid), 0
        for pid in (process.pid, *below):
            with suppress(OSError):
                told = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8") if below else ""
                resident += sum(int(kib) for kib in re.findall(r"^Pss: +(\d+)", told, re.MULTILINE))
                used[pid] = cpu_seconds(pid, with_ended=False)
        peak = max(peak, resident / 1024)
        time.sleep(POLL_SECONDS)
    used.pop(process.pid, None)
    return sum(used.values()), peak


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text("utf-8").split())
    return found[1:]


def peer(
    place: Place, folder: Path, prefix: str, webhooks: int, name: str, has_group: bool = True
) -> Measured:
    """A program of `peers/`, with a consumer group of its own; it tells its times itself."""
    group, log, out = Group(place.servers, f"{name}-{time.time_ns()}"), folder / f"{name}.log", folder / "out"
    if not place.peers_python.exists():
        raise NotInstalled(f"there is no {place.peers_python}")
    out.mkdir()
    command = [str(place.peers_python), str(HERE / "peers" / f"{name}.py"), "--servers", place.servers]
    command += ["--prefix", prefix, "--group", group.name, "--count", str(webhooks), "--out", str(out)]
    process = start(place, command, log, folder, environment())
    killer = threading.Timer(PATIENCE_SECONDS, process.kill)
    killer.start()
    try:
        said, cpu, peak = finish(process, name, log)
    finally:
        killer.cancel()
        killer.join()
        kill(process)
    try:
        # Faust paints its spinner around it.
        told = json.loads(next(line for line in said.splitlines() if line.startswith(b'{"began"')))
    except (StopIteration, ValueError) as error:
        ending = log.read_text("utf-8", "replace")[-500:].strip()
        raise Failed(f"{name} did not say when it was done: {said[-200:]!r} {ending}") from error
    if has_group and not group.has_committed(group.ends(webhook_topics(prefix))):
        raise Failed(f"{name} ended without having committed every webhook's offset")
    return Measured(webhooks, told["ended"] - told["began"], cpu - told["cpu_began"], peak)


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def cpu_seconds(pid: int, with_ended: bool = True) -> float:
    """What a process has used so far, with its children that have ended or without."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if with_ended else 13])) / TICKS

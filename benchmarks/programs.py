"""Starts each program of the main job as a process of its own on one core, and measures it until all is committed.

`callfold backfill`, which needs no broker, is measured on all cores as well.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from day_of_calls import Traffic
from group import Group, webhook_topics
from processes import (
    PATIENCE_SECONDS,
    Failed,
    NotInstalled,
    cpu_seconds,
    environment,
    finish,
    kill,
    start,
    until,
    watched,
)

from pipeline.topic_names import call_events_topic, worker_group

HERE = Path(__file__).parent
FLUSH_SECONDS = 2
#: whoever takes fewer webhooks a second than this hangs, if he takes longer than `PATIENCE_SECONDS`
HANGING_PER_SECOND = 5_000
COMPILED = ("-m", "pipeline.cli")
PLAIN = ("-c", "from pipeline import cli, native; native.IS_COMPILED = False; cli.main()")
#: no call is closed by silence: the peers know no timeouts
IDLE_SECONDS = "1000000000"


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
        env = environment(**(own | settings))
        self.process = start(command, self._log, folder, env, frozenset({place.core}))

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
    cores = place.every_core if processes > 1 else frozenset({place.core})
    process = start(command, log, folder, env, cores)
    try:
        below, all_peak = watched(process)
        _, cpu, peak = finish(process, "callfold backfill", log)
    finally:
        kill(process)
    return time.time() - began, cpu + below, max(peak, all_peak)


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
    process = start(command, log, folder, environment(), frozenset({place.core}))
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

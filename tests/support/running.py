"""Callfold as its users start it: real processes, a real broker, HTTP from outside."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb

from pipeline.query.values import rows_of
from pipeline.query.views import _references, _rooted, again, models
from pipeline.storage.engine import lake_connection
from pipeline.stream.offsets import read_offsets
from pipeline.topic_names import call_events_topic, webhooks_topic, worker_group

AS_INSTALLED = {"PYTHONPATH": str(Path(__file__).parent / "without_pandas")}
"""Of the environment of a program under test: it finds no pandas, as none is installed in production."""
PROVIDERS = ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")
WAIT_SECONDS = 40.0

Call = dict[str, Any]


def free_port() -> int:
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free.

    Below those that systems give to clients: whoever asks again and again at such a port, before anybody listens
    there, may be given it as its own and is then connected to itself.
    """
    while True:
        first = random.randrange(12_000, 32_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
        return first


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """The first true answer; a failure that says what was waited for."""
    deadline = time.monotonic() + seconds
    while (asked := time.monotonic()) < deadline:
        found = condition()
        if found:
            return found
        # What is waited for needs the machine more than the one who waits.
        time.sleep(max(0.1, 2 * (time.monotonic() - asked)))
    raise AssertionError(f"{what}: not within {seconds:g} s")


class Program:
    """One `callfold` process, its log and its end."""

    program: tuple[str, ...] = ("-m", "pipeline.cli")

    def __init__(self, folder: Path, command: str, *arguments: str, **settings: str) -> None:
        self.settings = settings
        self.log = folder / f"{command}-{time.monotonic_ns()}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
        open_doors = {f"CALLFOLD_{name.upper()}_AUTH": "none" for name in PROVIDERS}
        environment = kept | open_doors | AS_INSTALLED | {"CALLFOLD_FLUSH_SECONDS": "0.5"} | settings
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, command, *arguments],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str) -> None:
        def seen() -> bool:
            assert self.process.poll() is None, self.said()
            return text in self.said()

        until(seen, f"{text!r} in the log")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 90) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def finish(self, **partitions: int) -> int:
        """Stop it once everything that is on its topics is in the lake; the embedded broker's own stop sees to that.

        `partitions` are those of providers whose topics have not the usual number.
        """
        broker_url = self.settings.get("CALLFOLD_BROKER")
        if broker_url is not None:
            prefix = self.settings.get("CALLFOLD_TOPICS_PREFIX", "callfold")
            until(
                lambda: lag_on(broker_url, prefix, **partitions) == 0,
                f"everything read\n{self.said()[-3000:]}",
            )
        return self.stop()

    def children(self) -> list[int]:
        """Process ids of what it started, oldest first."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(stat[1]) == self.process.pid and "spawn_main" in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
        return sorted(found)

    def kill_all(self) -> None:
        for pid in self.children():
            _kill(pid)
        _kill(self.process.pid)
        self.process.wait(10)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Working(Program):
    """`callfold work` with a lake of its own."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self.lake = Path(settings.setdefault("CALLFOLD_LAKE", str(folder / "lake")))
        super().__init__(folder, "work", *arguments, **settings)


class Serving(Program):
    """`callfold serve` with a lake of its own."""

    command = "serve"

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self.lake = Path(settings.setdefault("CALLFOLD_LAKE", str(folder / "lake")))
        port = settings.setdefault("CALLFOLD_HTTP_PORT", str(free_port()))
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(folder, self.command, *arguments, **settings)
        until(self.is_ready, f"ready\n{self.said()}")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def post(self, provider: str, body: Any, query: str = "") -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/webhooks/{provider}{query}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code


class Collecting(Serving):
    """`callfold collect`."""

    command = "collect"


def lag_on(broker_url: str, prefix: str, **partitions: int) -> int:
    """Messages on a worker's topics that its group has not committed."""

    counts = {webhooks_topic(prefix, name): count for name, count in partitions.items()}

    def lag(*topics: str) -> int:
        wanted = [(topic, number) for topic in topics for number in range(counts.get(topic, 8))]
        offsets = asyncio.run(read_offsets(broker_url, worker_group(prefix), wanted))
        return sum(offset.lag for offset in offsets.values())

    # First the webhooks: once they are committed, their events are all on the other topic.
    webhooks = lag(*(webhooks_topic(prefix, name) for name in PROVIDERS))
    return webhooks + lag(call_events_topic(prefix))


def metrics_on(port: int) -> dict[str, float]:
    """Every sample of a worker's metrics by its name and labels; none while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = str(answer.read(), "utf-8").splitlines()
    except (urllib.error.URLError, OSError):
        return {}
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def look_at(lake: Path, view: str) -> duckdb.DuckDBPyConnection:
    """The lake with this view alone and what it is made of: all of them take most of the time of a short look.

    It may also be a SELECT over views.
    """
    connection = lake_connection(lake, threads=1)
    wanted, needed = {view, *_references(view)}, []
    for name, sql in reversed(models().items()):
        if name in wanted:
            wanted |= _references(sql)
            needed.append(f"create or replace view {name} as {_rooted(sql, str(lake))};")
    again(lambda: connection.execute("set timezone = 'UTC';" + "".join(reversed(needed))))
    return connection


def calls_in(lake: Path, view: str = "all_calls") -> dict[str, Call]:
    """Every call of the lake by its key; each may be there once only."""
    if not (lake / "views.sql").exists():
        return {}
    with look_at(lake, view) as connection:
        reader = connection.sql(f"from {view}").to_arrow_reader()
        rows = [
            dict(zip(reader.schema.names, row, strict=True)) for batch in reader for row in rows_of(batch)
        ]
    found = {row["call_key"]: row for row in rows}
    assert len(found) == len(rows), "a call is there twice"
    return found


def count_in(lake: Path, dataset: str) -> int:
    with look_at(lake, dataset) as connection:
        row = connection.execute(f"select count(*) from {dataset}").fetchone()
    assert row is not None
    return int(row[0])

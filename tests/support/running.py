"""Callfold as its users start it: real processes, a real broker, HTTP from outside."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.query.values import rows_of
from pipeline.query.views import connect

PROVIDERS = ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")
WAIT_SECONDS = 40.0

Call = dict[str, Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """The first true answer; a failure that says what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds:g} s")


class Program:
    """One `callfold` process, its log and its end."""

    def __init__(self, folder: Path, command: str, **settings: str) -> None:
        self.log = folder / f"{command}-{time.monotonic_ns()}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
        open_doors = {f"CALLFOLD_{name.upper()}_AUTH": "none" for name in PROVIDERS}
        environment = kept | open_doors | {"CALLFOLD_FLUSH_SECONDS": "0.5"} | settings
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", command],
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


class Serving(Program):
    """`callfold serve` with a lake of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.lake = folder / "lake"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        super().__init__(
            folder, "serve", CALLFOLD_LAKE=str(self.lake), CALLFOLD_HTTP_PORT=str(port), **settings
        )
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


def calls_in(lake: Path, view: str = "calls union all by name from open_calls") -> dict[str, Call]:
    """Every call of the lake by its key; each may be there once only."""
    if not (lake / "views.sql").exists():
        return {}
    with connect(lake) as connection:
        reader = connection.sql(f"from {view}").to_arrow_reader()
        rows = [
            dict(zip(reader.schema.names, row, strict=True)) for batch in reader for row in rows_of(batch)
        ]
    found = {row["call_key"]: row for row in rows}
    assert len(found) == len(rows), "a call is there twice"
    return found


def count_in(lake: Path, dataset: str) -> int:
    with connect(lake) as connection:
        row = connection.execute(f"select count(*) from {dataset}").fetchone()
    assert row is not None
    return int(row[0])

"""The demo: everything at work on simulated calls, and the proof that its result is right.

What is compared: every webhook that was accepted is in the lake once; and every column of every call equals what
an oracle, which shares no code with the pipeline, makes of the webhooks that were sent. Only the time at which
the collector took each webhook is taken from the lake, since nobody can know it beforehand.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.errors import CallfoldError, UserError
from pipeline.model import Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.providers import providers
from pipeline.query.run import run_query
from pipeline.query.values import rows_of
from pipeline.query.views import connect
from pipeline.report.build import build_report
from pipeline.report.period import parse_period
from pipeline.report.render import render
from pipeline.simulate import Sent, generate, send, truth

READY_SECONDS = 30.0
STOP_SECONDS = 90.0
DUPLICATES, SHUFFLE = 0.05, 0.1
CONCURRENCY = 32
SHOWN = {
    "kpi_answer_rate": "select provider, direction, sum(calls)::int calls, sum(seizures)::int seizures, "
    "sum(answered)::int answered, round(sum(answered) / sum(calls), 3) answer_rate, "
    "round(sum(answered) / nullif(sum(seizures), 0), 3) asr from kpi_answer_rate group by all order by all",
    "kpi_end_trigger": "select provider, end_trigger, sum(calls)::int calls from kpi_end_trigger "
    "group by all order by all",
    "kpi_failure": "select failure_class, outcome, sum(calls)::int calls from kpi_failure "
    "group by all order by calls desc",
    "data_quality": "select provider, sum(calls)::int calls, sum(late_revisions)::int late_revisions, "
    "sum(quarantined)::int quarantined from data_quality group by all order by all",
}
_MARK = ".callfold-demo"


def demo(folder: Path, *, calls: int, seed: int) -> int:
    """Runs the demo in `folder`, which it empties first; raises CallfoldError at the first thing that is wrong."""
    console = Console(stderr=False)
    lake = _empty(folder) / "lake"
    began = time.monotonic()
    yesterday = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)
    lines = list(generate(calls, seed, yesterday, 1.0, duplicates=DUPLICATES, shuffle=SHUFFLE))
    (folder / "webhooks.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))
    console.print(
        f"[bold]Callfold demo[/]: {calls:,} calls, {len(lines):,} webhooks of {len(providers())} providers"
    )
    with serving(lake, folder / "serve.log") as (url, stop):
        console.print(f"collector, worker and embedded broker are up at {url}")
        sent = _send(lines, url, console)
        drained = time.monotonic()
        with console.status("stopping: what was accepted goes into the lake first"):
            stop()
    console.print(
        f"{sent.posted:,} webhooks accepted in {sent.seconds:.1f} s ({sent.posted / sent.seconds:,.0f}/s); "
        f"all in the lake {time.monotonic() - drained:.1f} s later"
    )
    for title, sql in SHOWN.items():
        console.print(f"\n[bold]{title}[/]")
        sys.stdout.flush()
        run_query(lake, sql, "table", sys.stdout.buffer)
    report = folder / "report.html"
    now = datetime.now(UTC)
    report.write_text(render(build_report(lake, parse_period("all", now), now), "html"), encoding="utf-8")
    compared = compare(lake, lines)
    console.print(f"\nreport: {report}\nlake:   {lake}   (try: callfold query 'from calls' --lake {lake})")
    console.print(
        f"[bold green]right[/]: {compared:,} calls, each there once and equal to the truth in every column "
        f"({time.monotonic() - began:.0f} s)"
    )
    return 0


def _empty(folder: Path) -> Path:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise UserError(f"{folder} is not empty and not a demo's: name another folder with --lake")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(lake: Path, log: Path) -> Iterator[tuple[str, Any]]:
    """`callfold serve` as a user starts it, and the way to stop it, which fails if it does not drain."""
    port = _free_port()
    accepted = {f"CALLFOLD_{name.upper()}_AUTH": "none" for name in providers()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    environment = kept | accepted | {"CALLFOLD_FLUSH_SECONDS": "1", "CALLFOLD_HTTP_PORT": str(port)}
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-m", "pipeline.cli", "serve", "--lake", str(lake), "--config", os.devnull],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"

        def stop() -> None:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise CallfoldError(
                    f"`callfold serve` did not stop within {STOP_SECONDS:g} s, see {log}"
                ) from None
            if code != 0:
                raise CallfoldError(f"`callfold serve` exited with {code}, see {log}")

        try:
            _wait_until_ready(process, url, log)
            yield url, stop
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=1):  # noqa: S310  our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise CallfoldError(f"`callfold serve` did not get ready, see {log}")


def _send(lines: Sequence[bytes], url: str, console: Console) -> Sent:
    columns = (
        TextColumn("posting webhooks"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("posting", total=len(lines))
        sent = asyncio.run(send(lines, url, CONCURRENCY, lambda more: bar.advance(task, more)))
    if sent.refused:
        raise CallfoldError(
            f"the collector refused {sent.refused:,} of {sent.posted:,} webhooks: {sent.by_answer}"
        )
    return sent


def compare(lake: Path, lines: Sequence[bytes], *, is_in_order: bool = True) -> int:
    """Compares the lake with the truth; returns the number of calls, or raises at the first difference.

    Unless the webhooks were read in the order of their receipt, the revisions of calls that are cut out of an agent's
    stream may be higher than the truth, which knows of no other order.
    """
    received = _receipts(lake, lines)
    expected = {record["call_key"]: record for record in truth(received)}
    with connect(lake) as connection:
        reader = connection.sql("from all_calls").to_arrow_reader()
        rows = [
            dict(zip(reader.schema.names, row, strict=True)) for batch in reader for row in rows_of(batch)
        ]
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["call_key"] in found:
            raise CallfoldError(f"{row['call_key']} is in the lake twice")
        found[row["call_key"]] = row
    for key in sorted(expected.keys() | found.keys()):
        _compare_call(key, expected.get(key), found.get(key), is_in_order)
    return len(found)


def _compare_call(
    key: str, expected: dict[str, Any] | None, found: dict[str, Any] | None, is_in_order: bool
) -> None:
    if expected is None or found is None:
        raise CallfoldError(
            f"{key} is {'not in the lake' if found is None else 'in the lake, and never was'}"
        )
    may_be_higher = not is_in_order and providers()[expected["provider"]].keyed_by == "agent"
    for column, true_value in expected.items():
        value = found[column]
        if isinstance(true_value, float) and isinstance(value, (int, float)):
            if abs(true_value - value) < 1e-6:
                continue
        elif value == true_value or (column == "revision" and may_be_higher and value > true_value):
            continue
        raise CallfoldError(f"{key}: {column} is {value!r} and should be {true_value!r}")


def _receipts(lake: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The lines as sent, each with the time of its receipt; raises if one is not in the lake exactly once."""
    normaliser = Normaliser(providers(), Privacy())
    with connect(lake) as connection:
        archived = connection.execute(
            "select provider, query, body, strftime(received_at, '%Y-%m-%dT%H:%M:%S.%fZ') from webhooks "
            "order by received_at"
        ).fetchall()
    times: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for provider, query, body, received_at in archived:
        times[provider, query, body].append(received_at)
    received = []
    for line in lines:
        told = msgspec.json.decode(line)
        webhook = Webhook(
            told["provider"], 0, msgspec.json.encode(told["body"]), query=told.get("query") or {}
        )
        kept = normaliser.stored(webhook).webhook
        query = msgspec.json.encode(kept.query, order="sorted").decode()
        waiting = times[kept.provider, query, kept.body.decode()]
        if not waiting:
            raise CallfoldError(f"a webhook was accepted and is not in the lake: {line[:200]!r}")
        received.append(told | {"received_at": waiting.pop(0)})
    left = sum(map(len, times.values()))
    if left:
        raise CallfoldError(f"{left:,} webhooks are in the lake that were never sent, or are there twice")
    return received

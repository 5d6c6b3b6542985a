"""Measures Callfold's paths side by side, as ratios to one of them: machines are shared and noisy.

    python benchmarks/run.py [--calls 20000] [--rounds 3]

Paths, all over the same simulated webhooks of the five providers:

* normalise: webhooks to events, in memory, and nothing else: what the others are measured against;
* backfill: an archive into the lake, without keeping the webhooks themselves;
* backfill+archive: the same, and the webhooks kept as well, redacted (the default setting);
* embedded: over HTTP through collector, embedded broker and worker into the lake, as `make demo` does.

Rounds alternate between the paths; the median of each is told, with its peak memory where it is a process.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.archive import read_archive
from pipeline.model import Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.providers import providers
from pipeline.simulate import send, write

Measured = tuple[float, float | None]
"""Seconds, and peak memory in MiB."""


def normalise(archive: Path) -> Measured:
    webhooks = [found for found in read_archive(archive) if isinstance(found, Webhook)]
    normaliser = Normaliser(providers(), Privacy())
    began = time.perf_counter()
    for webhook in webhooks:
        normaliser.events(webhook)
    return time.perf_counter() - began, None


def backfill(archive: Path, *, keep: bool) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment() | {"CALLFOLD_ARCHIVE_WEBHOOKS": str(keep).lower()}
        command = [sys.executable, "-m", "pipeline.cli", "backfill", str(archive), "--lake", f"{folder}/lake"]
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode != 0:
            raise SystemExit(f"backfill failed with exit code {process.returncode}")
        return seconds, usage.ru_maxrss / 1024


def embedded(archive: Path) -> Measured:
    from pipeline.demo import serving

    with tempfile.TemporaryDirectory() as folder:
        lines = archive.read_bytes().splitlines()
        with serving(Path(folder) / "lake", Path(folder) / "serve.log") as (url, stop):
            began = time.perf_counter()
            sent = asyncio.run(send(lines, url, 32))
            stop()
            seconds = time.perf_counter() - began
        if sent.refused:
            raise SystemExit(f"the collector refused webhooks: {sent.by_answer}")
        return seconds, None


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10_000, help="calls to simulate (five webhooks each)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "webhooks.ndjson"
        count = write(options.calls, 1, out=archive).webhooks
        size = archive.stat().st_size / count
        console.print(f"{count:,} webhooks of {size:,.0f} bytes on average, {options.rounds} rounds")
        paths: dict[str, Callable[[], Measured]] = {
            "normalise": lambda: normalise(archive),
            "backfill": lambda: backfill(archive, keep=False),
            "backfill+archive": lambda: backfill(archive, keep=True),
            "embedded": lambda: embedded(archive),
        }
        measured: dict[str, list[Measured]] = {name: [] for name in paths}
        for number in range(options.rounds):
            for name, path in paths.items():
                with console.status(f"round {number + 1}: {name}"):
                    measured[name].append(path())
    _print(console, count, measured)


def _print(console: Console, count: int, measured: dict[str, list[Measured]]) -> None:
    limit = statistics.median(seconds for seconds, _ in measured["normalise"])
    table = Table("path", "webhooks/s", "ratio to normalise", "peak MiB")
    for name, rounds in measured.items():
        seconds = statistics.median(seconds for seconds, _ in rounds)
        peaks = [peak for _, peak in rounds if peak is not None]
        peak = f"{statistics.median(peaks):,.0f}" if peaks else "-"
        table.add_row(name, f"{count / seconds:,.0f}", f"{limit / seconds:.2f}", peak)
    console.print(table)


if __name__ == "__main__":
    main()

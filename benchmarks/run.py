"""The main job beside its peers: webhooks on Kafka to call records in Parquet, offsets committed, on one core each.

    python benchmarks/run.py [--rounds 5] [--quick] [--only callfold,limit]

Every program reads the same preloaded topics of a real Apache Kafka, which has the other core (with this program).
The clock runs from the moment the program has its partitions (Faust, Quix Streams: from the first webhook) until all
records are written and all offsets are committed; rounds alternate between the programs; told are medians.
Every program's calls are compared with the simulator's truth, and a difference ends the run.
Writes RESULTS.md, results.json and results.svg beside itself. Needs Java and Maven for Kafka's jars, as the tests do.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import page
import results
from calls import COMPARED, calls_of_files, calls_of_lake, differences
from day_of_calls import Traffic, preload, records_of, simulate
from processes import Failed, NotInstalled
from producing import create_topics
from programs import (
    COMPILED,
    PLAIN,
    Measured,
    Place,
    callfold_backfill,
    callfold_work,
    peer,
)
from real_kafka import KafkaCluster, why_unavailable
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
PEERS_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"
PEER_PACKAGES = ("faust-streaming", "quixstreams", "bytewax", "confluent-kafka", "msgspec", "pyarrow")
DAYS = 1.0


class Program(NamedTuple):
    """One of the programs: which topics it reads, and how it is measured in a folder of its own."""

    prefix: str
    measure: Callable[[Place, Path, Traffic], Measured]


def _work(prefix: str, archive: bool = False, program: tuple[str, str] = COMPILED) -> Program:
    def measure(place: Place, folder: Path, traffic: Traffic) -> Measured:
        measured = callfold_work(place, folder, prefix, traffic.webhooks, archive, program)
        check("callfold", traffic, calls_of_lake(folder / "lake"))
        return measured

    return Program(prefix, measure)


def _backfill(place: Place, folder: Path, traffic: Traffic) -> Measured:
    return _checked_backfill(place, folder, traffic, len(place.every_core))


def _backfill_one(place: Place, folder: Path, traffic: Traffic) -> Measured:
    return _checked_backfill(place, folder, traffic, 1)


def _checked_backfill(place: Place, folder: Path, traffic: Traffic, processes: int) -> Measured:
    measured = callfold_backfill(place, folder, traffic, processes)
    check("callfold backfill", traffic, calls_of_lake(folder / "lake"))
    return measured


def _peer(prefix: str, name: str, has_group: bool = True, folds: bool = True) -> Program:
    def measure(place: Place, folder: Path, traffic: Traffic) -> Measured:
        measured = peer(place, folder, prefix, traffic.webhooks, name, has_group)
        if folds:
            check(name, traffic, calls_of_files(folder / "out"))
        return measured

    return Program(prefix, measure)


#: under the name of its keys in results.json; the slow one reads a smaller topic, as its cost per webhook is flat
PROGRAMS = {
    "callfold": _work("large"),
    "archive": _work("large", archive=True),
    "plain": _work("large", program=PLAIN),
    "backfill": Program("large", _backfill),
    "backfill_one": Program("large", _backfill_one),
    "faust": _peer("small", "faust_table"),
    "quix": _peer("large", "quix_state"),
    "bytewax": _peer("large", "bytewax_flow", has_group=False),
    "loop": _peer("large", "confluent_loop"),
    "limit": _peer("large", "limit", folds=False),
}
#: the first words of their keys, where these are not `stream.` and the name
PARTS = {"callfold": "stream", "backfill": "backfill", "backfill_one": "backfill.one"}


def check(name: str, traffic: Traffic, found: dict) -> None:
    """Raises `Failed` if a program's calls are not the true ones."""
    problem = differences(traffic.calls, found)
    if problem is not None:
        raise Failed(f"{name}: {problem}")


def cores() -> tuple[set[int], int]:
    """Those of the broker and of this program, and the one of the measured program."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise SystemExit("the benchmark needs two cores: one for Kafka, one for what is measured")
    return {available[0]}, available[1]


def measure_all(
    options: argparse.Namespace, folder: Path, console: Console
) -> tuple[dict[str, list[Measured]], dict[str, Traffic], dict[str, str]]:
    """The runs of each program, the traffic by prefix, and what could not be run, with the reason."""
    broker_cores, core = cores()
    every_core = frozenset(os.sched_getaffinity(0))
    os.sched_setaffinity(0, broker_cores)
    traffics: dict[str, Traffic] = {}
    absent: dict[str, str] = {}
    programs = {name: PROGRAMS[name] for name in options.only}
    with KafkaCluster(folder / "kafka") as kafka, bar(console) as progress:
        place = Place(kafka.servers, core, options.peers_python, every_core)
        sizes = {"large": options.calls, "small": options.small_calls}
        for prefix in sorted({program.prefix for program in programs.values()}):
            calls = sizes[prefix]
            task = progress.add_task(f"simulating {calls:,} calls and putting them on Kafka", total=None)
            (folder / prefix).mkdir()
            traffics[prefix] = simulate(folder / prefix, calls, DAYS)
            create_topics(kafka.url, prefix, 8)
            preload(kafka.servers, prefix, records_of(traffics[prefix].archive))
            progress.remove_task(task)
        measured: dict[str, list[Measured]] = {name: [] for name in programs}
        task = progress.add_task("", total=options.rounds * len(programs))
        for number in range(options.rounds):
            for name, program in programs.items():
                progress.update(task, description=f"round {number + 1}: {name}")
                if name not in absent:
                    try:
                        measured[name].append(once(program, place, folder, traffics[program.prefix]))
                    except NotInstalled as problem:
                        absent[name] = f"not installed: {problem}"
                progress.advance(task)
    return {name: runs for name, runs in measured.items() if runs}, traffics, absent


def once(program: Program, place: Place, folder: Path, traffic: Traffic) -> Measured:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        return program.measure(place, Path(own), traffic)


def bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def figures(measured: dict[str, list[Measured]]) -> results.Results:
    """The keys of results.json: of each program its medians, and Callfold's ratios to them."""
    told: results.Results = {}
    rates = {name: statistics.median(run.per_second for run in runs) for name, runs in measured.items()}
    for name, runs in measured.items():
        part = PARTS.get(name, f"stream.{name}")
        told[f"{part}.events_per_s"] = rates[name]
        told[f"{part}.cpu_s_per_million"] = statistics.median(run.cpu_per_million for run in runs)
        told[f"{part}.peak_mib"] = statistics.median(run.peak_mib for run in runs)
        told[f"{part}.slowest_per_s"] = min(run.per_second for run in runs)
        told[f"{part}.fastest_per_s"] = max(run.per_second for run in runs)
        told[f"{part}.webhooks"] = runs[0].webhooks
        if "callfold" not in rates or name == "callfold":
            continue
        if name in PARTS:
            told[f"{part}.ratio_stream"] = rates[name] / rates["callfold"]
        else:
            told[f"stream.ratio_{name}"] = rates["callfold"] / rates[name]
    return told


def show(console: Console, measured: dict[str, list[Measured]]) -> None:
    table = Table("program", "webhooks/s", "callfold / it", "CPU s per million", "peak MiB")
    told = figures(measured)
    for name in measured:
        part = PARTS.get(name, f"stream.{name}")
        ratio = told.get(f"stream.ratio_{name}")
        table.add_row(
            name,
            f"{told[f'{part}.events_per_s']:,.0f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{told[f'{part}.cpu_s_per_million']:,.1f}",
            f"{told[f'{part}.peak_mib']:,.0f}",
        )
    console.print(table)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--calls", type=int, help="simulated for the fast programs (nearly five webhooks each)"
    )
    parser.add_argument("--small-calls", type=int, help="simulated for the slow one")
    parser.add_argument(
        "--quick", action="store_true", help="a small load, one round, and nothing is written"
    )
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(PROGRAMS), help="programs, by comma"
    )
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    options = parser.parse_args()
    if unknown := set(options.only) - PROGRAMS.keys():
        parser.error(f"no such programs: {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.calls = options.calls or (8_000 if options.quick else 300_000)
    options.small_calls = options.small_calls or (1_500 if options.quick else 12_000)
    return options


def main() -> None:
    options, console = options_of(), Console()
    if reason := why_unavailable():
        console.print(f"the main job is not measured: {reason}")
        return
    with tempfile.TemporaryDirectory() as name:
        try:
            measured, traffics, absent = measure_all(options, Path(name), console)
        except Failed as problem:
            raise SystemExit(f"benchmark: {problem}") from problem
    show(console, measured)
    for program, reason in absent.items():
        console.print(f"{program}: {reason}")
    if options.quick or set(options.only) != set(PROGRAMS):
        console.print("a part of the benchmark only: results.json and RESULTS.md stay as they are")
        return
    large = traffics["large"]
    told = figures(measured) | {
        "stream.body_bytes": large.body_bytes / large.webhooks,
        "stream.rounds": options.rounds,
        "stream.compared": "call_key, " + ", ".join(COMPARED),
        "stream.calls": len(large.calls),
        "stream.small_calls": len(traffics["small"].calls),
        "stream.absent": "; ".join(f"{name}: {reason}" for name, reason in absent.items()) or None,
        "stream.peer_versions": ", ".join(
            f"{name} {found}"
            for name, found in results.versions_in(options.peers_python, PEER_PACKAGES).items()
        ),
    }
    page.write(results.update(told, "stream,backfill"))
    console.print(f"written: {results.RESULTS}, {page.PAGE.name}, {page.PLOT.name}")


if __name__ == "__main__":
    main()

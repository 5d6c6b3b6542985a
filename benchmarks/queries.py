"""What the lake's views cost beside one hand-sorted Parquet file, and how long one call's events are looked for.

    python benchmarks/queries.py [--folder FOLDER] [--days 90] [--calls-a-day 111200] [--rounds 5] [--dry-run]

The lake is `big_lake.py`'s: ten million calls over ninety days. Each KPI view runs over it, and the same SQL over one
Parquet file that holds what its `all_calls` shows, sorted by date, provider and start; the rows must be the same. (The
revisions that `data_quality` counts are the lake's in both.) Then both again with a busy hot area: 100,000 revisions
more in 1,000 hot files, of which one in twenty is of a sealed call. Rounds alternate; ratios are of the medians of CPU
time, as machines are shared. `--folder` keeps lake and file for another run. Writes its part of results.json and
RESULTS.md.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import big_lake
import duckdb
import page
import results
from rich.console import Console

from pipeline.lake import Lake
from pipeline.lake.schemas import SCHEMAS
from pipeline.query.views import connect, models, views_sql

THREADS = 2
SOURCES = {"int_latest_calls": "date, provider, started_at"}
"""The view that a sorted file stands in for, and its order."""


class Cost(NamedTuple):
    """CPU and wall time of one statement."""

    cpu_s: float
    wall_s: float


def kpi_views() -> list[str]:
    return [name for name in models() if name.startswith("kpi_") or name == "data_quality"]


def over_lake(lake: Path) -> duckdb.DuckDBPyConnection:
    connection = connect(lake)
    connection.execute(f"set threads = {THREADS}")
    return connection


def write_single_files(lake: Path, folder: Path) -> dict[str, Path]:
    """One sorted file of what each of the views shows, if it is not there yet."""
    files = {view: folder / f"{view}.parquet" for view in SOURCES}
    with over_lake(lake) as connection:
        for view, file in files.items():
            if not file.exists():
                part = file.with_suffix(".part")
                connection.execute(
                    f"copy (from {view} order by {SOURCES[view]}) to '{part}' (format parquet, compression zstd)"
                )
                part.replace(file)
    return files


def over_files(lake: Path, files: dict[str, Path]) -> duckdb.DuckDBPyConnection:
    """The same views, those of the files in place of the lake's."""
    connection = over_lake(lake)
    for view, file in files.items():
        connection.execute(f"create or replace view {view} as from read_parquet('{file}')")
    return connection


def cost(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Cost, list[Any]]:
    cpu, wall = time.process_time(), time.perf_counter()
    # `execute` plans a statement once, as the DuckDB command line does; Python's `sql` would do it twice.
    rows = connection.execute(sql).fetchall()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall), rows


def compare(
    lake: duckdb.DuckDBPyConnection, single: duckdb.DuckDBPyConnection, rounds: int, same: bool
) -> dict[str, tuple[Cost, Cost]]:
    """Median costs of each view over the lake and over the file, after a round that warms both."""
    found = {}
    for view in kpi_views():
        runs: tuple[list[Cost], list[Cost]] = ([], [])
        for number in range(rounds + 1):
            (ours, rows), (theirs, wanted) = cost(lake, f"from {view}"), cost(single, f"from {view}")
            if number == 0 and same and sorted(map(repr, rows)) != sorted(map(repr, wanted)):
                raise SystemExit(f"benchmark: {view} shows other rows over the lake than over one file")
            if number:
                runs[0].append(ours)
                runs[1].append(theirs)
        found[view] = (_median(runs[0]), _median(runs[1]))
    return found


def _median(runs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*runs, strict=True)))


@contextmanager
def busy_hot_area(root: Path, revisions: int, files: int) -> Iterator[None]:
    """So many revisions more in so many hot files, for as long as this lasts; one in twenty is of a sealed call."""
    lake, schema = Lake(root), SCHEMAS["calls"]
    with duckdb.connect() as connection:
        table = connection.sql(
            f"""
            with newest as (
                select * from read_parquet('{root}/calls/sealed/date=*/*.parquet', hive_partitioning = false)
                order by date desc, hash(call_key) limit {revisions}
            )
            select * exclude (generation) replace (
                if(is_late, call_key, call_key || 'n') as call_key,
                if(is_late, key_hash, key_hash + 1) as key_hash,
                if(is_late, revision + 1, revision) as revision,
            ) from (select *, hash(call_key) % 20 = 0 as is_late from newest) order by hash(call_id)
            """
        ).to_arrow_table()
    table = table.select(schema.names).cast(schema)
    written, size = [], max(1, len(table) // files)
    try:
        for number, start in enumerate(range(0, len(table), size)):
            written.append(lake.hot("calls") / f"{number:017d}-busy.parquet")
            lake.write(table.slice(start, size), written[-1])
        yield
    finally:
        for file in written:
            file.unlink(missing_ok=True)


def timeline(root: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of looking for one call's events: at first (footers unread) and again, in plain DuckDB."""
    with over_lake(root) as connection:
        ((first, last),) = connection.execute("select min(date), max(date) from calls").fetchall()
        day = first + (last - first) / 2
        keys = connection.sql(
            "select call_key from calls where date = $day order by hash(call_key) limit $count",
            params={"day": day, "count": rounds},
        ).fetchall()
    views = views_sql(str(root))
    first_runs, runs, events = [], [], []
    for (key,) in keys:
        sql = f"select * from call_events where call_key = '{key}' order by event_at"
        with duckdb.connect(config={"threads": THREADS}) as connection:
            connection.execute(views)
            first_runs.append(cost(connection, sql)[0])
        with over_lake(root) as connection:
            cost(connection, sql)
            found, rows = cost(connection, sql)
            runs.append(found)
            events.append(len(rows))
    if not all(events):
        raise SystemExit("benchmark: a call without events")
    return {
        "query.timeline_first_ms": 1000 * _median(first_runs).wall_s,
        "query.timeline_first_cpu_ms": 1000 * _median(first_runs).cpu_s,
        "query.timeline_ms": 1000 * _median(runs).wall_s,
        "query.timeline_cpu_ms": 1000 * _median(runs).cpu_s,
    }


def figures(quiet: dict[str, tuple[Cost, Cost]], busy: dict[str, tuple[Cost, Cost]]) -> results.Results:
    """The keys of results.json: each view's costs and ratios, and the worst and the median of them."""
    told: results.Results = {}
    for view, (ours, theirs) in quiet.items():
        told[f"query.{view}.single_s"] = theirs.wall_s
        told[f"query.{view}.lake_s"] = ours.wall_s
        told[f"query.{view}.ratio"] = ours.cpu_s / theirs.cpu_s
        told[f"query.{view}.ratio_busy"] = busy[view][0].cpu_s / busy[view][1].cpu_s
    for name, part in (("single_file", "ratio"), ("busy", "ratio_busy")):
        ratios = [told[f"query.{view}.{part}"] for view in quiet]
        told[f"query.ratio_{name}"] = max(ratios)
        told[f"query.ratio_{name}_median"] = statistics.median(ratios)
    return told


def measure(folder: Path, options: argparse.Namespace, say: Callable[[str], None]) -> results.Results:
    """Makes what is not there, and measures all."""
    root = folder / "lake"
    made = big_lake.make(root, options.calls_a_day, options.days, say)
    say("the sorted files")
    files = write_single_files(root, folder)
    say("views")
    with over_lake(root) as lake, over_files(root, files) as single:
        quiet = compare(lake, single, options.rounds, same=True)
        with busy_hot_area(root, options.busy_revisions, options.busy_files):
            busy = compare(lake, single, options.rounds, same=False)
    say("one call's events")
    told = figures(quiet, busy) | timeline(root, options.rounds)
    sealed = len(list((root / "calls" / "sealed").glob("date=*/*.parquet")))
    told |= {f"query.{name}": value for name, value in made._asdict().items()}
    told |= {
        "query.rounds": options.rounds,
        "query.busy_revisions": options.busy_revisions,
        "query.busy_files": options.busy_files,
        "query.sealed_files_a_date": sealed / made.days,
        "query.lake_mib": sum(f.stat().st_size for f in root.rglob("*.parquet")) / 2**20,
        "query.single_mib": files["int_latest_calls"].stat().st_size / 2**20,
    }
    return told


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, help="keep the lake here for another run; 5 GB at the full size"
    )
    parser.add_argument("--days", type=int, default=big_lake.DAYS)
    parser.add_argument("--calls-a-day", type=int, default=big_lake.CALLS_A_DAY)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy-revisions", type=int, default=100_000)
    parser.add_argument("--busy-files", type=int, default=1_000)
    parser.add_argument("--dry-run", action="store_true", help="write nothing into results.json")
    return parser.parse_args(arguments)


def main() -> None:
    options, console = options_of(), Console()
    with tempfile.TemporaryDirectory() as name, console.status("") as status:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        told = measure(folder, options, status.update)
    for view in kpi_views():
        ratio, busy = told[f"query.{view}.ratio"], told[f"query.{view}.ratio_busy"]
        console.print(f"{view}: {ratio:.2f}, with a busy hot area {busy:.2f}")
    console.print(
        f"one call's events: {told['query.timeline_ms']:.0f} ms, at first {told['query.timeline_first_ms']:.0f} ms"
    )
    if not options.dry_run:
        page.write(results.update(told, "query"))


if __name__ == "__main__":
    main()

"""Compaction: the small files of many flushes become one sorted, deduplicated file per date.

At every moment a reader sees every row once. A call that has a hot row is read from there alone, so sealed files
may be replaced one after the other; merged hot files stay until a grace period is over, for readers that have
them open; and which files those are stands in a manifest, so that a crash leaves work undone but nothing wrong.
A call that is still going on is never sealed: its newest row moves to a new hot file.
"""

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.lake.files import SCHEMA_FILE, Lake, quoted, unavailable, unreadable
from pipeline.lake.schemas import SCHEMAS

ABANDONED_SECONDS: Final = 3600.0
"""Work in progress that is older was left behind by a crash."""

CARRIED: Final = "-carried.parquet"
"""How the names of hot files end that hold the calls that are going on."""


class Compaction(NamedTuple):
    """What a compaction did."""

    merged: int
    sealed: int
    removed: int
    is_elsewhere: bool = False

    def __str__(self) -> str:
        if self.is_elsewhere:
            return "another compaction of this lake is under way"
        return f"{self.merged:,} hot files merged into {self.sealed:,} sealed ones, {self.removed:,} old files removed"


class _Dataset(NamedTuple):
    """How the rows of one dataset are sealed."""

    name: str
    source: str
    """The dataset whose hot files it comes from."""
    key: str
    newest: str
    """Order in which the first row of a key is the one that counts."""
    kept: str
    """Which of these rows are sealed; the others are dropped, or carried over if they are open calls."""
    order: str


_DATASETS: Final = (
    _Dataset(
        "call_events",
        "call_events",
        "event_id",
        "published_at desc",
        "true",
        "stream_key, event_at, event_id",
    ),
    _Dataset(
        "calls",
        "calls",
        "call_key",
        "revision desc, published_at desc",
        "state = 'ended' and not is_retracted",
        "provider, started_at, call_key",
    ),
    _Dataset(
        "call_revisions",
        "calls",
        "call_key, revision",
        "published_at desc",
        "not is_retracted",
        "provider, call_key, revision",
    ),
    _Dataset(
        "webhooks", "webhooks", "webhook_id", "published_at desc", "true", "provider, received_at, webhook_id"
    ),
    _Dataset(
        "quarantine",
        "quarantine",
        "webhook_id",
        "is_resolved desc, published_at desc",
        "not is_resolved",
        "provider, received_at, webhook_id",
    ),
)


@contextmanager
def only_one(root: Path, task: str) -> Iterator[bool]:
    """Whether this process is the one that may do the task now; the lock goes with the process."""
    folder = root / "_locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / task).open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def compact(root: Path, grace_seconds: float) -> Compaction:
    """Merges the hot files of the lake at `root`, and removes those whose grace is over.

    Raises DestinationUnavailable when the lake cannot be read or written; another run goes on from there.
    """
    lake = Lake(root)
    if not lake.exists():
        raise UserError(f"no lake at {root} (name it with --lake)")
    with only_one(root, "compaction") as chosen:
        if not chosen:
            return Compaction(0, 0, 0, is_elsewhere=True)
        try:
            return _compact(lake, root / "_compacted", grace_seconds)
        except duckdb.Error as error:
            raise unreadable(root, error) from error
        except OSError as error:
            raise unavailable(root, error) from error


def _compact(lake: Lake, manifests: Path, grace_seconds: float) -> Compaction:
    manifests.mkdir(exist_ok=True)
    removed = _remove_merged(lake, manifests, grace_seconds)
    lake.sweep(round((time.time() - ABANDONED_SECONDS) * 1_000_000))
    already = {name for manifest in manifests.glob("*.json") for name in _merged(manifest)}
    hot = {dataset: _hot_files(lake, dataset, already) for dataset in SCHEMAS}
    if all(file.name.endswith(CARRIED) for files in hot.values() for file in files):
        # Nothing was written since: what is still going on stands where it was carried to.
        return Compaction(0, 0, removed)
    sealed = sum(_seal(lake, dataset, hot[dataset.source]) for dataset in _DATASETS)
    merged = [str(file.relative_to(lake.root)) for files in hot.values() for file in files]
    _carry_over(lake, hot["calls"])
    lake.write_text(json.dumps(merged), manifests / f"{time.time_ns():020d}.json")
    return Compaction(len(merged), sealed, removed)


def _merged(manifest: Path) -> list[str]:
    try:
        names: list[str] = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        # A machine that lost its power may leave an empty file: those hot files are merged once more.
        return []
    return names


def _remove_merged(lake: Lake, manifests: Path, grace_seconds: float) -> int:
    removed = 0
    for manifest in sorted(manifests.glob("*.json")):
        if time.time_ns() - int(manifest.stem) < grace_seconds * 1e9:
            continue
        for name in _merged(manifest):
            (lake.root / name).unlink(missing_ok=True)
            removed += 1
        manifest.unlink()
    return removed


def _hot_files(lake: Lake, dataset: str, already: set[str]) -> list[Path]:
    files = sorted(lake.hot(dataset).glob("*.parquet"))
    return [f for f in files if f.name != SCHEMA_FILE and str(f.relative_to(lake.root)) not in already]


def _seal(lake: Lake, dataset: _Dataset, hot: Sequence[Path]) -> int:
    """Seals the rows of the hot files; returns how many sealed files were written."""
    if not hot:
        return 0
    schema = SCHEMAS[dataset.source]
    with duckdb.connect(config={"threads": 2}) as connection:
        sealed = f"read_parquet({quoted(lake.sealed(dataset.name), '**/*.parquet')}, {_OPTIONS})"
        connection.execute(
            f"""
            create temp table touched as
            with hot as (select * from read_parquet({_list(hot)}, {_OPTIONS})),
            both_kinds as (
                select * from hot
                union all by name
                select s.* from {sealed} s semi join hot using ({dataset.key})
            )
            select * from both_kinds
            qualify row_number() over (partition by {dataset.key} order by {dataset.newest}) = 1
            """
        )
        dates = connection.execute(
            f"""
            select distinct date from touched where {dataset.kept}
            union
            select distinct s.date from {sealed} s semi join touched using ({dataset.key})
            order by date
            """
        ).fetchall()
        for (day,) in dates:
            _write_date(lake, dataset, connection, day, schema)
    return len(dates)


def _write_date(
    lake: Lake, dataset: _Dataset, connection: duckdb.DuckDBPyConnection, day: date, schema: pa.Schema
) -> None:
    target = lake.sealed(dataset.name) / f"date={day.isoformat()}" / f"{dataset.name}.parquet"
    before = ""
    if target.exists():
        before = (
            f"union all by name select s.* from read_parquet({quoted(target)}, {_OPTIONS}) s "
            f"anti join touched using ({dataset.key})"
        )
    table = connection.sql(
        f"select * from (select * from touched where date = date '{day}' and {dataset.kept} {before}) "
        f"order by {dataset.order}"
    ).to_arrow_table()
    lake.write(table.select(schema.names).cast(schema), target)


def _carry_over(lake: Lake, hot: Sequence[Path]) -> None:
    if not hot:
        return
    with duckdb.connect(config={"threads": 2}) as connection:
        table = connection.sql(
            f"""
            select * from (
                select * from read_parquet({_list(hot)}, {_OPTIONS})
                qualify row_number() over (partition by call_key order by revision desc, published_at desc) = 1
            )
            where state <> 'ended' and not is_retracted
            """
        ).to_arrow_table()
    if len(table):
        schema = SCHEMAS["calls"]
        name = f"{time.time_ns() // 1_000:017d}{CARRIED}"
        lake.write(table.select(schema.names).cast(schema), lake.hot("calls") / name)


_OPTIONS: Final = "union_by_name = true, hive_partitioning = false"


def _list(files: Sequence[Path]) -> str:
    return "[" + ", ".join(quoted(file) for file in files) + "]"

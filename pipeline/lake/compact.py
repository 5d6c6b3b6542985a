"""Compaction: the small files of many flushes become one sorted, deduplicated file per date.

At every moment a reader sees every row once. New sealed files are written beside the old ones and count from the
moment that a new manifest names them (`lake/sealed.py`); a call that has a hot row is read from there alone, so it
does not matter which of the two is seen first. Merged hot files and replaced sealed ones stay until a grace period
is over, for readers that have them open; which those are is noted under `_compacted`, so that a crash leaves work
undone but nothing wrong. A call that is still going on is never sealed: its newest row moves to a new hot file.
"""

import fcntl
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.lake.files import SCHEMA_FILE, Lake, quoted, unavailable, unreadable
from pipeline.lake.removal import note, noted, remove_noted
from pipeline.lake.schemas import SCHEMAS
from pipeline.lake.sealed import (
    OPTIONS,
    current_files,
    next_generation,
    publish,
    sealed_path,
    superseded,
)

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
            return _compact(lake, grace_seconds)
        except duckdb.Error as error:
            raise unreadable(root, error) from error
        except OSError as error:
            raise unavailable(root, error) from error


def _compact(lake: Lake, grace_seconds: float) -> Compaction:
    removed = remove_noted(lake, grace_seconds)
    lake.sweep(ABANDONED_SECONDS)
    already = noted(lake)
    hot = {dataset: _hot_files(lake, dataset, already) for dataset in SCHEMAS}
    if all(file.name.endswith(CARRIED) for files in hot.values() for file in files):
        # Nothing was written since: what is still going on stands where it was carried to.
        return Compaction(0, 0, removed)
    sealed = sum(_seal(lake, dataset, hot[dataset.source]) for dataset in _DATASETS)
    _carry_over(lake, hot["calls"])
    merged = [file for files in hot.values() for file in files]
    replaced = [file for dataset in _DATASETS for file in superseded(lake, dataset.name)]
    names = [str(file.relative_to(lake.root)) for file in (*merged, *replaced)]
    note(lake, [name for name in names if name not in already])
    return Compaction(len(merged), sealed, removed)


def _hot_files(lake: Lake, dataset: str, already: set[str]) -> list[Path]:
    files = sorted(lake.hot(dataset).glob("*.parquet"))
    return [f for f in files if f.name != SCHEMA_FILE and str(f.relative_to(lake.root)) not in already]


def _seal(lake: Lake, dataset: _Dataset, hot: Sequence[Path]) -> int:
    """Seals the rows of the hot files; returns how many sealed files were written."""
    if not hot:
        return 0
    files = dict(current_files(lake, dataset.name))
    with duckdb.connect(config={"threads": 2}) as connection:
        sealed = _rows_of(lake, dataset, files.values())
        connection.execute(
            f"""
            create temp table touched as
            with hot as (select * from read_parquet({_list(hot)}, {OPTIONS})),
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
        generation = next_generation(lake, dataset.name)
        for (day,) in dates:
            table = _rows_of_date(lake, dataset, connection, day, files.pop(day, None))
            if len(table):
                files[day] = sealed_path(lake, dataset.name, day, generation)
                generations = pa.array([generation] * len(table), pa.int64())
                lake.write(table.append_column("generation", generations), files[day])
                generation += 1
    publish(lake, dataset.name, files)
    return len(dates)


def _rows_of(lake: Lake, dataset: _Dataset, files: Iterable[Path]) -> str:
    every = [lake.sealed(dataset.name) / SCHEMA_FILE, *files]
    return f"(select * exclude (generation) from read_parquet({_list(every)}, {OPTIONS}))"


def _rows_of_date(
    lake: Lake, dataset: _Dataset, connection: duckdb.DuckDBPyConnection, day: date, before: Path | None
) -> pa.Table:
    schema = SCHEMAS[dataset.source]
    unchanged = _rows_of(lake, dataset, [] if before is None else [before])
    table = connection.sql(
        f"""
        select * from touched where date = date '{day}' and {dataset.kept}
        union all by name
        select s.* from {unchanged} s anti join touched using ({dataset.key})
        order by {dataset.order}
        """
    ).to_arrow_table()
    return table.select(schema.names).cast(schema)


def _carry_over(lake: Lake, hot: Sequence[Path]) -> None:
    if not hot:
        return
    with duckdb.connect(config={"threads": 2}) as connection:
        table = connection.sql(
            f"""
            select * from (
                select * from read_parquet({_list(hot)}, {OPTIONS})
                qualify row_number() over (partition by call_key order by revision desc, published_at desc) = 1
            )
            where state <> 'ended' and not is_retracted
            """
        ).to_arrow_table()
    if len(table):
        schema = SCHEMAS["calls"]
        name = f"{time.time_ns() // 1_000:017d}{CARRIED}"
        lake.write(table.select(schema.names).cast(schema), lake.hot("calls") / name)


def _list(files: Sequence[Path]) -> str:
    return "[" + ", ".join(quoted(file) for file in files) + "]"

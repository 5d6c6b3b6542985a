"""Compaction: the small files of many flushes become one sorted, deduplicated file per date.

At every moment a reader sees every row once. New sealed files are written beside the old ones and count from the
moment that a new manifest names them (`lake/sealed.py`); a call that has a hot row is read from there alone, so it
does not matter which of the two is seen first. Merged hot files and replaced sealed ones stay until a grace period
is over, for readers that have them open; which those are is noted under `_compacted`, so that a crash leaves work
undone but nothing wrong. A call that is still going on is never sealed: its newest row moves to a new hot file.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.lake.files import SCHEMA_FILE, Lake, unavailable, unreadable
from pipeline.lake.merge import DATASETS, Dataset, batches_of, engine, rows_of, seal
from pipeline.lake.removal import note, noted, remove_noted
from pipeline.lake.schemas import CARRIED_CALLS, SCHEMAS, UNSEALED_IN
from pipeline.lake.sealed import in_force, seconds_since_published, superseded
from pipeline.lake.version import refuse_newer
from pipeline.storage.store import store_of

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


@contextmanager
def only_one(root: Path, task: str) -> Iterator[Callable[[], None] | None]:
    """None where another process does the task now; else a check that this one still may.

    It is to be called before what must not be done twice, and raises OSError if the task was lost, as on object
    storage it can be.
    """
    try:
        with store_of(root).only_one(task) as check:
            yield check
    except OSError as error:
        raise unavailable(root, error) from error


def compact(root: Path, grace_seconds: float) -> Compaction:
    """Merges the hot files of the lake at `root`, and removes those whose grace is over.

    Raises DestinationUnavailable when the lake cannot be read or written; another run goes on from there.
    """
    lake = Lake(root)
    if not lake.exists():
        raise UserError(f"no lake at {root} (name it with --lake)")
    with only_one(root, "compaction") as check:
        if check is None:
            return Compaction(0, 0, 0, is_elsewhere=True)
        try:
            refuse_newer(lake)
            lake.lay_out()
            return _compact(lake, grace_seconds, check)
        except (duckdb.Error, pa.ArrowException) as error:
            raise unreadable(root, error) from error
        except OSError as error:
            raise unavailable(root, error) from error


def _compact(lake: Lake, grace_seconds: float, check: Callable[[], None]) -> Compaction:
    removed = remove_noted(lake, grace_seconds)
    lake.sweep(ABANDONED_SECONDS)
    already = noted(lake)
    hot = {dataset: _hot_files(lake, dataset, already) for dataset in SCHEMAS}
    is_carried = all(file.name.endswith(CARRIED) for files in hot.values() for file in files)
    if is_carried and not _is_outdated(lake, hot["calls"]):
        # Nothing was written since: what is still going on stands where it was carried to.
        return Compaction(0, 0, removed)
    sealed = sum(seal(lake, dataset, _unsealed(dataset, hot[dataset.source])) for dataset in DATASETS)
    _carry_over(lake, hot["calls"])
    merged = [file for files in hot.values() for file in files]
    replaced = [file for dataset in DATASETS for file in superseded(lake, dataset.name)]
    names = [str(file.relative_to(lake.root)) for file in (*merged, *replaced)]
    # Nobody else has begun since the files were listed: what is no longer named is not about to be.
    check()
    note(lake, [name for name in names if name not in already])
    return Compaction(len(merged), sealed, removed)


def waiting(lake: Lake) -> int:
    """How many hot files no compaction has merged yet."""
    already = noted(lake)
    files = (file for dataset in SCHEMAS for file in _hot_files(lake, dataset, already))
    return sum(not file.name.endswith(CARRIED) for file in files)


def compacted_lately(lake: Lake, seconds: float) -> bool:
    """Whether somebody's compaction has merged something in these last seconds."""
    return 0.0 <= seconds_since_published(lake, [dataset.name for dataset in DATASETS]) < seconds


def _hot_files(lake: Lake, dataset: str, already: set[str]) -> list[Path]:
    files = sorted(lake.hot(dataset).glob("*.parquet"))
    return [f for f in files if f.name != SCHEMA_FILE and str(f.relative_to(lake.root)) not in already]


def _unsealed(dataset: Dataset, hot: Sequence[Path]) -> Sequence[Path]:
    # What was carried over had its revision sealed when it was.
    return [file for file in hot if dataset.name != "call_revisions" or not file.name.endswith(CARRIED)]


def _is_outdated(lake: Lake, carried: Sequence[Path]) -> bool:
    """Whether calls were carried over under another manifest than that in force, as before an erasure.

    Until they are carried over again, every view looks for them in all sealed files.
    """
    known = {str(in_force(lake, "calls")), None}
    return any(
        # An erasure writes them as other calls are written.
        UNSEALED_IN not in lake.footer(file).schema.names
        or not known.issuperset(lake.read(file, [UNSEALED_IN])[UNSEALED_IN].unique().to_pylist())
        for file in carried
    )


def _carry_over(lake: Lake, hot: Sequence[Path]) -> None:
    """Puts the calls that are going on into a hot file of their own, which says of which no sealed row is to be found.

    Hardly ever is there one: of a call whose hot row had lost against it, or whose sealed row was not read.
    """
    if not hot:
        return
    manifest = in_force(lake, "calls")
    sealed = [lake.sealed("calls") / SCHEMA_FILE, *manifest.files.values()]
    name = f"{time.time_ns() // 1_000:017d}-{uuid.uuid4().hex[:8]}{CARRIED}"
    with engine(lake) as connection:
        connection.execute(
            f"""
            create table going_on as
            select * from (
                select * from {rows_of(hot, SCHEMAS["calls"])}
                qualify row_number() over (partition by call_key order by revision desc, published_at desc) = 1
            )
            where state is distinct from 'ended' and is_retracted is not true
            """
        )
        connection.execute(
            f"""
            create table sealed_as_well as
            select distinct key_hash
            from {rows_of(sealed, SCHEMAS["calls"])} semi join going_on using (key_hash)
            """
        )
        rows = batches_of(
            connection,
            f"""
            select going_on.*, case when other.key_hash is null then '{manifest}' end as {UNSEALED_IN}
            from going_on left join sealed_as_well as other using (key_hash)
            """,
            CARRIED_CALLS,
        )
        lake.write_batches(CARRIED_CALLS, rows, lake.hot("calls") / name)

"""Which of the sealed files count: one manifest a dataset, in numbered versions.

No name that was ever seen may get other bytes. DuckDB opens a file for its footer when it plans a query, and by its
name again when it reads the rows: if a new file had been renamed over it in between, the old footer would be read
against the new bytes. So each sealed file carries a generation of its own, in its name and in its rows, and a reader
takes the rows whose generation the newest manifest names. Replaced files stay until the readers that may still want
them are done.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.lake.files import SCHEMA_FILE, Lake, quoted
from pipeline.lake.schemas import MANIFEST

OPTIONS: Final = "union_by_name = true, hive_partitioning = false"

Files = Mapping[date, Path]
"""The sealed file of each date."""


def current_files(lake: Lake, dataset: str) -> Files:
    """The sealed files that count. A file of an older version is another one's leftover."""
    newest = _newest_manifest(lake, dataset)
    if newest is None:
        return {}
    rows = pq.read_table(newest).to_pylist()
    return {row["date"]: sealed_path(lake, dataset, row["date"], row["generation"]) for row in rows}


def publish(lake: Lake, dataset: str, files: Files) -> None:
    """From now on these files count, all at once."""
    newest = _newest_manifest(lake, dataset)
    version = 1 if newest is None else int(newest.stem) + 1
    rows = [
        {"version": version, "date": day, "generation": int(file.stem)} for day, file in sorted(files.items())
    ]
    lake.write(
        pa.Table.from_pylist(rows, schema=MANIFEST), lake.manifest(dataset) / f"{version:012d}.parquet"
    )


def next_generation(lake: Lake, dataset: str) -> int:
    """A number that no sealed file of the dataset has or had."""
    used = [int(f.stem) for f in lake.sealed(dataset).glob("date=*/*.parquet") if f.stem.isdigit()]
    return max([time.time_ns() // 1_000, *(number + 1 for number in used)])


def sealed_path(lake: Lake, dataset: str, day: date, generation: int) -> Path:
    """Where the sealed file of a date stands."""
    return lake.sealed(dataset) / f"date={day.isoformat()}" / f"{generation:017d}.parquet"


def superseded(lake: Lake, dataset: str) -> Iterator[Path]:
    """Sealed files and manifests that no longer count, or never came to count because of a crash."""
    counting = set(current_files(lake, dataset).values())
    yield from (file for file in lake.sealed(dataset).glob("date=*/*.parquet") if file not in counting)
    newest = _newest_manifest(lake, dataset)
    yield from (file for file in _manifests(lake, dataset) if file != newest)


def sealed_rows(lake: Lake, dataset: str) -> str:
    """The rows that count, as a subquery. The manifest is listed first: what it names is there by then."""
    manifest = quoted(lake.manifest(dataset), "*.parquet")
    sealed = quoted(lake.sealed(dataset), "**/*.parquet")
    return (
        "(select s.* exclude (generation) from "
        f"(select generation from read_parquet({manifest}, {OPTIONS}) qualify version = max(version) over ()) "
        f"join read_parquet({sealed}, {OPTIONS}) s using (generation))"
    )


def _manifests(lake: Lake, dataset: str) -> list[Path]:
    return [file for file in sorted(lake.manifest(dataset).glob("*.parquet")) if file.name != SCHEMA_FILE]


def _newest_manifest(lake: Lake, dataset: str) -> Path | None:
    return next(reversed(_manifests(lake, dataset)), None)


def older_files(lake: Lake, dataset: str) -> list[Path]:
    """Sealed files that were written before there were generations, named after their dataset."""
    return sorted(f for f in lake.sealed(dataset).glob("date=*/*.parquet") if not f.stem.isdigit())


def adopt_older(lake: Lake, dataset: str, schema: pa.Schema) -> None:
    """Gives such files generations, and lets them count.

    Nobody may compact meanwhile. A crash leaves the old files where they are, and the next run begins again.
    """
    older = older_files(lake, dataset)
    files = dict(current_files(lake, dataset))
    generation = time.time_ns() // 1_000
    for number, file in enumerate(older, generation):
        day = date.fromisoformat(file.parent.name.removeprefix("date="))
        if day in files:
            continue  # taken over by a run that was stopped before it could remove this one
        # `partitioning`: the date is a column of the file, and not to be made up from its folder.
        table = pq.read_table(file, partitioning=None).select(schema.names).cast(schema)
        files[day] = sealed_path(lake, dataset, day, number)
        generations = pa.array([number] * len(table), pa.int64())
        lake.write(table.append_column("generation", generations), files[day])
    publish(lake, dataset, files)
    for file in older:
        file.unlink()

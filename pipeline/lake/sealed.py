"""Which of the sealed files count: one manifest a dataset, in numbered versions.

No name that was ever seen may get other bytes. DuckDB opens a file for its footer when it plans a query, and by its
name again when it reads the rows: if a new file had been renamed over it in between, the old footer would be read
against the new bytes. So each sealed file carries a generation of its own, in its name and in its rows, and a reader
takes the rows whose generation the newest manifest names. Replaced files stay until the readers that may still want
them are done.

A date is one part, or one part for each provider once it is large; each part has one file that counts. Whoever
changes sealed files holds the lock of compactions, and should it fail him (a file system without locks), the number
of the manifest does not: of two that began from one manifest, the second to publish is refused.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from pipeline.errors import DestinationUnavailable
from pipeline.lake.files import SCHEMA_FILE, Lake, quoted
from pipeline.lake.schemas import CALLS, MANIFEST, SCHEMAS, declared, sealed_schema

NOTHING: Final = 0
"""The generation that no file has: a manifest that names no file says so in a row, or it would seem to be none."""


class Part(NamedTuple):
    """What one sealed file holds: the rows of a UTC date, or those of one provider where the date is divided."""

    day: date
    provider: str | None = None


Files = Mapping[Part, Path]
"""The sealed file of each part."""


class InForce(NamedTuple):
    """The manifest in force: its version, the sealed files that it names, and the newest generation among them."""

    version: int
    files: Files
    newest: int

    def __str__(self) -> str:
        """Names it, and no other, even if somebody removes all manifests and their numbers begin anew."""
        return f"{self.version}-{self.newest}"


def in_force(lake: Lake, dataset: str) -> InForce:
    """The newest manifest, read at once; version 0 without files before the first."""
    newest = _newest_manifest(lake, dataset)
    if newest is None:
        return InForce(0, {}, NOTHING)
    generations = {
        Part(row["date"], row.get("provider")): row["generation"]
        for row in lake.read(newest).to_pylist()
        if row["generation"] != NOTHING
    }
    files = {part: sealed_path(lake, dataset, part, number) for part, number in generations.items()}
    return InForce(int(newest.stem), files, max(generations.values(), default=NOTHING))


def current_files(lake: Lake, dataset: str) -> Files:
    """The sealed files that count. A file of an older version is another one's leftover."""
    return in_force(lake, dataset).files


def manifest_version(lake: Lake, dataset: str) -> int:
    """The number of the manifest in force, 0 before the first: what a change of the sealed files began from."""
    newest = _newest_manifest(lake, dataset)
    return 0 if newest is None else int(newest.stem)


def publish(lake: Lake, dataset: str, files: Files, after: int | None = None) -> None:
    """From now on these files count, all at once.

    `after` is the manifest that they were made from (none: the one in force). DestinationUnavailable if another one
    has come into force meanwhile: these files know nothing of what it changed, and do not count.
    """
    version = (manifest_version(lake, dataset) if after is None else after) + 1
    rows = [
        {"version": version, "date": part.day, "generation": int(file.stem), "provider": part.provider}
        for part, file in sorted(files.items(), key=lambda item: item[1].name)
    ]
    table = pa.Table.from_pylist(rows or [{"version": version, "generation": NOTHING}], schema=MANIFEST)
    target = lake.manifest(dataset) / f"{version:012d}.parquet"
    try:
        lake.write(table, target, is_new=True)
    except FileExistsError as error:
        told = (
            f"somebody else changed {dataset} of the lake at {lake.root} meanwhile; nothing was changed here"
        )
        raise DestinationUnavailable(told) from error


def next_generation(lake: Lake, dataset: str) -> int:
    """A number that no sealed file of the dataset has or had."""
    used = [int(f.stem) for f in lake.sealed(dataset).glob("date=*/*.parquet") if f.stem.isdigit()]
    return max([time.time_ns() // 1_000, *(number + 1 for number in used)])


def sealed_path(lake: Lake, dataset: str, part: Part, generation: int) -> Path:
    """Where the sealed file of a part stands."""
    return lake.sealed(dataset) / f"date={part.day.isoformat()}" / f"{generation:017d}.parquet"


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
        f"(select generation from read_parquet({manifest}, {declared(MANIFEST)}) "
        "qualify version = max(version) over ()) "
        f"join read_parquet({sealed}, {declared(sealed_schema(SCHEMAS.get(dataset, CALLS)))}) s using (generation))"
    )


def seconds_since_published(lake: Lake, datasets: Iterable[str]) -> float:
    """How long ago one of these datasets had a new manifest, by the storage's clock; infinite if none ever had."""
    newest = [_newest_manifest(lake, dataset) for dataset in datasets]
    return min((lake.age_seconds(file) for file in newest if file is not None), default=math.inf)


def _manifests(lake: Lake, dataset: str) -> list[Path]:
    return [file for file in lake.listed(lake.manifest(dataset)) if file.name != SCHEMA_FILE]


def _newest_manifest(lake: Lake, dataset: str) -> Path | None:
    return next(reversed(_manifests(lake, dataset)), None)


def older_files(lake: Lake, dataset: str) -> list[Path]:
    """Sealed files that were written before there were generations, named after their dataset."""
    return [f for f in lake.listed(lake.sealed(dataset), "date=*/*.parquet") if not f.stem.isdigit()]


def adopt_older(lake: Lake, dataset: str, schema: pa.Schema) -> None:
    """Gives such files generations, and lets them count.

    Nobody may compact meanwhile. A crash leaves the old files where they are, and the next run begins again.
    """
    older = older_files(lake, dataset)
    files = dict(current_files(lake, dataset))
    generation = time.time_ns() // 1_000
    for number, file in enumerate(older, generation):
        day = date.fromisoformat(file.parent.name.removeprefix("date="))
        if Part(day) in files:
            continue  # taken over by a run that was stopped before it could remove this one
        table = lake.read(file).select(schema.names).cast(schema)
        files[Part(day)] = sealed_path(lake, dataset, Part(day), number)
        generations = pa.array([number] * len(table), pa.int64())
        lake.write(table.append_column("generation", generations), files[Part(day)])
    publish(lake, dataset, files)
    for file in older:
        file.unlink()

"""Taking rows out of the lake's files for good, those that are sealed included.

No name ever gets other bytes: a file that holds what is to go is written again without it, under a new name, and the
old one is removed once its readers are done. Sealed files change hands all at once, by a new manifest. A crash leaves
files that hold too much or that nobody names, never too little; running it again completes it. Whoever does this holds
the lock of compactions.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.lake.compact import CARRIED
from pipeline.lake.files import SCHEMA_FILE, SEALED_ONLY, Lake
from pipeline.lake.removal import note, noted
from pipeline.lake.schemas import SCHEMAS, sealed_schema
from pipeline.lake.sealed import in_force, next_generation, publish, sealed_path
from pipeline.storage.store import parquet_source

BATCH_ROWS: Final = 1_024
"""Rows in memory at a time; a webhook may have 1 MiB."""

Change = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, int]]
"""What is left of some rows, and how many of them were taken out or emptied."""


class Erased(NamedTuple):
    """What was found, and perhaps done, in one dataset."""

    dataset: str
    files: int
    """Files read."""
    held: int
    """Those of them that held something."""
    rows: int
    """Rows that were taken out or emptied; a row that stands in several files counts in each."""


def datasets() -> tuple[str, ...]:
    """Every dataset of the lake."""
    return (*SCHEMAS, *SEALED_ONLY)


def schema_of(dataset: str) -> pa.Schema:
    """The declared columns of a dataset."""
    return SCHEMAS.get(dataset, SCHEMAS["calls"])


def files_of(lake: Lake, dataset: str) -> list[Path]:
    """Every file of the dataset that holds rows, also those that no longer count."""
    hot = sorted(lake.hot(dataset).glob("*.parquet")) if dataset not in SEALED_ONLY else []
    sealed = sorted(lake.sealed(dataset).glob("date=*/*.parquet"))
    return [file for file in (*hot, *sealed) if file.name != SCHEMA_FILE]


def batches(lake: Lake, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of one file in the columns of the schema; a column that an older file lacks is NULL."""
    with parquet_source(path) as source:
        for batch in pq.ParquetFile(source).iter_batches(BATCH_ROWS):
            yield _in_columns(batch, schema)


def _in_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def look_through(lake: Lake, dataset: str, change: Change) -> tuple[Erased, list[Path]]:
    """What `change` would take out of the dataset, and the files that it would take it out of."""
    files = files_of(lake, dataset)
    held: list[Path] = []
    rows = 0
    for file in files:
        count = sum(change(batch)[1] for batch in batches(lake, file, schema_of(dataset)))
        rows += count
        if count:
            held.append(file)
    return Erased(dataset, len(files), len(held), rows), held


def erase(lake: Lake, dataset: str, held: list[Path], change: Change, check: Callable[[], None]) -> list[str]:
    """Writes these files anew without what `change` takes out; the names, below the lake, of those to be removed.

    `check` raises if the lock was lost. The names are noted already: should this be all that happens, the next
    compaction removes them.
    """
    already = noted(lake)
    names = {file: str(file.relative_to(lake.root)) for file in held}
    _erase_sealed(lake, dataset, set(held), change, check)
    for file in held:
        # What is noted has been merged; what is left of it stands elsewhere.
        if file.parent == lake.hot(dataset) and names[file] not in already:
            rest = (change(batch)[0] for batch in batches(lake, file, schema_of(dataset)))
            ending = CARRIED if file.name.endswith(CARRIED) else ".parquet"
            name = f"{time.time_ns() // 1_000:017d}-{uuid.uuid4().hex[:8]}{ending}"
            lake.write_batches(schema_of(dataset), rest, lake.hot(dataset) / name)
    check()
    new = [name for name in names.values() if name not in already]
    if new:
        note(lake, new)
    return list(names.values())


def _erase_sealed(
    lake: Lake, dataset: str, held: set[Path], change: Change, check: Callable[[], None]
) -> None:
    manifest = in_force(lake, dataset)
    files = dict(manifest.files)
    schema, generation = sealed_schema(schema_of(dataset)), next_generation(lake, dataset)
    parts = [part for part, file in files.items() if file in held]
    for number, part in enumerate(parts, start=generation):
        old, new = files.pop(part), sealed_path(lake, dataset, part, number)
        rest = (
            _numbered(change(batch)[0], schema, number) for batch in batches(lake, old, schema_of(dataset))
        )
        if lake.write_batches(schema, rest, new):
            files[part] = new
    if parts:
        check()
        publish(lake, dataset, files, after=manifest.version)


def _numbered(batch: pa.RecordBatch, schema: pa.Schema, generation: int) -> pa.RecordBatch:
    generations = pa.array([generation] * len(batch), pa.int64())
    return pa.RecordBatch.from_arrays([*batch.columns, generations], schema=schema)


def without(batch: pa.RecordBatch, mask: pa.Array) -> tuple[pa.RecordBatch, int]:
    """The rows that the mask does not name, and how many it names."""
    count = pc.sum(mask).as_py() or 0
    return (batch.filter(pc.invert(mask)) if count else batch), count

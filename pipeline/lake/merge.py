"""How the rows of hot files and sealed ones become new sealed files, with memory that the lake's size does not raise.

DuckDB joins, deduplicates and sorts within a limit and puts what does not fit on the disk; its rows come back batch by
batch and are written as they come. Files are read with the declared columns and types, by name: one that lacks a
column (an older version wrote it) has NULL there, and one whose column has another type is refused, never mixed in.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from pipeline.errors import DestinationUnavailable
from pipeline.lake.files import SCHEMA_FILE, Lake, quoted
from pipeline.lake.schemas import SCHEMAS, declared, sealed_schema, type_problem
from pipeline.lake.sealed import Part, in_force, next_generation, publish, sealed_path
from pipeline.storage.engine import lake_connection

MEMORY_LIMIT: Final = "768MiB"
"""DuckDB's own. A process that merges ten million events at once has 1,250 MiB at most."""

DIVIDED_ROWS: Final = 4_000_000
"""A date with more rows has one file for each provider: what changes in one leaves the others alone.

Not sooner, as each file costs every query a footer: one call's events among 96 million are found in 85 ms where the
million of a date stand in one file, in 178 ms where they stand in five. Four million events take about 120 MiB.
"""

BATCH_ROWS: Final = 8_192
"""Rows handed from DuckDB to Arrow at a time: of webhooks with 5 KB each, 40 MB."""


class Dataset(NamedTuple):
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

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""
        return SCHEMAS[self.source]


DATASETS: Final = (
    Dataset(
        "call_events",
        "call_events",
        "event_id",
        "published_at desc",
        "true",
        "stream_key, event_at, event_id",
    ),
    Dataset(
        "calls",
        "calls",
        "call_key",
        "revision desc, published_at desc",
        "state = 'ended' and is_retracted is not true",
        "provider, started_at, call_key",
    ),
    Dataset(
        "call_revisions",
        "calls",
        "call_key, revision",
        "published_at desc",
        "is_retracted is not true",
        "provider, call_key, revision",
    ),
    Dataset(
        "webhooks", "webhooks", "webhook_id", "published_at desc", "true", "provider, received_at, webhook_id"
    ),
    Dataset(
        "quarantine",
        "quarantine",
        "webhook_id",
        "is_resolved desc nulls last, published_at desc",
        "is_resolved is not true",
        "provider, received_at, webhook_id",
    ),
)


@contextmanager
def engine(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that keeps within its limit; what it puts on the disk goes with it, or is swept after a crash."""
    with (
        tempfile.TemporaryDirectory(dir=lake.scratch(), prefix="merge-") as spilled,
        lake_connection(
            lake.root,
            threads=2,
            memory_limit=MEMORY_LIMIT,
            temp_directory=spilled,
            # What has an order says so; keeping all others' would take memory.
            preserve_insertion_order="false",
        ) as connection,
    ):
        yield connection


def rows_of(files: Sequence[Path], schema: pa.Schema) -> str:
    """The rows of these files as a subquery: the columns of the schema, whatever the files have."""
    return f"read_parquet([{', '.join(map(quoted, files))}], {declared(schema)})"


def check_types(lake: Lake, files: Iterable[Path], schema: pa.Schema) -> None:
    """Refuses a file with a column of another type, by its name; what can be read without loss is let in."""
    for file in files:
        found = lake.footer(file).schema.to_arrow_schema()
        for field in schema:
            if field.name in found.names:
                problem = type_problem(found.field(field.name).type, field.type)
                if problem:
                    told = f"{file}: column {field.name} {problem}; move the file out of the lake"
                    raise DestinationUnavailable(told)


def batches_of(
    connection: duckdb.DuckDBPyConnection, sql: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows of a statement as they come, in the schema's order and types."""
    with connection.sql(sql).to_arrow_reader(BATCH_ROWS) as reader:
        for batch in reader:
            columns = [batch.column(field.name).cast(field.type) for field in schema]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def seal(lake: Lake, dataset: Dataset, hot: Sequence[Path]) -> int:
    """Seals the rows of the hot files; returns how many sealed files were written."""
    if not hot:
        return 0
    check_types(lake, hot, dataset.schema)
    manifest = in_force(lake, dataset.name)
    files = dict(manifest.files)
    generation = first = next_generation(lake, dataset.name)
    with engine(lake) as connection:
        merge = _Merge(lake, dataset, connection, list(hot))
        for part, sources in merge.plan(files):
            path = sealed_path(lake, dataset.name, part, generation)
            if merge.write(part, sources, path, generation):
                files[part] = path
                generation += 1
    publish(lake, dataset.name, files, after=manifest.version)
    return generation - first


class _Merge:
    """The rows of hot files on their way into the sealed files of one dataset.

    What is compared is narrow: the keys, what says which row is newer, and where each row stands. Whole rows, 50
    columns wide, are read once more when they are written, without those that have lost.
    """

    def __init__(
        self, lake: Lake, dataset: Dataset, connection: duckdb.DuckDBPyConnection, hot: list[Path]
    ) -> None:
        self._lake, self._dataset, self._connection, self._hot = lake, dataset, connection, hot
        self._empty = lake.sealed(dataset.name) / SCHEMA_FILE

    def plan(self, files: dict[Part, Path]) -> list[tuple[Part, list[Path]]]:
        """The parts that are written anew, each with the sealed files that its other rows are in.

        The files that they take the place of are taken out of `files`.
        """
        changed = self._holding_a_hot_key(files)
        check_types(self._lake, (files[part] for part in changed), self._dataset.schema)
        self._compare([files[part] for part in changed])
        landing: dict[date, dict[str, int]] = {}
        for day, provider, rows in self._ask(
            f"select date, coalesce(provider, ''), count(*) from {self._rows(self._hot)} "
            f"where {self._dataset.kept} group by all"
        ):
            landing.setdefault(day, {})[provider] = rows
        days = sorted({part.day for part in changed} | landing.keys())
        return [one for day in days for one in self._plan_day(day, files, changed, landing.get(day, {}))]

    def _plan_day(
        self, day: date, files: dict[Part, Path], changed: set[Part], landing: dict[str, int]
    ) -> list[tuple[Part, list[Path]]]:
        before = {part: file for part, file in files.items() if part.day == day}
        if before and Part(day) not in before:
            anew = sorted(
                {part for part in changed if part.day == day} | {Part(day, name) for name in landing}
            )
            return [(part, [files.pop(part)] if part in files else []) for part in anew]
        for part in before:
            del files[part]
        sources = list(before.values())
        rows = sum(landing.values()) + sum(self._lake.footer(file).num_rows for file in sources)
        if rows <= DIVIDED_ROWS:
            return [(Part(day), sources)]
        sealed = self._ask(
            f"select distinct coalesce(provider, '') from {self._rows([self._empty, *sources])}"
        )
        providers = landing.keys() | {provider for (provider,) in sealed}
        return [(Part(day, provider), sources) for provider in sorted(providers)]

    def write(self, part: Part, sources: Sequence[Path], path: Path, generation: int) -> int:
        """Writes the sealed file of a part; how many rows it has. One without rows does not appear."""
        schema = sealed_schema(self._dataset.schema)
        provider = "" if part.provider is None else f"and coalesce(provider, '') = {_text(part.provider)}"
        rows = batches_of(
            self._connection,
            f"""
            select * replace ({generation}::bigint as generation)
            from {rows_of([self._empty, *self._hot, *sources], schema)} r
            anti join lost on r.filename = lost.filename and r.file_row_number = lost.file_row_number
            where {self._dataset.kept} and date = date '{part.day}' {provider}
            order by {self._dataset.order}
            """,
            schema,
        )
        return self._lake.write_batches(schema, rows, path)

    def _holding_a_hot_key(self, files: Mapping[Part, Path]) -> set[Part]:
        """The sealed files are asked for their keys alone: hardly any of them has one that is hot."""
        key = self._dataset.key
        self._ask(f"create table hot_keys as select distinct {key} from {self._rows(self._hot)}")
        sealed = rows_of([self._empty, *files.values()], sealed_schema(self._dataset.schema))
        found = self._ask(f"select distinct generation from {sealed} semi join hot_keys using ({key})")
        generations = {generation for (generation,) in found}
        return {part for part, file in files.items() if int(file.stem) in generations}

    def _compare(self, sealed: Sequence[Path]) -> None:
        """Makes the table `lost`: where those rows stand that are not the newest of their key."""
        key, newest = self._dataset.key, self._dataset.newest
        self._ask(
            f"""
            create table compared as
            select filename, file_row_number, {key}, {_columns_of(newest)} from {self._rows(self._hot)}
            union all
            select filename, file_row_number, {key}, {_columns_of(newest)}
            from {self._rows([self._empty, *sealed])} semi join hot_keys using ({key})
            """
        )
        self._ask(
            f"""
            create table lost as
            select filename, file_row_number
            from compared semi join (select {key} from compared group by all having count(*) > 1) using ({key})
            qualify row_number() over (
                partition by {key} order by {newest}, filename desc, file_row_number desc
            ) > 1
            """
        )

    def _rows(self, files: Sequence[Path]) -> str:
        return rows_of(files, self._dataset.schema)

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()


def _columns_of(order: str) -> str:
    return ", ".join(term.split()[0] for term in order.split(", "))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

"""Files of several versions are one lake: what an older one wrote, what a later one added, what nobody knows yet."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import doctor
from pipeline.errors import DestinationUnavailable, UserError
from pipeline.lake import LakeHistory, version
from pipeline.lake.compact import compact
from pipeline.lake.files import SCHEMA_FILE, SEALED_ONLY, Lake
from pipeline.lake.rows import key_hash
from pipeline.lake.schemas import (
    CALLS,
    CARRIED_CALLS,
    MANIFEST,
    SCHEMA_VERSION,
    SCHEMAS,
    duckdb_type,
    sealed_schema,
)
from pipeline.lake.sealed import current_files
from pipeline.open_lake import open_lake
from pipeline.query.views import _rooted, connect, models, sql_folder
from pipeline.storage.engine import lake_connection

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lake"
ALL_DAYS = (date(2000, 1, 1), date(2099, 1, 1))
READERS = [name for name, sql in models().items() if "read_parquet" in sql]
ADDED = "sentiment"
"""The column that the next version has, and this one does not."""


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A lake as version 1 left it: hot and sealed files of every dataset, an open call, resolved quarantine."""
    return shutil.copytree(FIXTURES / "v1", tmp_path / "lake")


@contextmanager
def the_next_version() -> Iterator[None]:
    """Callfold as it will be: one column more in each dataset."""
    number = str(SCHEMA_VERSION + 1)
    with pytest.MonkeyPatch.context() as patch:
        for name, schema in SCHEMAS.items():
            told = {**schema.metadata, b"callfold.schema_version": number.encode()}
            patch.setitem(SCHEMAS, name, schema.append(pa.field(ADDED, pa.string())).with_metadata(told))
        patch.setattr(version, "SCHEMA_VERSION", int(number))
        yield


def add_call(root: Path, name: str, **values: Any) -> None:
    """A hot file of one more call, written by whichever version is in force."""
    schema = SCHEMAS["calls"]
    template = pq.read_table(next((FIXTURES / "v1" / "calls" / "hot").glob("0[0-9]*-*.parquet")))
    ended = template.filter(pc.equal(template["state"], "ended")).slice(0, 1).to_pylist()[0]
    values = {
        "call_key": f"recho:{name}",
        "call_id": name,
        "key_hash": key_hash(name),
        "provider": "recho",
    } | values
    row = dict.fromkeys(schema.names) | ended | {"stream_key": f"recho:{name}"} | values
    table = pa.Table.from_pylist([{key: row[key] for key in schema.names}], schema=schema)
    pq.write_table(table, root / "calls" / "hot" / f"9-{name}.parquet")


def values_of(root: Path, column: str) -> dict[str, Any]:
    """A column of the calls in the sealed files that count, by call."""
    tables = [pq.read_table(file, partitioning=None) for file in current_files(Lake(root), "calls").values()]
    rows = [row for table in tables for row in table.to_pylist()]
    # A part that nothing touched is as an older version wrote it.
    return {row["call_key"]: row.get(column) for row in rows}


def test_what_version_1_wrote_is_read_opened_and_compacted_as_it_was(
    older: Path, views: Any, seen: Any
) -> None:
    expected = json.loads((FIXTURES / "v1.expected.json").read_text(encoding="utf-8"))
    assert all(expected.values())
    assert {view: sorted(map(repr, rows)) for view, rows in views(older).items()} == expected
    before = seen(older)
    open_lake(older)
    for _ in range(3):
        assert seen(older) == before
        compact(older, 0)
    assert {file.parent.name for file in older.glob("*/hot/0*-*.parquet")} == {"hot"}
    assert seen(older) == before
    history = LakeHistory(Lake(older))
    found = history.remember(history.streams_between(*ALL_DAYS))
    keys = {record.call_key for past in found.values() for record in past.records}
    assert len(keys) == len(expected["calls"]) + len(expected["open_calls"])


def test_a_compaction_without_anything_before_it_takes_version_1_over(older: Path, seen: Any) -> None:
    before = seen(older)
    assert compact(older, 0).merged > 0
    assert version.lake_version(Lake(older)) == SCHEMA_VERSION
    assert seen(older) == before


def test_files_of_three_versions_are_read_together_in_every_order(
    older: Path, seen: Any, calls_of: Any
) -> None:
    open_lake(older)
    add_call(older, "of-today")
    with the_next_version():
        open_lake(older)
        add_call(older, "of-tomorrow", **{ADDED: "happy"})
        before = calls_of(older)
        assert {"recho:of-today", "recho:of-tomorrow"} < before.keys()
        compact(older, 0)
        compact(older, 0)
        assert calls_of(older) == before
    # A worker of today is still running, and writes beside it.
    add_call(older, "of-today-again")
    with the_next_version():
        compact(older, 0)
        compact(older, 0)
        assert calls_of(older).keys() == before.keys() | {"recho:of-today-again"}
        told = values_of(older, ADDED)
        assert told.pop("recho:of-tomorrow") == "happy"
        assert set(told.values()) == {None}
        assert {"recho:of-today", "recho:of-today-again"} < told.keys()


def test_an_older_version_neither_opens_nor_compacts_what_a_newer_one_wrote(older: Path, seen: Any) -> None:
    with the_next_version():
        open_lake(older)
        add_call(older, "of-tomorrow", **{ADDED: "happy"})
    files = {path: path.stat().st_mtime_ns for path in older.rglob("*.parquet")}
    before = seen(older)
    for act in (lambda: open_lake(older), lambda: compact(older, 0)):
        with pytest.raises(
            UserError, match=f"has schema version {SCHEMA_VERSION + 1}, .* install the"
        ) as told:
            act()
        assert "\n" not in str(told.value)
    assert {path: path.stat().st_mtime_ns for path in older.rglob("*.parquet")} == files
    assert seen(older) == before
    told_by_doctor = [found.told for found in doctor._lake(older) if found.what == "lake" and found.is_broken]
    assert ["has schema version" in told for told in told_by_doctor] == [True]


def test_words_that_this_version_does_not_know_are_kept_counted_and_compacted(
    older: Path, calls_of: Any, worker_at: Any
) -> None:
    open_lake(older)
    add_call(older, "ended", outcome="handed_to_a_robot", failure_class="philosophical")
    add_call(older, "going-on", state="on_hold", outcome=None)
    add_call(older, "without-a-state", state=None, outcome=None)
    before = calls_of(older)
    assert before["recho:ended"]["outcome"] == "handed_to_a_robot"
    assert before["recho:going-on"]["state"] == "on_hold"
    with connect(older) as connection:
        (counted,) = connection.sql(
            "select calls from kpi_failure where failure_class = 'philosophical'"
        ).fetchall() or [(None,)]
    assert counted in {(1,), (None,)}
    for _ in range(3):
        compact(older, 0)
        assert calls_of(older) == before
    assert values_of(older, "outcome")["recho:ended"] == "handed_to_a_robot"
    (carried,) = (older / "calls" / "hot").glob("*-carried.parquet")
    assert {"recho:going-on", "recho:without-a-state"} <= set(pq.read_table(carried)["call_key"].to_pylist())
    assert "recho:going-on" in LakeHistory(Lake(older)).open_streams()
    worker_at(older).flush(0)
    assert calls_of(older)["recho:going-on"]["state"] == "on_hold"


def rewritten(root: Path, name: str, column: str, change: Callable[[pa.ChunkedArray], Any]) -> Path:
    """A hot file of one more call whose column is of another type."""
    add_call(root, name, attempts=7, ring_seconds=0.1)
    path = root / "calls" / "hot" / f"9-{name}.parquet"
    table = pq.read_table(path)
    pq.write_table(
        table.set_column(table.schema.get_field_index(column), column, change(table[column])), path
    )
    return path


def cast_to(kind: pa.DataType) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    return lambda column: column.cast(kind)


LOSSLESS = {
    "small": ("attempts", cast_to(pa.int16())),
    "large-text": ("outcome", cast_to(pa.large_string())),
    "dictionary": ("provider", lambda column: column.dictionary_encode()),
    "no-values": ("agent_id", lambda column: pa.nulls(len(column))),
    "milliseconds": (
        "ended_at",
        lambda column: pc.floor_temporal(column, unit="second").cast(pa.timestamp("ms", "UTC")),
    ),
    "zone": ("started_at", cast_to(pa.timestamp("us", "Europe/Berlin"))),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_what_is_read_without_loss_is_read_and_leaves_no_trace(
    older: Path, usual_types: Any, calls_of: Any, name: str
) -> None:
    open_lake(older)
    column, change = LOSSLESS[name]
    rewritten(older, name, column, change)
    before = calls_of(older)
    assert before[f"recho:{name}"]["attempts"] == 7
    usual_types = {view: usual_types[view] for view in READERS}
    assert types_read(older) == usual_types
    compact(older, 0)
    compact(older, 0)
    assert (calls_of(older), types_read(older)) == (before, usual_types)
    for file in current_files(Lake(older), "calls").values():
        assert pq.read_schema(file) == sealed_schema(CALLS)


WRONG = {
    "text-for-an-instant": ("ended_at", lambda column: pa.array(["yesterday"] * len(column))),
    "text-for-a-number": ("revision", lambda column: pa.array(["many"] * len(column))),
    "list-for-a-flag": ("is_answered", lambda column: pa.array([[True]] * len(column))),
    "number-for-an-instant": ("started_at", cast_to(pa.int64())),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_column_of_another_type_is_an_error_that_names_the_file(
    older: Path, usual_types: Any, seen: Any, name: str
) -> None:
    open_lake(older)
    expected = seen(older)
    column, change = WRONG[name]
    path = rewritten(older, name, column, change)
    with pytest.raises(duckdb.Error, match=path.name), connect(older) as connection:
        connection.sql("select * from all_calls").fetchall()
    assert types_read(older) == {view: usual_types[view] for view in READERS}
    with pytest.raises(DestinationUnavailable, match=f"{path.name}: column {column} is .* move the file out"):
        compact(older, 0)
    path.unlink()
    assert seen(older) == expected
    assert compact(older, 0).merged > 0


def test_numbers_that_would_be_rounded_are_not_merged(older: Path, seen: Any) -> None:
    open_lake(older)
    path = rewritten(older, "rounded", "attempts", cast_to(pa.float64()))
    with pytest.raises(
        DestinationUnavailable, match=f"{path.name}: column attempts is double, and not int32"
    ):
        compact(older, 0)


def types_of(root: Path) -> dict[str, dict[str, str]]:
    """The columns of every view with their types."""
    found: dict[str, dict[str, str]] = {}
    with connect(root) as connection:
        for view, column, kind in connection.execute(
            "select table_name, column_name, data_type from duckdb_columns() where not internal"
        ).fetchall():
            found.setdefault(view, {})[column] = kind
    assert found.keys() == models().keys()
    return found


def types_read(root: Path) -> dict[str, dict[str, str]]:
    """The same, of the views that read files themselves: all the others are made of them."""
    found = {}
    with lake_connection(root) as connection:
        for view in READERS:
            described = connection.execute(f"describe {_rooted(models()[view], str(root))}").fetchall()
            found[view] = {row[0]: row[1] for row in described}
    return found


@pytest.fixture(scope="module")
def usual_types(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Those over what version 1 wrote."""
    root = shutil.copytree(FIXTURES / "v1", tmp_path_factory.mktemp("usual") / "lake")
    types = types_of(root)
    assert types_read(root) == {view: types[view] for view in READERS}
    return types


def test_the_views_read_the_declared_columns() -> None:
    declared = json.loads((sql_folder() / "columns.json").read_text(encoding="utf-8"))
    schemas = SCHEMAS | dict.fromkeys(SEALED_ONLY, CALLS) | {"calls": CARRIED_CALLS, "manifest": MANIFEST}
    assert declared == {
        name: {field.name: duckdb_type(field.type) for field in schema} for name, schema in schemas.items()
    }


def test_the_views_have_the_declared_types_whatever_files_there_are(
    older: Path, usual_types: Any, tmp_path: Path
) -> None:
    empty = types_of(open_lake(tmp_path / "empty").root)
    assert usual_types == empty
    names = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE"}
    for view, schema in (SCHEMAS | dict.fromkeys(SEALED_ONLY, CALLS)).items():
        shown = {field.name: duckdb_type(field.type) for field in schema}
        assert {name: names.get(kind, kind) for name, kind in shown.items() if name in empty[view]} == empty[
            view
        ]
    compact(older, 0)
    assert types_of(older) == empty


def test_every_file_says_its_version(older: Path) -> None:
    open_lake(older)
    add_call(older, "of-today")
    compact(older, 0)
    was_there = {file.relative_to(FIXTURES / "v1") for file in (FIXTURES / "v1").rglob("*.parquet")}
    new = [file for file in older.rglob("*.parquet") if file.relative_to(older) not in was_there]
    assert len(new) > len(SCHEMAS)
    new += older.rglob(SCHEMA_FILE)
    versions = {pq.read_schema(file).metadata[b"callfold.schema_version"] for file in new}
    assert versions == {str(SCHEMA_VERSION).encode()}


def test_a_new_field_of_a_provider_needs_no_migration(tmp_path: Path, world: Any, worker_at: Any) -> None:
    """The webhook is kept with it, what is known is understood, and no schema has changed."""
    worker = worker_at(tmp_path / "lake")
    lines = [line for line in world.simulated(8, 1) if line["provider"] == "recho"]
    worker.add(lines)
    worker.flush(0)
    worker.store(lines)
    plain = types_of(worker.root)
    other = worker_at(tmp_path / "other")
    changed = [line | {"body": {**line["body"], "mood": {"score": 0.7}}} for line in lines]
    other.add(changed)
    other.flush(0)
    other.store(changed)
    compact(other.root, 0)
    assert types_of(other.root) == plain
    with connect(worker.root) as before, connect(other.root) as after:
        calls = "select * exclude (revision) from all_calls order by call_key"
        assert after.sql(calls).fetchall() == before.sql(calls).fetchall()
        assert after.sql("select count(*) from webhooks where body like '%\"mood\"%'").fetchall() == [
            (len(lines),)
        ]

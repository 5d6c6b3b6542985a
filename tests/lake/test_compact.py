"""Compaction changes nothing that a view shows: whatever was written, wherever it was stopped, whoever reads."""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.errors import DestinationUnavailable, UserError
from pipeline.lake import LakeSink, removal
from pipeline.lake import compact as compact_module
from pipeline.lake.compact import compact
from pipeline.lake.files import SEALED_ONLY, Lake
from pipeline.lake.schemas import CALLS, SCHEMAS, sealed_schema
from pipeline.lake.sealed import current_files
from pipeline.open_lake import open_lake
from pipeline.query.views import connect, views_sql

APPEARS = ("replace", "hardlink_to")
"""How a file gets its name."""


class Killed(BaseException):
    """The process ends here; nothing cleans up as after an error."""


def sealed_files(root: Path, *datasets: str) -> list[Path]:
    """Those that count."""
    names = datasets or (*SCHEMAS, *SEALED_ONLY)
    return sorted(path for name in names for path in current_files(Lake(root), name).values())


def hot_files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/hot/*.parquet") if path.name != "0-schema.parquet")


def retracting(world: Any) -> list[dict[str, Any]]:
    """An agent's two calls that a late event shows to be one."""
    start_us, second = 1_772_409_600_000_000, world.SECOND
    told = [("DIALING", 1, 0, 0), ("connecting", 3, 20_000, 20_000), ("ringing", 2, 10_000, 20_001)]
    return [
        world.bus_line(word, seq, start_us + at * second, start_us + received * second, agent=9)
        for word, seq, at, received in told
    ]


@pytest.fixture(scope="module")
def once_busy(tmp_path_factory: pytest.TempPathFactory, world: Any, worker_at: Any) -> Path:
    """A lake with all there can be: open calls, late revisions, a retraction, quarantine, two of its rows resolved."""
    worker = worker_at(tmp_path_factory.mktemp("busy") / "lake")
    lines = [*retracting(world), *world.simulated(40, 1, 0.2, 0.2, 0.2, 0.0)]
    step = len(lines) // 4
    for place in range(0, len(lines), step):
        part = lines[place : place + step]
        worker.add(part)
        worker.flush(max(world.instant.from_text(line["received_at"]) for line in part))
        worker.store(part, part[:4])
    newest_us = max(world.instant.from_text(line["received_at"]) for line in lines)
    worker.add([world.bus_line("DIALING", 1, newest_us, newest_us, agent=8)])
    worker.flush(newest_us)
    worker.store([], lines[:2], is_resolved=True)
    root: Path = worker.root
    return root


@pytest.fixture
def busy(once_busy: Path, tmp_path: Path) -> Path:
    return shutil.copytree(once_busy, tmp_path / "lake")


@pytest.fixture(scope="module")
def once_compacted(once_busy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, sealed, and what was merged removed."""
    root = shutil.copytree(once_busy, tmp_path_factory.mktemp("compacted") / "lake")
    compact(root, 0)
    compact(root, 0)
    return root


@pytest.fixture
def compacted(once_compacted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(once_compacted, tmp_path / "lake")


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=2,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    st.integers(1, 4),
    st.lists(st.sampled_from(["write", "write", "restart", "compact", "compact", "resolve"]), max_size=6),
)
def test_no_view_changes_whatever_was_written_before(
    world: Any, worker_at: Any, seen: Any, calls_of: Any, seed: int, steps: list[str]
) -> None:
    lines = [*retracting(world)[:2], *world.simulated(40, seed, 0.2, 0.2, 0.2, 0.1), *retracting(world)[2:]]
    size = len(lines) // (steps.count("write") + 1) + 1
    with tempfile.TemporaryDirectory() as folder:
        worker = worker_at(Path(folder) / "lake")
        as_of_us = place = 0
        for step in [*steps, "compact", "write", "compact", "compact"]:
            part = lines[place : place + size]
            if step == "write" and part:
                place += size
                worker.add(part)
                worker.store(part, part[:3])
                as_of_us = max([as_of_us, *(world.instant.from_text(line["received_at"]) for line in part)])
                worker.flush(as_of_us)
            elif step == "restart":
                worker.start()
            elif step == "resolve":
                worker.store([], lines[:1], is_resolved=True)
            elif step == "compact":
                before = seen(worker.root)
                compact(worker.root, 0)
                assert seen(worker.root) == before
                for path in sealed_files(worker.root, "calls"):
                    assert set(pq.read_table(path)["state"].to_pylist()) <= {"ended"}
        if place >= len(lines):
            assert calls_of(worker.root) == world.expected(lines)


def test_hot_files_are_merged_into_one_file_a_date_and_removed_after_their_grace(
    busy: Path, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, hot = seen(busy), hot_files(busy)
    first = compact(busy, 3600)
    assert (first.merged, first.removed) == (len(hot), 0)
    assert first.sealed == len(sealed_files(busy))
    assert set(hot) < set(hot_files(busy)), "readers may still have them open"
    assert seen(busy) == before
    assert compact(busy, 3600).removed == 0
    with monkeypatch.context() as set_forward:
        now = time.time()
        set_forward.setattr(time, "time", lambda: now + 4000)
        set_forward.setattr(time, "time_ns", lambda: round((now + 4000) * 1e9))
        assert compact(busy, 3600).removed == 0, "a clock that was set says nothing of the readers"
    boot, seconds = removal._this_moment()
    monkeypatch.setattr(removal, "_this_moment", lambda: (boot, seconds + 3601))
    assert compact(busy, 3600).removed == len(hot)
    assert len(hot_files(busy)) == 1, "the calls that are going on"
    assert seen(busy) == before
    counts = {path.parent for path in sealed_files(busy)}
    assert len(counts) == len(sealed_files(busy))


def test_sealed_files_have_the_declared_schema_and_are_sorted(once_compacted: Path) -> None:
    for path in sealed_files(once_compacted):
        dataset = path.relative_to(once_compacted).parts[0]
        assert pq.read_schema(path) == sealed_schema(SCHEMAS.get(dataset, CALLS))
        table = pq.read_table(path)
        assert set(table["generation"].to_pylist()) == {int(path.stem)}
        assert set(table["date"].to_pylist()) <= {date.fromisoformat(path.parent.name.removeprefix("date="))}
    for path in sealed_files(once_compacted, "calls"):
        rows = pq.read_table(path, columns=["provider", "started_at", "call_key"]).to_pylist()
        keys = [(r["provider"], r["started_at"] is None, r["started_at"], r["call_key"]) for r in rows]
        assert keys == sorted(keys)


def test_a_lake_at_rest_is_left_alone(compacted: Path) -> None:
    compact(compacted, 0)
    files = {path: path.stat().st_mtime_ns for path in sealed_files(compacted)}
    assert compact(compacted, 0).sealed <= 1
    changed = {path for path in sealed_files(compacted) if path.stat().st_mtime_ns != files[path]}
    assert {path.relative_to(compacted).parts[0] for path in changed} <= {"calls", "call_revisions"}


def killed_at(call: int, names: Sequence[str], act: Callable[[], Any]) -> int:
    """Runs until the process is killed at a call of one of the methods of `Path`; how many there were."""
    count = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def stopped(*args: Any, **options: Any) -> Any:
            nonlocal count
            if count == call:
                raise Killed
            count += 1
            return original(*args, **options)

        return stopped

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        for name in names:
            patch.setattr(Path, name, counted(getattr(Path, name)))
        act()
    return count


@pytest.mark.parametrize("step", [APPEARS, ("unlink",)], ids=["a file appears", "a file is removed"])
def test_wherever_it_is_killed_no_view_changes_and_the_next_run_ends_it(
    busy: Path, seen: Any, step: Sequence[str]
) -> None:
    before = seen(busy)
    if step != APPEARS:
        compact(busy, 3600)
    shutil.copytree(busy, busy.parent / "sample")
    steps = killed_at(10**6, step, lambda: compact(busy.parent / "sample", 0))
    assert steps > 8
    for call in range(0, steps, 6):
        copy = busy.parent / f"{call}"
        shutil.copytree(busy, copy)
        assert killed_at(call, step, lambda root=copy: compact(root, 0)) == call  # type: ignore[misc]
        assert seen(copy) == before, call
        compact(copy, 0)
        compact(copy, 0)
        assert seen(copy) == before, call
        assert len(hot_files(copy)) == 1


def test_a_manifest_that_a_power_failure_left_empty_is_no_obstacle(busy: Path, seen: Any) -> None:
    before = seen(busy)
    compact(busy, 3600)
    (manifest,) = (busy / "_compacted").iterdir()
    manifest.write_text("")
    compact(busy, 0)
    compact(busy, 0)
    assert seen(busy) == before
    assert len(hot_files(busy)) == 1
    assert list((busy / "_compacted").iterdir())[1:] == []


def test_the_note_of_another_machine_is_as_old_as_its_file(
    busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(removal, "_this_moment", lambda: ("another boot", 1e9))
        compact(busy, 3600)
    (path,) = (busy / "_compacted").iterdir()
    assert compact(busy, 100).removed == 0
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 200))
    assert compact(busy, 100).removed > 0


def test_a_reader_sees_every_call_once_at_every_moment(busy: Path, world: Any) -> None:
    stopping, problems, queries = threading.Event(), [], [0, 0]
    sql = (
        "select count(*), count(distinct call_key), (select count(*) from call_events), "
        "(select count(*) from webhooks), (select count(*) from call_revisions), (select count(*) from quarantine) "
        "from (from calls union all by name from open_calls)"
    )
    with connect(busy) as connection:
        expected = connection.execute(sql).fetchone()
    # Without those that are not asked for: to bind them takes most of the time.
    head, *views = views_sql(str(busy)).split("create or replace view ")
    looked_at = [view for view in views if not view.startswith(("kpi_", "data_", "int_root", "int_customer"))]

    def opened() -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config={"threads": 1})
        connection.execute("create or replace view ".join([head, *looked_at]))
        return connection

    def read(place: int, is_long_lived: bool) -> None:
        connection = opened()
        while not stopping.is_set():
            try:
                if not is_long_lived:
                    connection.close()
                    connection = opened()
                found = _one_row(connection, sql)
            except duckdb.Error as error:
                found = error
            if found != expected:
                problems.append(found)
            queries[place] += 1
        connection.close()

    readers = [threading.Thread(target=read, args=(place, place == 0)) for place in range(2)]
    for reader in readers:
        reader.start()
    sink, began = LakeSink(Lake(busy)), time.monotonic()
    again = _records(busy)
    published_us = time.time_ns() // 1_000
    compactions = 0
    # On a busy machine a query takes seconds: each reader shall have looked a few times.
    while compactions < 8 or (min(queries) < 6 and time.monotonic() - began < 60):
        compactions += 1
        published_us += 1
        sink.write_calls([], again, [], published_us)
        # Nothing that a reader may still want is removed: whatever goes wrong then is not for it to try again.
        compact(busy, 60)
    stopping.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert min(queries) > 3


def _one_row(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    return connection.execute(sql).fetchone()


def _records(root: Path) -> Any:
    from pipeline.lake import LakeHistory

    history = LakeHistory(Lake(root))
    streams = history.streams_between(date(2000, 1, 1), date(2099, 1, 1))
    return [(key, record) for key, past in history.remember(streams).items() for record in past.records]


def test_sealed_files_from_before_there_were_generations_are_taken_over(busy: Path, seen: Any) -> None:
    compact(busy, 0)
    before = seen(busy)
    for name in (*SCHEMAS, *SEALED_ONLY):
        schema = SCHEMAS.get(name, CALLS)
        for path in sealed_files(busy, name):
            older = pq.read_table(path, partitioning=None).drop_columns(["generation"])
            path.unlink()
            pq.write_table(older, path.with_name(f"{name}.parquet"))
        shutil.rmtree(busy / name / "manifest")
        pq.write_table(schema.empty_table(), busy / name / "sealed" / "0-schema.parquet")
    copies = {call: busy.parent / f"copy-{call}" for call in (12, 16, 20)}
    for call, copy in copies.items():
        shutil.copytree(busy, copy)
        assert killed_at(call, APPEARS, lambda root=copy: open_lake(root)) == call  # type: ignore[misc]
    half_removed = busy.parent / "half-removed"
    shutil.copytree(busy, half_removed)
    assert killed_at(3, ("unlink",), lambda: open_lake(half_removed)) == 3
    for root in (busy, *copies.values(), half_removed):
        open_lake(root)
        assert seen(root) == before
        assert not list(root.glob("*/sealed/date=*/[a-z]*.parquet"))
        compact(root, 0)
        assert seen(root) == before


def test_of_several_compactions_at_once_one_works_and_the_others_say_so(busy: Path, seen: Any) -> None:
    before, barrier = seen(busy), threading.Barrier(4)

    def run(_: int) -> Any:
        barrier.wait()
        return compact(busy, 0)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(run, range(4)))
    assert sum(one.merged > 0 for one in done) >= 1
    assert all(one.is_elsewhere or one.merged >= 0 for one in done)
    assert seen(busy) == before
    with compact_module.only_one(busy, "compaction"):
        assert "another compaction" in str(compact(busy, 0))


@pytest.mark.parametrize("state", ["compacted", "busy"])
def test_a_call_whose_start_turns_out_to_be_of_another_day_moves_there(
    calls_of: Any, state: str, request: pytest.FixtureRequest
) -> None:
    busy = request.getfixturevalue(state)
    key, record = next((key, r) for key, r in _records(busy) if r.state == "ended")
    moved = msgspec.structs.replace(record, date_day=record.date_day - 1, revision=record.revision + 1)
    count = len(calls_of(busy))
    LakeSink(Lake(busy)).write_calls([], [(key, moved)], [], time.time_ns() // 1_000)
    for _ in range(3):
        calls = calls_of(busy)
        assert (calls[record.call_key]["revision"], len(calls)) == (moved.revision, count)
        compact(busy, 0)
    sealed = [
        path for path in sealed_files(busy, "calls")
        if record.call_key in pq.read_table(path)["call_key"].to_pylist()
    ]  # fmt: skip
    assert len(sealed) == 1


def test_where_there_is_no_lake_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no lake at"):
        compact(tmp_path / "nowhere", 0)
    assert not (tmp_path / "nowhere").exists()


def test_a_broken_file_is_said_and_stops_nothing_else(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    (lake.hot("calls") / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(DestinationUnavailable, match="cannot read the lake at"):
        compact(tmp_path, 0)
    (lake.hot("calls") / "broken.parquet").unlink()
    assert compact(tmp_path, 0).merged == 0


def test_a_disk_that_is_full_changes_nothing(busy: Path, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(busy)
    with monkeypatch.context() as broken:
        broken.setattr(pq, "write_table", _fail)
        with pytest.raises(DestinationUnavailable, match="the disk is full"):
            compact(busy, 0)
    assert seen(busy) == before
    compact(busy, 0)
    assert seen(busy) == before


def _fail(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def test_plain_duckdb_reads_a_compacted_lake(
    once_compacted: Path, calls_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(once_compacted)
    with duckdb.connect() as connection:
        connection.execute(Path("views.sql").read_text())
        found = connection.execute("select count(*) from calls").fetchone()
    assert found == (sum(row["state"] == "ended" for row in calls_of(once_compacted).values()),)

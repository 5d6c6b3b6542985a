"""Sealed files: one a date, one for each provider where it is large, and few at any time."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import doctor
from pipeline.errors import DestinationUnavailable
from pipeline.lake import files as files_module
from pipeline.lake import merge, removal
from pipeline.lake.compact import compact
from pipeline.lake.files import SCHEMA_FILE, Lake
from pipeline.lake.schemas import SCHEMAS
from pipeline.lake.sealed import Part, current_files, manifest_version, publish
from pipeline.open_lake import open_lake

SMALL = 5


@pytest.fixture(scope="module")
def once_written(tmp_path_factory: pytest.TempPathFactory, world: Any, worker_at: Any) -> Path:
    """A lake that holds a day's calls of all providers."""
    worker = worker_at(tmp_path_factory.mktemp("written") / "lake")
    lines = world.simulated(40, 1, 0.2, 0.2, 0.2, 0.0)
    worker.add(lines)
    worker.flush(max(world.instant.from_text(line["received_at"]) for line in lines))
    worker.store(lines, lines[:6])
    root: Path = worker.root
    return root


@pytest.fixture
def root(once_written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(once_written, tmp_path / "lake")


def copied_again(root: Path, number: int, is_wanted: Callable[[Any], bool] = lambda _: True) -> None:
    """The rows of the sealed calls as a worker would publish them once more, with the next revision."""
    tables = [pq.read_table(file, partitioning=None) for file in current_files(Lake(root), "calls").values()]
    rows = [row for table in tables for row in table.to_pylist() if is_wanted(row)]
    changed = [row | {"revision": row["revision"] + number, "raw_status": f"again {number}"} for row in rows]
    names = SCHEMAS["calls"].names
    table = pa.Table.from_pylist([{name: row[name] for name in names} for row in changed], SCHEMAS["calls"])
    Lake(root).write(table, root / "calls" / "hot" / f"again-{number:03d}.parquet")


def test_a_large_date_has_one_file_for_each_provider_and_a_change_touches_one(
    root: Path, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, lake = seen(root), Lake(root)
    monkeypatch.setattr(merge, "DIVIDED_ROWS", SMALL)
    compact(root, 0)
    assert seen(root) == before
    for name in ("calls", "call_events", "call_revisions", "webhooks"):
        files = current_files(lake, name)
        days = Counter(part.day for part in files)
        assert days.most_common(1)[0][1] == 5
        for part, file in files.items():
            if days[part.day] == 1:
                assert pq.read_metadata(file).num_rows <= SMALL
                continue
            rows = pq.read_table(file, partitioning=None)
            assert set(rows["provider"].to_pylist()) == {part.provider}
            assert set(rows["date"].to_pylist()) == {part.day}
            assert set(rows["generation"].to_pylist()) == {int(file.stem)}
    files = current_files(lake, "calls")
    copied_again(root, 1, lambda row: row["provider"] == "whippy")
    changed = seen(root)
    compact(root, 0)
    assert seen(root) == changed
    now = current_files(lake, "calls")
    large = [part for part in files if part.provider is not None]
    assert {part.provider for part in large if now[part] != files[part]} == {"whippy"}
    # What was divided stays so, however few rows make it large.
    monkeypatch.setattr(merge, "DIVIDED_ROWS", 10**6)
    copied_again(root, 2, lambda row: row["provider"] == "recho")
    compact(root, 0)
    assert current_files(lake, "calls").keys() == files.keys()


def test_a_date_that_grows_is_divided_later(root: Path, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(root, 0)
    before = seen(root)
    assert {part.provider for part in current_files(Lake(root), "calls")} == {None}
    monkeypatch.setattr(merge, "DIVIDED_ROWS", SMALL)
    copied_again(root, 1, lambda row: row["provider"] == "freeclimb")
    expected = seen(root)
    assert expected != before
    for _ in range(2):
        compact(root, 0)
        assert seen(root) == expected
    files = current_files(Lake(root), "calls")
    assert len({part.provider for part in files} - {None}) == 5
    assert sum(pq.read_metadata(file).num_rows for file in files.values()) == len(expected["calls"])


def test_a_manifest_that_names_no_file_is_in_force_as_any_other(root: Path, calls_of: Any) -> None:
    """Its predecessor stays for a while, and must not count again."""
    compact(root, 0)
    compact(root, 0)
    assert calls_of(root)
    lake = Lake(root)
    publish(lake, "calls", {})
    assert current_files(lake, "calls") == {}
    assert list(lake.manifest("calls").glob("0*1.parquet")), "the one before it is still there"
    assert {row["state"] for row in calls_of(root).values()} <= {
        "queued",
        "ringing",
        "in_progress",
        "wrap_up",
    }


def test_what_another_one_published_meanwhile_is_not_overwritten(root: Path) -> None:
    lake = Lake(root)
    compact(root, 0)
    files, version = current_files(lake, "calls"), manifest_version(lake, "calls")
    publish(lake, "calls", files, after=version)
    with pytest.raises(DestinationUnavailable, match="somebody else changed calls"):
        publish(lake, "calls", {}, after=version)
    assert current_files(lake, "calls") == files
    assert all(isinstance(part, Part) for part in files)


def test_row_groups_end_by_bytes_as_well(root: Path, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group is what a compaction holds in memory, and a webhook may have a megabyte."""
    before = seen(root)
    monkeypatch.setattr(merge, "BATCH_ROWS", 1)
    monkeypatch.setattr(files_module, "ROW_GROUP_BYTES", 20_000)
    compact(root, 0)
    files = current_files(Lake(root), "webhooks").values()
    assert max(pq.read_metadata(file).num_row_groups for file in files) > 3
    assert seen(root) == before


def test_a_day_of_flushes_leaves_few_files_at_any_time(
    root: Path, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hot files: those of two intervals and a grace. Sealed files of a date: those of a grace, and one."""
    clock = [0.0]
    monkeypatch.setattr(removal, "_this_moment", lambda: ("boot", clock[0]))
    compact(root, 120)
    most_hot = most_sealed = 0
    for number in range(1, 13):
        copied_again(root, number)
        most_hot = max(most_hot, len(list((root / "calls" / "hot").iterdir())))
        clock[0] += 100.0
        compact(root, 120)
        for folder in (root / "calls" / "sealed").glob("date=*"):
            most_sealed = max(most_sealed, len(list(folder.iterdir())))
    # One file a flush here, a carried one, and the one without rows; a grace of 120 s spans two intervals of 100 s.
    assert most_hot <= 2 * 4 + 1
    assert most_sealed <= 4
    expected = seen(root)
    clock[0] += 1000.0
    compact(root, 120)
    assert {path.name for path in (root / "calls" / "manifest").iterdir()} >= {SCHEMA_FILE}
    assert len(list((root / "calls" / "manifest").iterdir())) == 2
    assert seen(root) == expected


def test_memory_is_limited_and_what_is_put_on_the_disk_goes_with_it(root: Path) -> None:
    lake = open_lake(root)
    with merge.engine(lake) as connection:
        (found,) = connection.execute(
            "select current_setting('memory_limit'), current_setting('temp_directory')"
        ).fetchall()
        assert found[0] == "768.0 MiB"
        assert Path(found[1]).parent == lake.scratch()
    assert list(lake.scratch().iterdir()) == []


def test_small_files_that_pile_up_are_told_by_the_doctor(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MANY_HOT_FILES", 3)
    told = [found for found in doctor._lake(root) if found.what == "compaction"]
    assert [found.told for found in told] == ["4 small files wait to be merged: queries are slow"]
    compact(root, 3600)
    assert [found for found in doctor._lake(root) if found.what == "compaction"] == []

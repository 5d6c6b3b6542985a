"""Sealed files: one a date, one for each provider where it is large, and few at any time."""

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


@pytest.fixture
def worker(tmp_path: Path, world: Any, worker_at: Any) -> Any:
    """A worker before a lake that holds a day's calls of all providers."""
    found = worker_at(tmp_path / "lake")
    found.lines = world.simulated(40, 1, 0.2, 0.2, 0.2, 0.0)
    found.add(found.lines)
    found.flush(newest_us(world, found.lines))
    found.store(found.lines, found.lines[:6])
    return found


def newest_us(world: Any, lines: Any) -> int:
    return max(world.instant.from_text(line["received_at"]) for line in lines)


def copied_again(root: Path, number: int, is_wanted: Callable[[Any], bool] = lambda _: True) -> None:
    """The rows of the sealed calls as a worker would publish them once more, with the next revision."""
    tables = [pq.read_table(file, partitioning=None) for file in current_files(Lake(root), "calls").values()]
    rows = [row for table in tables for row in table.to_pylist() if is_wanted(row)]
    changed = [row | {"revision": row["revision"] + number, "raw_status": f"again {number}"} for row in rows]
    names = SCHEMAS["calls"].names
    table = pa.Table.from_pylist([{name: row[name] for name in names} for row in changed], SCHEMAS["calls"])
    Lake(root).write(table, root / "calls" / "hot" / f"again-{number:03d}.parquet")


def test_a_large_date_has_one_file_for_each_provider_and_a_change_touches_one(
    worker: Any, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, root, lake = seen(worker.root), worker.root, Lake(worker.root)
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


def test_a_date_that_grows_is_divided_later(worker: Any, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(worker.root, 0)
    before = seen(worker.root)
    assert {part.provider for part in current_files(Lake(worker.root), "calls")} == {None}
    monkeypatch.setattr(merge, "DIVIDED_ROWS", SMALL)
    copied_again(worker.root, 1, lambda row: row["provider"] == "freeclimb")
    expected = seen(worker.root)
    assert expected != before
    for _ in range(2):
        compact(worker.root, 0)
        assert seen(worker.root) == expected
    files = current_files(Lake(worker.root), "calls")
    assert len({part.provider for part in files} - {None}) == 5
    assert sum(pq.read_metadata(file).num_rows for file in files.values()) == len(expected["calls"])


def test_a_manifest_that_names_no_file_is_in_force_as_any_other(worker: Any, calls_of: Any) -> None:
    """Its predecessor stays for a while, and must not count again."""
    compact(worker.root, 0)
    compact(worker.root, 0)
    assert calls_of(worker.root)
    lake = Lake(worker.root)
    publish(lake, "calls", {})
    assert current_files(lake, "calls") == {}
    assert list(lake.manifest("calls").glob("0*1.parquet")), "the one before it is still there"
    assert {row["state"] for row in calls_of(worker.root).values()} <= {
        "queued",
        "ringing",
        "in_progress",
        "wrap_up",
    }


def test_what_another_one_published_meanwhile_is_not_overwritten(worker: Any) -> None:
    lake = Lake(worker.root)
    compact(worker.root, 0)
    files, version = current_files(lake, "calls"), manifest_version(lake, "calls")
    publish(lake, "calls", files, after=version)
    with pytest.raises(DestinationUnavailable, match="somebody else changed calls"):
        publish(lake, "calls", {}, after=version)
    assert current_files(lake, "calls") == files
    assert all(isinstance(part, Part) for part in files)


def test_row_groups_end_by_bytes_as_well(worker: Any, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group is what a compaction holds in memory, and a webhook may have a megabyte."""
    before = seen(worker.root)
    monkeypatch.setattr(merge, "BATCH_ROWS", 1)
    monkeypatch.setattr(files_module, "ROW_GROUP_BYTES", 20_000)
    compact(worker.root, 0)
    files = current_files(Lake(worker.root), "webhooks").values()
    assert max(pq.read_metadata(file).num_row_groups for file in files) > 3
    assert seen(worker.root) == before


def test_a_day_of_flushes_leaves_few_files_at_any_time(
    worker: Any, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hot files: those of two intervals and a grace. Sealed files of a date: those of a grace, and one."""
    root, clock = worker.root, [0.0]
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


def test_memory_is_limited_and_what_is_put_on_the_disk_goes_with_it(worker: Any) -> None:
    lake = open_lake(worker.root)
    with merge.engine(lake) as connection:
        (found,) = connection.execute(
            "select current_setting('memory_limit'), current_setting('temp_directory')"
        ).fetchall()
        assert found[0] == "768.0 MiB"
        assert Path(found[1]).parent == lake.scratch()
    assert list(lake.scratch().iterdir()) == []


def test_small_files_that_pile_up_are_told_by_the_doctor(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MANY_HOT_FILES", 3)
    told = [found for found in doctor._lake(worker.root) if found.what == "compaction"]
    assert [found.told for found in told] == ["4 small files wait to be merged: queries are slow"]
    compact(worker.root, 3600)
    assert [found for found in doctor._lake(worker.root) if found.what == "compaction"] == []

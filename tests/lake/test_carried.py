"""Calls that are going on are carried over, and what is said of them beside is true of one manifest alone."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from pipeline.lake import LakeSink
from pipeline.lake.compact import compact
from pipeline.lake.erase import erase
from pipeline.lake.files import Lake
from pipeline.lake.rows import records_from
from pipeline.lake.sealed import in_force, publish
from pipeline.model import CallRecord


@pytest.fixture(scope="module")
def once_compacted(tmp_path_factory: pytest.TempPathFactory, world: Any, worker_at: Any) -> Path:
    """A lake with open calls that were carried over, and nothing else hot."""
    worker = worker_at(tmp_path_factory.mktemp("carried") / "lake")
    lines = world.simulated(40, 1, 0.2, 0.2, 0.2, 0.0)
    newest_us = max(world.instant.from_text(line["received_at"]) for line in lines)
    worker.add(lines)
    worker.add(world.bus_line("DIALING", 1, newest_us, newest_us, agent=agent) for agent in range(8))
    worker.flush(newest_us)
    root: Path = worker.root
    compact(root, 0)
    compact(root, 0)
    return root


@pytest.fixture
def root(once_compacted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(once_compacted, tmp_path / "lake")


def carried_file(root: Path) -> Path:
    return max(Lake(root).hot("calls").glob("*-carried.parquet"))


def said(root: Path) -> dict[str, str | None]:
    """What the newest carried rows say of the sealed files, by call."""
    return {row["call_key"]: row["unsealed_in"] for row in pq.read_table(carried_file(root)).to_pylist()}


def an_ended_call(root: Path) -> tuple[str, CallRecord]:
    """A sealed one, with the key of its stream."""
    file = next(iter(in_force(Lake(root), "calls").files.values()))
    return next(iter(records_from(pq.read_table(file, partitioning=None))))


def written(root: Path, stream_key: str, record: CallRecord, published_us: int) -> None:
    LakeSink(Lake(root)).write_calls([], [(stream_key, record)], [], published_us)


def test_what_is_carried_over_says_in_which_manifest_it_has_no_row(root: Path, views: Any) -> None:
    going_on = {row["call_key"] for row in views(root, "open_calls")["open_calls"]}
    assert len(going_on) > 5
    assert said(root) == dict.fromkeys(going_on, str(in_force(Lake(root), "calls")))


def test_of_a_call_that_is_sealed_as_well_nothing_is_said(root: Path, calls_of: Any) -> None:
    before = calls_of(root)
    key, ended = an_ended_call(root)
    older = msgspec.structs.replace(ended, state="ringing", revision=ended.revision - 1)
    # As a worker publishes it that begins anew from an older state; the sealed row is further on, and stays.
    written(root, key, older, 1_772_409_600_000_001)
    assert calls_of(root) == before
    compact(root, 0)
    assert said(root)[ended.call_key] is None
    assert set(said(root).values()) == {None, str(in_force(Lake(root), "calls"))}
    assert calls_of(root) == before


def test_who_listed_the_manifest_before_a_compaction_and_the_hot_files_after_it_sees_each_call_once(
    root: Path, calls_of: Any, tmp_path: Path
) -> None:
    earlier = shutil.copytree(root, tmp_path / "earlier")
    key, ended = an_ended_call(root)
    again = msgspec.structs.replace(ended, state="in_progress", revision=ended.revision + 1, closed_by=None)
    written(root, key, again, 1_872_409_600_000_000)
    compact(root, 0)
    # It goes on, so that its sealed row is gone: from the files of this manifest, not from those of the one before.
    assert said(root)[ended.call_key] == str(in_force(Lake(root), "calls"))
    now = calls_of(root)
    assert now[ended.call_key]["state"] == "in_progress"
    shutil.copy(carried_file(root), Lake(earlier).hot("calls"))
    assert calls_of(earlier) == now


def test_what_has_ended_meanwhile_is_not_brought_back_by_a_file_that_stayed(
    root: Path, calls_of: Any
) -> None:
    stayed = carried_file(root)
    kept = stayed.read_bytes()
    key, record = next(iter(records_from(pq.read_table(stayed))))
    ended = msgspec.structs.replace(
        record,
        state="ended",
        revision=record.revision + 1,
        closed_by="terminal",
        ended_us=record.last_event_us,
    )
    written(root, key, ended, 1_872_409_600_000_000)
    expected = calls_of(root)
    compact(root, 0)
    compact(root, 0)
    assert calls_of(root) == expected
    # Removed files go one by one: that of the flush may be gone before the one that it was carried in.
    stayed.write_bytes(kept)
    assert calls_of(root) == expected


def test_other_changes_of_the_sealed_files_make_a_new_manifest_and_show_the_same(
    root: Path, calls_of: Any
) -> None:
    lake, before = Lake(root), calls_of(root)
    publish(lake, "calls", in_force(lake, "calls").files)
    assert calls_of(root) == before
    erase(lake, "calls", [carried_file(root)], lambda batch: (batch, 0), lambda: None)
    assert "unsealed_in" not in pq.read_schema(carried_file(root)).names
    assert calls_of(root) == before


def test_a_manifest_without_files_has_a_name_too(root: Path) -> None:
    lake = Lake(root)
    version = in_force(lake, "calls").version + 1
    publish(lake, "calls", {})
    assert (str(in_force(lake, "calls")), in_force(lake, "calls").files) == (f"{version}-0", {})


def test_numbers_that_begin_anew_name_other_manifests(root: Path, calls_of: Any) -> None:
    lake = Lake(root)
    first, before, (key, ended) = in_force(lake, "calls"), calls_of(root), an_ended_call(root)
    for file in lake.manifest("calls").glob("*.parquet"):
        file.unlink()
    lake.lay_out()
    assert str(in_force(lake, "calls")) == "0-0"
    written(root, key, ended, 1_872_409_600_000_000)
    compact(root, 0)
    for _ in range(first.version - in_force(lake, "calls").version):
        publish(lake, "calls", in_force(lake, "calls").files)
    assert in_force(lake, "calls").version == first.version
    assert str(in_force(lake, "calls")) != str(first)
    going_on = {call for call, row in before.items() if row["state"] != "ended"}
    assert calls_of(root).keys() == going_on | {ended.call_key}


def test_a_compaction_with_nothing_to_merge_leaves_what_it_carried(root: Path) -> None:
    before = carried_file(root)
    assert compact(root, 0).merged == 0
    assert carried_file(root) == before


@pytest.mark.parametrize("change", ["another manifest", "an erasure"])
def test_what_was_carried_under_another_manifest_is_carried_again(
    root: Path, calls_of: Any, change: str
) -> None:
    lake, before, stayed = Lake(root), calls_of(root), carried_file(root)
    if change == "an erasure":
        erase(lake, "calls", [stayed], lambda batch: (batch, 0), lambda: None)
        stayed = carried_file(root)
    publish(lake, "calls", in_force(lake, "calls").files)
    compact(root, 0)
    assert calls_of(root) == before
    assert set(said(root).values()) == {str(in_force(lake, "calls"))}
    compact(root, 0)
    assert not stayed.exists()
    assert len(list(lake.hot("calls").glob("*-carried.parquet"))) == 1
    assert len(list(lake.manifest("calls").glob("0000*.parquet"))) == 1
    assert calls_of(root) == before

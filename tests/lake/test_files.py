"""Files appear whole or not at all, and a lake that cannot be written says so."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.errors import DestinationUnavailable
from pipeline.lake import Lake, LakeSink
from pipeline.lake.schemas import CALLS, MANIFEST, SCHEMAS, sealed_schema
from pipeline.open_lake import open_lake
from pipeline.storage import folder as folder_module


def parquet(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.parquet") if path.name != "0-schema.parquet")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return open_lake(tmp_path / "lake")


@pytest.fixture
def changes(world: Any) -> Any:
    worker = world.assembler(None)
    for line in world.simulated(40, 1):
        worker.add(0, world.events_of(line))
    return worker.collect(lambda _: 0)


def test_every_folder_has_a_file_without_rows_of_the_declared_schema(lake: Lake) -> None:
    folders = [(lake.hot(name), schema) for name, schema in SCHEMAS.items()]
    folders += [(lake.sealed(name), sealed_schema(schema)) for name, schema in SCHEMAS.items()]
    folders += [(lake.manifest(name), MANIFEST) for name in (*SCHEMAS, "call_revisions")]
    for folder, schema in [*folders, (lake.sealed("call_revisions"), sealed_schema(CALLS))]:
        table = pq.read_table(folder / "0-schema.parquet")
        assert (table.num_rows, table.schema) == (0, schema)


def test_laying_out_again_leaves_everything_alone(lake: Lake) -> None:
    before = {path: path.stat().st_mtime_ns for path in lake.root.rglob("*")}
    open_lake(lake.root)
    assert {path: path.stat().st_mtime_ns for path in lake.root.rglob("*")} == before


def test_hot_files_have_the_declared_schema(lake: Lake, changes: Any) -> None:
    LakeSink(lake).write_calls(changes.events, changes.records, changes.records[:2], 1)
    assert [pq.read_schema(path) for path in parquet(lake.hot("calls"))] == [SCHEMAS["calls"]]
    assert [pq.read_schema(path) for path in parquet(lake.hot("call_events"))] == [SCHEMAS["call_events"]]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_what_fails_on_the_way_leaves_no_file_and_may_be_tried_again(
    lake: Lake, changes: Any, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    sink = LakeSink(lake)
    with monkeypatch.context() as broken:
        where: tuple[Any, str] = {
            "write": (pq, "write_table"),
            "fsync": (folder_module.os, "fsync"),
            "rename": (Path, "replace"),
        }[step]
        broken.setattr(*where, fail)
        with pytest.raises(DestinationUnavailable, match="cannot write the lake at"):
            sink.write_calls(changes.events, changes.records, [], 1)
    assert parquet(lake.root) == []
    sink.write_calls(changes.events, changes.records, [], 1)
    assert len(parquet(lake.root)) == 2


def test_a_disk_that_has_become_read_only_is_unavailable_and_not_a_crash(
    lake: Lake, changes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # Such a disk refuses to remove what is not there, too.
    monkeypatch.setattr(pq, "write_table", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(DestinationUnavailable, match="read-only"):
        LakeSink(lake).write_calls(changes.events, [], [], 1)


@pytest.mark.parametrize("what", ["a file", "a folder below a file"])
def test_a_path_that_cannot_be_a_lake_is_said(tmp_path: Path, what: str) -> None:
    (tmp_path / "taken").write_text("a file")
    root = tmp_path / "taken" if what == "a file" else tmp_path / "taken" / "lake"
    with pytest.raises(DestinationUnavailable, match="cannot write the lake at"):
        open_lake(root)


def test_texts_are_readable_by_whoever_may_read_the_lake(lake: Lake) -> None:
    mask = os.umask(0o022)
    try:
        lake.write_text("select 1", lake.root / "shared.sql")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((lake.root / "shared.sql").stat().st_mode) == 0o644


def test_a_text_that_cannot_be_written_leaves_the_old_one(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (lake.root / "views.sql").read_text()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder_module.os, "fsync", fail)
    with pytest.raises(DestinationUnavailable, match="the disk is full"):
        lake.write_text("other", lake.root / "views.sql")
    assert (lake.root / "views.sql").read_text() == before
    assert list((lake.root / "_tmp").iterdir()) == []


def test_what_a_crash_left_is_swept_and_work_in_progress_is_not(lake: Lake) -> None:
    old, new = lake.root / "_tmp" / "old.parquet", lake.root / "_tmp" / "new.parquet"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1_000, 1_000))
    lake.sweep(500)
    assert [path.name for path in (lake.root / "_tmp").iterdir()] == ["new.parquet"]

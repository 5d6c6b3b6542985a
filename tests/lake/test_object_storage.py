"""A lake on S3 shows what the same lake in a folder shows, and holds what a folder holds, whatever fails."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from running import until

from pipeline.errors import DestinationUnavailable
from pipeline.lake import Lake, LakeHistory
from pipeline.lake.compact import compact
from pipeline.lake.sealed import Part, current_files, manifest_version, publish, sealed_path
from pipeline.open_lake import open_lake
from pipeline.storage import s3 as s3_module
from pipeline.storage.engine import lake_connection
from pipeline.storage.lease import held
from pipeline.storage.place import remote_path
from pipeline.storage.store import store_of

ROWS = pa.table({"a": [1, 2, 3]})


def happen(root: Path, world: Any, worker_at: Any) -> None:
    """Flushes, a restart, compactions and an archive, the same at every root."""
    worker = worker_at(root)
    lines = world.simulated(25, 2, 0.2, 0.2, 0.2, 0.0)
    step = len(lines) // 2
    for place in range(0, len(lines), step):
        part = lines[place : place + step]
        worker.add(part)
        worker.store(part, part[:3])
        worker.flush(max(world.instant.from_text(line["received_at"]) for line in part))
        compact(root, 0 if place else 3600)
        worker.start()
    worker.store([], lines[:1], is_resolved=True)


@pytest.mark.slow
def test_the_same_work_shows_the_same_on_s3_and_in_a_folder(
    bucket: Any, tmp_path: Path, world: Any, worker_at: Any, seen: Any
) -> None:
    there, here = bucket / "some" / "lake", tmp_path / "lake"
    for root in (there, here):
        happen(root, world, worker_at)
    shown = seen(there)
    assert shown["calls"]
    assert shown == seen(here)
    assert compact(there, 0).removed > 0
    assert seen(there) == shown


def test_a_path_on_s3_is_used_like_any_other(bucket: Any) -> None:
    file = bucket / "calls" / "hot" / "7.parquet"
    assert (str(file), file.stem, file.parent.name) == (f"{bucket}calls/hot/7.parquet", "7", "hot")
    assert str(file.relative_to(bucket)) == "calls/hot/7.parquet"
    assert not file.exists()
    store_of(bucket).put_text("text", file)
    assert (file.exists(), (bucket / "calls").exists(), (bucket / "cal").exists()) == (True, True, False)
    assert list(bucket.glob("*/hot/*.parquet")) == list(bucket.glob("**/7.*")) == [file]
    assert list(bucket.glob("*.parquet")) == []
    assert pickle.loads(pickle.dumps(file)).read_text(encoding="utf-8") == "text"
    assert -2 <= store_of(bucket).age_seconds(file) < 60
    file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.unlink()


def test_a_name_that_is_taken_is_not_given_to_other_bytes(bucket: Any) -> None:
    store, target = store_of(bucket), bucket / "manifest" / "1.parquet"

    def take(number: int) -> bool:
        try:
            store.put_text(f"{number}", target, is_new=True)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    assert taken.count(True) == 1
    assert target.read_text(encoding="utf-8") == str(taken.index(True))
    store.put_text(str(taken.index(True)), target, is_new=True)  # the same again: its first answer was lost


def test_a_file_in_parts_is_there_with_all_of_them_or_not_at_all(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 1024 * 1024)
    content = os.urandom(12 * 1024 * 1024)
    store, target = store_of(bucket), bucket / "large"
    store.put(lambda file: file.write(content), target, is_new=True)
    assert target.read_bytes() == content
    store.put(lambda file: file.write(content), target, is_new=True)
    with pytest.raises(FileExistsError):
        store.put(lambda file: file.write(content[::-1]), target, is_new=True)
    assert target.read_bytes() == content


def uploads_of(bucket: Any) -> list[Any]:
    """Those that were never completed."""
    found: list[Any] = bucket.fs.call_s3("list_multipart_uploads", Bucket=bucket.drive).get("Uploads", [])
    return found


KILLED = """
import os, sys
from pipeline.storage import s3
from pipeline.storage.place import remote_path
from pipeline.storage.store import store_of
s3.PART_BYTES, s3.PARTS_AT_ONCE = 5 * 1024 * 1024, 1
store_of(root := remote_path(sys.argv[1])).put(lambda file: file.write(os.urandom(22 << 20)), root / "large.parquet")
"""


def test_a_writer_that_is_killed_in_the_middle_of_an_upload_leaves_nothing_to_be_seen(
    spoilable: Any, bucket: Any
) -> None:
    at_the_third, go_on = threading.Event(), threading.Event()

    def hold(environ: Any) -> None:
        if "partNumber=3" in environ["QUERY_STRING"]:
            at_the_third.set()
            go_on.wait(60)

    with spoilable.spoilt(hold):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(bucket)])
        assert at_the_third.wait(60)
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
        go_on.set()
    assert list(bucket.glob("*")) == []
    assert len(uploads_of(bucket)) == 1
    store_of(bucket).sweep(-5)
    assert uploads_of(bucket) == []


@pytest.mark.parametrize("status", ["500 Internal Error", "503 Slow Down", "503 Service Unavailable"])
def test_a_store_that_fails_is_unavailable_and_the_same_write_is_tried_again(
    spoilable: Any, bucket: Any, status: str
) -> None:
    lake = open_lake(bucket / "lake")
    target = lake.hot("calls") / "1.parquet"
    with spoilable.spoilt(lambda _: status):
        with pytest.raises(DestinationUnavailable, match="cannot write the lake at s3://"):
            lake.write(ROWS, target)
        with pytest.raises(DestinationUnavailable, match="cannot read the lake at s3://"):
            LakeHistory(lake)
        with pytest.raises(DestinationUnavailable):
            compact(lake.root, 0)
    assert not target.exists()
    lake.write(ROWS, target)
    assert lake.read(target) == ROWS


def test_one_failure_in_between_is_not_even_noticed(spoilable: Any, bucket: Any) -> None:
    lake, failures = open_lake(bucket / "lake"), ["503 Slow Down", "500 Internal Error"]
    with spoilable.spoilt(lambda _: failures.pop() if failures else None):
        lake.write(ROWS, lake.hot("calls") / "1.parquet")
    assert failures == []


def test_an_answer_that_is_lost_makes_no_other_writer(spoilable: Any, bucket: Any) -> None:
    """The client tries again what has already succeeded, and must not take itself for somebody else."""
    lake, lost = open_lake(bucket / "lake"), []

    def lose(environ: Any) -> str | None:
        if environ["REQUEST_METHOD"] != "PUT" or lost:
            return None
        lost.append(environ["PATH_INFO"])
        answers: list[str] = []
        b"".join(spoilable._app(environ, lambda status, *_: answers.append(status)))
        assert answers == ["200 OK"]
        environ["CONTENT_LENGTH"] = "0"  # it has been read
        return "500 Internal Error"

    with spoilable.spoilt(lose):
        lake.write(ROWS, lake.manifest("calls") / "000000000001.parquet", is_new=True)
    assert len(lost) == 1
    assert lake.read(lake.manifest("calls") / "000000000001.parquet") == ROWS


def test_a_store_that_never_answers_is_unavailable(
    spoilable: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module.LakeFileSystem, "read_timeout", 0.3)
    monkeypatch.setattr(s3_module.LakeFileSystem, "call_seconds", 3.0)
    s3_module.file_system.cache_clear()
    try:
        root = remote_path(f"{bucket}lake")
        go_on = threading.Event()

        def hang(_: Any) -> None:
            go_on.wait(60)

        with spoilable.spoilt(hang):
            with pytest.raises(DestinationUnavailable, match="imeout"):
                Lake(root).write(ROWS, root / "1.parquet")
            with pytest.raises(DestinationUnavailable, match="imeout"):
                Lake(root).exists()
            go_on.set()
    finally:
        s3_module.file_system.cache_clear()


def test_a_bucket_that_is_not_there_is_said(bucket: Any) -> None:
    nowhere = remote_path(f"s3://{bucket.drive}-not/lake")
    for fails in (
        lambda: open_lake(nowhere),
        lambda: Lake(nowhere).exists(),
        lambda: compact(nowhere, 0),
        lambda: LakeHistory(Lake(nowhere)),
    ):
        with pytest.raises(DestinationUnavailable, match=f"there is no bucket {bucket.drive}-not$"):
            fails()


@pytest.mark.slow
def test_of_several_compactions_at_once_nothing_comes_out_twice_or_gets_lost(
    bucket: Any, tmp_path: Path, world: Any, worker_at: Any, seen: Any
) -> None:
    lines = world.simulated(15, 3, 0.2, 0.2, 0.2, 0.0)
    for root in (bucket / "lake", tmp_path / "lake"):
        worker = worker_at(root)
        worker.add(lines)
        worker.flush(max(world.instant.from_text(line["received_at"]) for line in lines))
        worker.store(lines, lines[:2])
    before = seen(tmp_path / "lake")
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: compact(bucket / "lake", 0), range(3)))
    assert any(one.sealed for one in told)
    assert seen(bucket / "lake") == before
    compact(bucket / "lake", 0)
    assert seen(bucket / "lake") == before


@pytest.mark.slow
def test_a_compaction_that_lost_its_lease_publishes_and_removes_nothing(
    bucket: Any, world: Any, worker_at: Any, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its middle for longer than its lease lasts, it wakes after another one has done the work."""
    from pipeline.lake import merge

    root = bucket / "lake"
    worker = worker_at(root)
    worker.add(lines := world.simulated(15, 4, 0.2, 0.2, 0.2, 0.0))
    worker.flush(max(world.instant.from_text(line["received_at"]) for line in lines))
    before = seen(root)
    real, woken = merge.publish, []

    def sleeps(*arguments: Any, **options: Any) -> Any:
        if not woken:
            woken.append(True)
            with monkeypatch.context() as later:
                # Its lease has run out, and it did not come to renew it.
                later.setattr(s3_module.Bucket, "age_seconds", lambda *_: 61.0)
                assert compact(root, 3600).sealed > 0
        return real(*arguments, **options)

    monkeypatch.setattr(merge, "publish", sleeps)
    noted = len(list((root / "_compacted").glob("*.json")))
    with pytest.raises(DestinationUnavailable):
        compact(root, 3600)
    assert woken
    assert len(list((root / "_compacted").glob("*.json"))) == noted + 1, "the other one's"
    assert seen(root) == before
    assert compact(root, 0).removed > 0
    assert seen(root) == before


def test_of_two_manifests_made_from_one_the_second_is_refused(bucket: Any) -> None:
    lake = open_lake(bucket / "lake")
    version, part = manifest_version(lake, "calls"), Part(date(2026, 3, 5))
    files = [{part: sealed_path(lake, "calls", part, generation)} for generation in (7, 8)]
    publish(lake, "calls", files[0], after=version)
    with pytest.raises(DestinationUnavailable, match="somebody else"):
        publish(lake, "calls", files[1], after=version)
    assert manifest_version(lake, "calls") == version + 1
    assert current_files(lake, "calls") == files[0]


def test_a_lease_is_one_process_s_until_it_is_done_or_gone(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = store_of(bucket), bucket / "_locks" / "task"
    with held(store, folder) as check:
        assert check is not None
        check()
        with held(store, folder) as other:
            assert other is None
        check()
    with held(store, folder) as check:
        assert check is not None
        with monkeypatch.context() as later:
            later.setattr(s3_module.Bucket, "age_seconds", lambda *_: 61.0)
            with held(store, folder) as other:
                assert other is not None, "whoever is not heard of any more has lost it"
                other()
                with pytest.raises(OSError, match="another process has taken over"):
                    check()
    with held(store, folder, seconds=0.4) as check:
        lease = max(folder.glob("*.json"))
        first = lease.read_text(encoding="utf-8")
        until(lambda: lease.read_text(encoding="utf-8") != first, "a sign of life")
        assert check is not None
        check()
    assert json.loads(lease.read_text(encoding="utf-8"))["is_done"]
    assert len(list(folder.glob("*.json"))) == 1


def test_a_store_without_conditions_is_refused(spoilable: Any, bucket: Any) -> None:
    open_lake(bucket / "lake")
    with (
        spoilable.spoilt(lambda environ: environ.pop("HTTP_IF_NONE_MATCH", None) and None),
        pytest.raises(DestinationUnavailable, match="does not keep to If-None-Match"),
    ):
        compact(bucket / "lake", 0)


@pytest.mark.slow
def test_a_reader_sees_every_call_once_while_the_lake_is_compacted(
    bucket: Any, world: Any, worker_at: Any, calls_of: Any
) -> None:
    root, stop = bucket / "lake", threading.Event()
    lines = world.simulated(15, 5, 0.2, 0.2, 0.2, 0.0)
    worker = worker_at(root)
    worker.add(lines)
    newest_us = max(world.instant.from_text(line["received_at"]) for line in lines)
    worker.flush(newest_us)
    expected, looks, wrong = calls_of(root).keys(), 0, []

    def read() -> None:
        nonlocal looks
        with lake_connection(root, threads=2) as connection:
            from pipeline.query.views import _rooted, models

            connection.execute(f"create view latest as {_rooted(models()['int_latest_calls'], str(root))}")
            while not stop.is_set():
                keys = [key for (key,) in connection.sql("select call_key from latest").fetchall()]
                looks += 1
                if sorted(keys) != sorted(expected):
                    wrong.append(keys)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(2):
            # The same again: nothing changes but files.
            worker.start()
            worker.add(lines[:3])
            worker.flush(newest_us)
            compact(root, 3600)
        until(lambda: looks >= 4, "some looks")
    finally:
        stop.set()
        reader.join()
    assert wrong == []


def test_small_files_are_fetched_once_and_nothing_else_is_asked(spoilable: Any, bucket: Any) -> None:
    lake = Lake(bucket / "lake")
    for number in range(10):
        lake.write(ROWS, lake.root / "hot" / f"{number}.parquet")
    wanted = f"select sum(a) from read_parquet('{lake.root}/hot/*.parquet', union_by_name = true)"
    asked = []
    for _ in range(2):
        spoilable.requests.clear()
        with lake_connection(lake.root) as connection:
            assert connection.sql(wanted).fetchall() == [(60,)]
        asked.append(sorted(request.split("?")[0].split("/")[0].strip() for request in spoilable.requests))
        assert all("list-type=2" in r or ".parquet" in r for r in spoilable.requests)
    assert len(asked[0]) - len(asked[1]) == 10
    assert len(asked[1]) <= 2


def test_a_file_that_is_gone_when_it_is_opened_is_looked_for_again(
    bucket: Any, world: Any, worker_at: Any
) -> None:
    """A compaction on another machine removes what was listed here a moment ago."""
    root = bucket / "lake"
    worker = worker_at(root)
    worker.add(lines := world.simulated(10, 6, 0.0, 0.0, 0.0, 0.0))
    worker.flush(max(world.instant.from_text(line["received_at"]) for line in lines))
    history = LakeHistory(Lake(root))
    streams = history.open_streams()
    compact(root, 3600)
    time_before = time.monotonic()
    for file in (root / "calls" / "hot").glob("0*-*-*.parquet"):
        if "carried" not in file.name:
            file.unlink()
    history.refresh()
    assert history.open_streams() == streams
    assert time.monotonic() >= time_before

"""Threads that read lines ahead, and one that writes, come to what one thread does, whatever goes wrong among them."""

import gzip
import json
import random
import runpy
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from pipeline import archive as archive_module
from pipeline import backfill as backfill_module
from pipeline import native
from pipeline.archive import Block
from pipeline.backfill import Summary, backfill
from pipeline.backfill_threads import BLOCKS_AHEAD, LakeThread, lines_ahead
from pipeline.errors import DestinationUnavailable
from pipeline.lake import LakeHistory, LakeSink
from pipeline.settings import Settings

pytest.importorskip("pipeline.native._native")

backfills = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_backfill.py")))
world, seen, calls_of, HARSH = backfills.world, backfills.seen, backfills.calls_of, backfills.HARSH


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread for thread in threading.enumerate() if thread not in before] == []


@pytest.fixture(autouse=True)
def _blocks_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "BYTES_AT_ONCE", 20_011)
    monkeypatch.setattr(archive_module, "_BUFFERED", 10_007)
    monkeypatch.setattr(backfill_module, "WEBHOOKS_A_FLUSH", 150)


def settings_of(lake: Path) -> Settings:
    settings: Settings = backfills.settings_of(lake, archive_webhooks=False)
    return settings


def text_of(lines: Sequence[Any], seed: int = 1) -> bytes:
    """An archive with lines in it that are none, and some that only Python reads."""
    dice, told = random.Random(seed), []
    for line in lines:
        told.append(json.dumps(line).encode())
        if dice.random() < 0.05:
            told.append(
                dice.choice([b"", b"  ", b"no webhook", b'{"provider":"recho"}', b"\xff", b"[" * 999])
            )
        if dice.random() < 0.05:
            told.append(json.dumps({**line, "received_at": line["received_at"].replace("T", " ")}).encode())
    return b"\n".join(told)


def rows(lake: Path) -> list[Any]:
    """Every row of every flush, but for when it was written."""
    return [
        duckdb.sql(
            f"select * exclude (published_at) from read_parquet('{lake}/{name}/hot/*.parquet') order by all"
        ).fetchall()
        for name in ("calls", "call_events", "quarantine")
    ]


def flushes(lake: Path) -> int:
    return len(list((lake / "call_events" / "hot").glob("*.parquet")))


@pytest.mark.parametrize(("bytes_at_once", "flush"), [(701, 97), (20_011, 150), (1 << 20, 60)])
@pytest.mark.parametrize("is_late", [False, True])
def test_they_write_what_one_thread_writes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bytes_at_once: int,
    flush: int,
    is_late: bool,
) -> None:
    monkeypatch.setattr(archive_module, "BYTES_AT_ONCE", bytes_at_once)
    monkeypatch.setattr(backfill_module, "WEBHOOKS_A_FLUSH", flush)
    lines = world.simulated(80, 71, *HARSH)
    text = text_of(world.shuffled(lines, 5, 0.2) if is_late else lines).splitlines(keepends=True)
    files = [
        tmp_path / "a.ndjson",
        tmp_path / "b.ndjson.gz",
        tmp_path / "empty.ndjson",
        tmp_path / "c.ndjson",
    ]
    third = len(text) // 3
    files[0].write_bytes(b"".join(text[:third]))
    files[1].write_bytes(gzip.compress(b"".join(text[third : 2 * third])))
    files[2].write_bytes(b"")
    files[3].write_bytes(b"".join(text[2 * third :]))

    def come_to(threads: int) -> tuple[Any, ...]:
        settings, advanced = settings_of(tmp_path / str(threads)), list[int]()
        for close_open in (False, True):
            done = backfill(
                settings,
                files,
                processes=threads,
                close_open=close_open,
                progress=lambda at, _: advanced.append(at),
            )
            done.seconds = 0
            assert advanced == sorted(advanced)
            assert advanced[-1] == sum(file.stat().st_size for file in files)
            advanced.clear()
        complaints = capsys.readouterr().err
        return done, complaints, flushes(settings.lake), rows(settings.lake), seen(settings.lake)

    meant = come_to(1)
    assert meant[0].unreadable > 5
    assert meant[2] >= 5
    assert meant[3][1]
    for threads in (2, 3):
        assert come_to(threads) == meant


def test_an_old_call_is_read_back_only_when_it_is_in_the_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that has left memory comes back of itself here, and every flush takes its time."""
    archive = tmp_path / "late.ndjson"
    archive.write_bytes(text_of(world.shuffled(world.simulated(80, 72, *HARSH), 6, 0.3)))
    monkeypatch.setattr(native, "Assembler", partial(native.Assembler, departed=0))
    backfill(settings_of(tmp_path / "one"), [archive])
    write, remember = LakeSink.write_changes, LakeHistory.remember
    is_writing, asked_for = threading.Event(), list[int]()

    def write_slowly(sink: LakeSink, *told: Any) -> Any:
        is_writing.set()
        threading.Event().wait(0.02)
        done = write(sink, *told)
        is_writing.clear()
        return done

    def remember_what_is_written(history: LakeHistory, keys: Sequence[str]) -> Any:
        assert not keys or not is_writing.is_set()
        asked_for.append(len(keys))
        return remember(history, keys)

    monkeypatch.setattr(LakeSink, "write_changes", write_slowly)
    monkeypatch.setattr(LakeHistory, "remember", remember_what_is_written)
    backfill(settings_of(tmp_path / "two"), [archive], processes=2)
    assert sum(asked_for) > 20
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_a_cut_off_archive_is_told_after_what_could_be_read_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = gzip.compress(text_of(world.simulated(100, 72)))
    archive = tmp_path / "webhooks.ndjson.gz"
    archive.write_bytes(packed[: len(packed) * 2 // 3])
    told, advanced = list[tuple[Summary, str]](), list[int]()
    for threads in (1, 2):
        advanced.clear()
        settings = settings_of(tmp_path / str(threads))
        done = backfill(settings, [archive], processes=threads, progress=lambda at, _: advanced.append(at))
        assert advanced == sorted(advanced)
        done.seconds = 0
        told.append((done, capsys.readouterr().err))
    assert told[0] == told[1]
    assert told[0][0].webhooks > 50
    assert "ended before the end-of-stream marker" in told[0][1].splitlines()[-1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_lake_that_cannot_take_a_flush_ends_it_and_the_next_run_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    lines = world.simulated(100, 73, *HARSH)
    archive, settings = tmp_path / "webhooks.ndjson", settings_of(tmp_path / "lake")
    archive.write_bytes(text_of(lines))
    write, tried = LakeSink.write_changes, []

    def fails(*arguments: Any) -> Any:
        tried.append(threading.current_thread() is threading.main_thread())
        if len(tried) == 3:
            raise DestinationUnavailable("the disk is full")
        return write(*arguments)

    monkeypatch.setattr(LakeSink, "write_changes", fails)
    with pytest.raises(DestinationUnavailable, match="the disk is full"):
        backfill(settings, [archive], processes=threads)
    assert tried == [threads == 1] * 3
    assert flushes(settings.lake) <= 3
    monkeypatch.undo()
    backfill(settings, [archive], processes=threads)
    assert calls_of(settings.lake) == world.expected(lines)


@pytest.mark.parametrize("after", [0, 3, 12])
def test_ctrl_c_ends_it_and_the_next_run_comes_to_the_truth(tmp_path: Path, after: int) -> None:
    lines = world.simulated(100, 74, *HARSH)
    archive, settings = tmp_path / "webhooks.ndjson", settings_of(tmp_path / "lake")
    archive.write_bytes(text_of(lines))
    told = []

    def stops(done: int, total: int) -> None:
        told.append(done)
        if len(told) > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backfill(settings, [archive], processes=2, progress=stops)
    assert len(told) == after + 1
    backfill(settings, [archive], processes=2)
    assert calls_of(settings.lake) == world.expected(lines)


class Numbered:
    """A reader that takes the blocks of `blocks`, which are numbers, and stumbles over one of them."""

    def __init__(self, over: int = -1, gate: Callable[[int], None] = lambda _: None) -> None:
        self._over, self._gate = over, gate

    def read(self, _: bytes, data: bytes) -> Any:
        self._gate(int(data))
        if int(data) == self._over:
            raise RuntimeError(f"stumbled over {self._over}")
        return int(data)


def blocks(count: int, closed: list[int], fails: bool = False) -> Any:
    made = 0
    try:
        for made in range(count):
            yield Block(b"", b"%d" % made)
        if fails:
            raise MemoryError
    finally:
        closed.append(made)


def readers(*numbered: Numbered) -> Any:
    return list(numbered)


def test_blocks_come_in_their_order_and_not_too_far_ahead() -> None:
    # The first reader is held up until the second has read all that may be read ahead.
    ahead_of_first, read, closed = threading.Event(), set[int](), list[int]()
    most = 2 + BLOCKS_AHEAD

    def gate(number: int) -> None:
        if number == 0:
            assert ahead_of_first.wait(30)
        read.add(number)
        if len(read) == most - 1:
            ahead_of_first.set()

    with lines_ahead(readers(Numbered(gate=gate), Numbered(gate=gate))) as ahead:
        found = []
        for block, number in ahead(blocks(40, closed)):
            assert max(read) <= len(found) + most
            found.append((int(block.data), number))
    assert found == [(number, number) for number in range(40)]
    assert closed == [39]


def test_an_error_of_a_reading_thread_comes_at_its_place() -> None:
    found, closed = list[Any](), list[int]()
    source = blocks(40, closed)
    over_17 = pytest.raises(RuntimeError, match="stumbled over 17")
    with lines_ahead(readers(Numbered(17), Numbered(17))) as ahead, over_17:
        found.extend(number for _, number in ahead(source))
    source.close()
    assert found == list(range(17))
    assert closed
    assert closed[0] < 17 + 2 + 2 + BLOCKS_AHEAD


def test_an_error_of_reading_the_file_comes_behind_its_blocks() -> None:
    found = list[Any]()
    with lines_ahead(readers(Numbered())) as ahead, pytest.raises(MemoryError):
        found.extend(number for _, number in ahead(blocks(9, [], fails=True)))
    assert found == list(range(9))


def test_an_error_in_a_backfills_reader_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "webhooks.ndjson"
    archive.write_bytes(text_of(world.simulated(60, 75)))

    class Broken:
        def __init__(self, *_: Any) -> None:
            pass

        def read(self, *_: Any) -> None:
            raise ZeroDivisionError

    monkeypatch.setattr(native, "LineReader", Broken)
    with pytest.raises(ZeroDivisionError):
        backfill(settings_of(tmp_path / "lake"), [archive], processes=2)


def test_the_lakes_thread_does_one_thing_at_a_time() -> None:
    done, goes_on = list[int](), threading.Event()
    with LakeThread() as thread:

        def first() -> None:
            assert goes_on.wait(30)
            done.append(1)

        thread.wait()
        thread.begin(first)
        assert done == []
        goes_on.set()
        thread.begin(lambda: done.append(2))
        assert done[0] == 1
        thread.begin(lambda: sys.exit("it cannot"))
        assert done == [1, 2]
        with pytest.raises(SystemExit):
            thread.wait()
        thread.wait()
        thread.begin(lambda: done.append(3))
    assert done == [1, 2, 3]

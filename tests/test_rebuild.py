"""Rebuild folds the lake's own events to what was written, and mends what was not."""

import copy
import random
import runpy
import shutil
import time
from datetime import date
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline.assemble.fold import FOREVER_US
from pipeline.durable import assembler_of
from pipeline.lake import Lake, LakeHistory, LakeSink
from pipeline.lake.compact import compact
from pipeline.normalise import Normaliser, Privacy
from pipeline.open_lake import open_lake
from pipeline.providers import providers
from pipeline.rebuild import rebuild

backfills = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_backfill.py")))
world, settings_of, calls_of, seen = (
    backfills.world, backfills.settings_of, backfills.calls_of, backfills.seen
)  # fmt: skip
ALL = (date(2000, 1, 1), date(2099, 1, 1))
write = backfills.write
HARSH = (0.1, 0.1, 0.1, 0.05)


@pytest.fixture(scope="module")
def lake_of_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of simulated calls; to be copied."""
    folder = tmp_path_factory.mktemp("calls")
    lines = world.simulated(150, 31, *HARSH)
    backfills.backfill(settings_of(folder / "lake"), [backfills.writing_to(folder)(lines)])
    return folder / "lake"


@pytest.fixture
def settings(tmp_path: Path, lake_of_calls: Path) -> Any:
    """The settings of a lake of simulated calls."""
    return settings_of(shutil.copytree(lake_of_calls, tmp_path / "lake"))


def of_a_call(settings: Any, condition: Any) -> tuple[str, Any]:
    history = LakeHistory(Lake(settings.lake))
    for key, past in sorted(history.remember(history.streams_between(*ALL)).items()):
        for record in past.records:
            if condition(record):
                return key, record
    raise AssertionError


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_sound_lake_is_left_alone(settings: Any, is_compacted: bool) -> None:
    if is_compacted:
        compact(settings.lake, 0)
        compact(settings.lake, 0)
    before = seen(settings.lake)
    done = rebuild(settings, *ALL)
    assert (done.records, done.retracted) == (0, 0)
    assert done.calls == len(calls_of(settings.lake)) == len(world.simulated_truth(150, 31, *HARSH))
    assert seen(settings.lake) == before


@pytest.mark.parametrize("is_compacted", [False, True])
def test_damaged_missing_and_invented_records_are_mended(settings: Any, is_compacted: bool) -> None:
    truth = world.simulated_truth(150, 31, *HARSH)
    key, record = of_a_call(settings, lambda r: r.state == "ended" and r.provider == "recho")
    _, gone = of_a_call(settings, lambda r: r.state == "ended" and r.provider == "whippy")
    agent, bus = of_a_call(settings, lambda r: r.provider == "aircall_bus")
    damaged = msgspec.structs.replace(record, outcome="busy", talk_seconds=-1.0, from_number="nonsense")
    never = msgspec.structs.replace(bus, call_key="aircall_bus:never", call_id="never")
    sink = LakeSink(Lake(settings.lake))
    sink.write_calls([], [(key, damaged), (agent, never)], [(gone.call_key, gone)], time.time_ns() // 1_000)
    if is_compacted:
        compact(settings.lake, 0)
        compact(settings.lake, 0)
    assert calls_of(settings.lake) != truth
    done = rebuild(settings, *ALL)
    assert (done.records, done.retracted) == (2, 1)
    assert calls_of(settings.lake) == truth
    assert rebuild(settings, *ALL).records == 0


def test_only_the_given_dates_are_folded(settings: Any) -> None:
    assert rebuild(settings, date(2026, 2, 1), date(2026, 2, 27)).calls == 0
    assert rebuild(settings, date(2026, 3, 2), date(2026, 3, 2)).calls > 0


def test_what_was_closed_by_timeout_stays_closed(tmp_path: Path, write: Any) -> None:
    settings, lines = settings_of(tmp_path / "lake"), world.simulated(100, 32, 0, 0, 0, 0.3)
    backfills.backfill(settings, [write(lines)], close_open=True)
    before = seen(settings.lake)
    for _ in range(2):
        assert rebuild(settings, *ALL).records == 0
        assert seen(settings.lake) == before
        compact(settings.lake, 0)
    assert calls_of(settings.lake) == world.expected(lines, close_open=True)


def test_the_stream_writes_what_rebuild_would(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "lake")
    backfills.backfill(settings, [])
    lake = Lake(settings.lake)
    history, sink = LakeHistory(lake), LakeSink(lake)
    worker = assembler_of(settings, history)
    lines = world.simulated(100, 33, *HARSH)
    for place, line in enumerate(lines):
        worker.add(0, world.events_of(line))
        if place % 100 == 0 or place == len(lines) - 1:
            # Caught up, so on the wall clock: a little later than the newest receipt.
            as_of_us = world.instant.from_text(line["received_at"]) + 3 * world.SECOND
            changes = worker.collect(lambda _, at=as_of_us: at)  # type: ignore[misc]
            sink.write_calls(changes.events, changes.records, changes.retracted, time.time_ns() // 1_000)
            history.note(key for key, _ in changes.records)
    before = calls_of(settings.lake)
    assert before == world.simulated_truth(100, 33, *HARSH)
    assert rebuild(settings, *ALL).records == 0
    changes = worker.collect(lambda _: FOREVER_US)
    sink.write_calls(changes.events, changes.records, changes.retracted, time.time_ns() // 1_000)
    assert rebuild(settings, *ALL).records == 0
    assert calls_of(settings.lake) == world.expected(lines, close_open=True)


def taken_in(root: Path, lines: Any, seed: int, flushes: int, privacy: Privacy = Privacy()) -> Any:  # noqa: B008
    """A lake as the stream writes it: batches of any size, restarts and compactions on the way; its settings."""
    dice = random.Random(seed)
    settings = settings_of(root, privacy_numbers=privacy.numbers, privacy_key=privacy.key.decode() or None)
    lake, normaliser = open_lake(root), Normaliser(providers(), privacy)
    sink = LakeSink(lake)
    borders = sorted({*dice.sample(range(1, len(lines)), flushes), len(lines)})
    start, newest_us = 0, 0
    worker = None
    for border in borders:
        if worker is None or dice.random() < 0.2:
            history = LakeHistory(lake)
            worker = assembler_of(settings, history)
            worker.restore(0, history.remember(history.open_streams()))
        webhooks = [world.webhook_of(line) for line in lines[start:border]]
        for webhook in webhooks:
            newest_us = max(newest_us, webhook.received_us)
            found = normaliser.events(webhook)
            assert isinstance(found, list)
            worker.add(0, found)
        now_us = time.time_ns() // 1_000
        sink.write_webhooks([normaliser.stored(webhook) for webhook in webhooks], now_us)
        changes = worker.collect(lambda _, at=newest_us: at)  # type: ignore[misc]
        sink.write_calls(changes.events, changes.records, changes.retracted, now_us)
        history.note(key for key, _ in changes.records)
        history.note(event.stream_key for event, call in changes.events if call is None)
        if dice.random() < 0.2:
            compact(root, 0)
        start = border
    return settings


def without_files(root: Path, *datasets: str) -> None:
    for dataset in datasets:
        for folder in ("hot", "sealed", "manifest"):
            for file in (root / dataset / folder).rglob("*.parquet"):
                file.unlink()


def records_in(root: Path) -> dict[str, list[str]]:
    """Every column of every call, ended and open."""
    return backfills.rows_in(root, "calls", "open_calls")


def cut_off(lines: Any) -> Any:
    """The lines up to the last one that begins a call which later ones go on with: that call is open then."""
    keys = [world.events_of(line)[0].stream_key if world.events_of(line) else "" for line in lines]
    begins = [
        n
        for n, key in enumerate(keys)
        if key[:6] == "intera" and key not in keys[:n] and key in keys[n + 1 :]
    ]
    return lines[: begins[-1] + 1]


@pytest.fixture(scope="module")
def as_the_stream_wrote_it(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Lakes, by seed, some of whose calls are open; to be copied."""

    @cache
    def made(seed: int) -> Path:
        lines = cut_off(world.simulated(80, seed, 0.2, 0.0, 0.2, 0.2))
        return Path(taken_in(tmp_path_factory.mktemp("stream") / "lake", lines, seed, 12).lake)

    return made


@pytest.mark.parametrize("seed", range(40, 42))
@pytest.mark.parametrize("is_compacted", [False, True])
def test_what_the_stream_wrote_comes_back_from_its_events_alone(
    tmp_path: Path, as_the_stream_wrote_it: Any, seed: int, is_compacted: bool
) -> None:
    settings = settings_of(shutil.copytree(as_the_stream_wrote_it(seed), tmp_path / "lake"))
    if is_compacted:
        compact(settings.lake, 0)
        compact(settings.lake, 0)
    before = records_in(settings.lake)
    assert len(before["calls"]) > 30
    assert before["open_calls"]
    assert rebuild(settings, *ALL).records == 0
    assert records_in(settings.lake) == before
    without_files(settings.lake, "calls", "call_revisions")
    done = rebuild(settings, *ALL)
    assert done.records == len(before["calls"]) + len(before["open_calls"])
    assert done.open_calls == len(before["open_calls"])
    assert records_in(settings.lake) == before
    assert rebuild(settings, *ALL).records == 0
    assert records_in(settings.lake) == before


@pytest.mark.parametrize("seed", range(50, 52))
def test_records_that_arrivals_out_of_order_pushed_up_come_back_from_their_revisions(
    tmp_path: Path, seed: int
) -> None:
    lines = world.shuffled(world.simulated(50, seed, 0.2, 0.3, 0.2, 0.2), seed, 0.2)
    settings = taken_in(tmp_path / "lake", lines, seed, 7)
    compact(settings.lake, 0)
    before = records_in(settings.lake)
    assert rebuild(settings, *ALL).records == 0
    assert records_in(settings.lake) == before
    without_files(settings.lake, "calls")
    rebuild(settings, *ALL)
    # An open call has no sealed revision: of those the numbers may be lower.
    assert records_in(settings.lake)["calls"] == before["calls"]


@pytest.mark.parametrize("numbers", ["mask", "hmac"])
def test_numbers_come_back_as_they_were_stored(tmp_path: Path, numbers: Any) -> None:
    privacy = Privacy(numbers, b"a key of some length" if numbers == "hmac" else b"")
    settings = taken_in(tmp_path / "lake", world.simulated(40, 61, *HARSH), 61, 4, privacy)
    before = records_in(settings.lake)
    without_files(settings.lake, "calls")
    rebuild(settings, *ALL)
    assert records_in(settings.lake) == before


def test_a_date_gives_back_its_calls_also_those_that_go_on_after_midnight(tmp_path: Path, write: Any) -> None:
    settings, lines = settings_of(tmp_path / "lake"), copy.deepcopy(world.simulated(80, 31))
    for line in lines:
        if line["provider"] == "freeclimb" and "callDuration" in line["body"]:
            # Of such a call nothing is known before its end, and that is a day later.
            line["body"]["callDuration"] = "90000"
    backfills.backfill(settings, [write(lines)])
    before = shown_calls(settings.lake)
    days = sorted({row["date"] for row in before.values()})
    assert len(days) > 1
    for day in days:
        without_files(settings.lake, "calls", "call_revisions")
        rebuild(settings, date.fromisoformat(day), date.fromisoformat(day))
        now = shown_calls(settings.lake)
        assert {key: row for key, row in before.items() if row["date"] == day}.items() <= now.items()
        assert now.items() <= before.items()


def shown_calls(root: Path) -> dict[str, Any]:
    return {key: {**row, "date": str(row["date"])} for key, row in calls_of(root).items()}


def test_parts_of_any_size_come_to_the_same(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = records_in(settings.lake)
    for size in (40, 300):
        monkeypatch.setattr("pipeline.rebuild.EVENTS_AT_ONCE", size)
        without_files(settings.lake, "calls", "call_revisions")
        shares: list[tuple[int, int]] = []
        rebuild(settings, *ALL, progress=lambda done, total: shares.append((done, total)))  # noqa: B023
        assert records_in(settings.lake) == before
        assert [done for done, _ in shares] == sorted({done for done, _ in shares})
        assert shares[-1][0] == shares[-1][1]


def test_folders_that_are_gone_come_back_with_their_calls(settings: Any) -> None:
    before = records_in(settings.lake)
    for dataset in ("calls", "call_revisions"):
        shutil.rmtree(settings.lake / dataset)
    rebuild(settings, *ALL)
    assert records_in(settings.lake) == before


def test_what_is_mended_counts_though_a_clock_was_ahead(settings: Any) -> None:
    before = records_in(settings.lake)
    key, record = of_a_call(settings, lambda r: r.state == "ended" and r.provider == "recho")
    damaged = msgspec.structs.replace(record, outcome="busy")
    ahead_us = time.time_ns() // 1_000 + 3_600 * world.SECOND
    LakeSink(Lake(settings.lake)).write_calls([], [(key, damaged)], [], ahead_us)
    assert records_in(settings.lake) != before
    assert rebuild(settings, *ALL).records == 1
    assert records_in(settings.lake) == before
    assert rebuild(settings, *ALL).records == 0


def test_what_is_going_on_is_closed_if_asked(tmp_path: Path, write: Any) -> None:
    settings, lines = settings_of(tmp_path / "lake"), world.simulated(100, 32, 0, 0, 0, 0.3)
    backfills.backfill(settings, [write(lines)])
    assert rebuild(settings, *ALL, close_open=True).open_calls == 0
    assert calls_of(settings.lake) == world.expected(lines, close_open=True)

"""Rebuild folds the lake's own events to what was written, and mends what was not."""

import runpy
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline.assemble.fold import FOREVER_US
from pipeline.backfill import assembler_of
from pipeline.lake import Lake, LakeHistory, LakeSink
from pipeline.lake.compact import compact
from pipeline.rebuild import rebuild

backfills = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_backfill.py")))
world, settings_of, calls_of, seen = (
    backfills.world, backfills.settings_of, backfills.calls_of, backfills.seen
)  # fmt: skip
ALL = (date(2000, 1, 1), date(2099, 1, 1))
write = backfills.write
HARSH = (0.1, 0.1, 0.1, 0.05)


@pytest.fixture
def settings(tmp_path: Path, write: Any) -> Any:
    """The settings of a lake of simulated calls."""
    found = settings_of(tmp_path / "lake")
    backfills.backfill(found, [write(world.simulated(300, 31, *HARSH))])
    return found


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
    assert done.calls == len(calls_of(settings.lake)) == len(world.simulated_truth(300, 31, *HARSH))
    assert seen(settings.lake) == before


@pytest.mark.parametrize("is_compacted", [False, True])
def test_damaged_missing_and_invented_records_are_mended(settings: Any, is_compacted: bool) -> None:
    truth = world.simulated_truth(300, 31, *HARSH)
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
    settings, lines = settings_of(tmp_path / "lake"), world.simulated(200, 32, 0, 0, 0, 0.3)
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
    lines = world.simulated(150, 33, *HARSH)
    for place, line in enumerate(lines):
        worker.add(0, world.events_of(line))
        if place % 150 == 0 or place == len(lines) - 1:
            # Caught up, so on the wall clock: a little later than the newest receipt.
            as_of_us = world.instant.from_text(line["received_at"]) + 3 * world.SECOND
            changes = worker.collect(lambda _, at=as_of_us: at)  # type: ignore[misc]
            sink.write_calls(changes.events, changes.records, changes.retracted, time.time_ns() // 1_000)
            history.note(key for key, _ in changes.records)
    before = calls_of(settings.lake)
    assert before == world.simulated_truth(150, 33, *HARSH)
    assert rebuild(settings, *ALL).records == 0
    changes = worker.collect(lambda _: FOREVER_US)
    sink.write_calls(changes.events, changes.records, changes.retracted, time.time_ns() // 1_000)
    assert rebuild(settings, *ALL).records == 0
    assert calls_of(settings.lake) == world.expected(lines, close_open=True)

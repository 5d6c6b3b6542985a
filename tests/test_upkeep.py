"""Upkeep does what is due, once however many do it, and goes on after a failure."""

import json
import logging
import runpy
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import upkeep as upkeep_module
from pipeline.errors import CallfoldError
from pipeline.lake import Lake
from pipeline.report import build, schedule
from pipeline.upkeep import Upkeep

backfills = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_backfill.py")))
world, settings_of = backfills.world, backfills.settings_of
SIX = datetime(2026, 3, 5, 6, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small lake."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "webhooks.ndjson").write_text(
        "".join(f"{json.dumps(line)}\n" for line in world.simulated(40, 1))
    )
    backfills.backfill(settings_of(folder / "lake"), [folder / "webhooks.ndjson"])
    return folder / "lake"


@pytest.fixture
def settings(tmp_path: Path, filled: Path) -> Any:
    """The settings of a small lake and of a report every day at six."""
    return settings_of(
        shutil.copytree(filled, tmp_path / "lake"),
        report_cron="0 6 * * *",
        report_format="md",
        compact_seconds=10 * DAY,
    )


@pytest.fixture(autouse=True)
def without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a report says is not looked at here; without the checks it takes half the time."""
    monkeypatch.setattr(build, "run_checks", lambda _: [])


def reports(settings: Any) -> list[str]:
    return sorted(path.name for path in (settings.lake / "reports").glob("*"))


def several(settings: Any, count: int = 3) -> list[Upkeep]:
    return [Upkeep(settings, Lake(settings.lake)) for _ in range(count)]


def test_of_several_workers_each_period_gets_one_report(settings: Any) -> None:
    workers = several(settings)
    for hours in range(-2, 50):
        for number, worker in enumerate(workers):
            worker.tick(SIX + hours * HOUR + number * 20)
    assert reports(settings) == ["2026-03-03.md", "2026-03-04.md", "2026-03-05.md", "2026-03-06.md"]


def test_workers_that_tick_at_other_times_mean_the_same_report_of_a_period_that_still_fills(
    settings: Any,
) -> None:
    settings = backfills.dataclasses.replace(settings, report_period="today")
    for number, worker in enumerate(several(settings)):
        worker.tick(SIX + number * 61)
    assert reports(settings) == ["2026-03-05-at-20260305T0600.md"]


def test_a_report_that_failed_is_tried_again_at_the_next_tick(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (worker,) = several(settings, 1)
    with monkeypatch.context() as broken:
        broken.setattr(schedule, "write_once", _fail)
        with caplog.at_level(logging.WARNING):
            worker.tick(SIX)
    assert "report failed, it will be tried again: the lake is away" in caplog.text
    assert reports(settings) == []
    worker.tick(SIX + 60)
    assert reports(settings) == ["2026-03-04.md"]


def test_what_is_written_is_not_built_again(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (worker,) = several(settings, 1)
    worker.tick(SIX)
    monkeypatch.setattr(schedule, "write_once", _fail)
    worker.tick(SIX + HOUR)
    assert worker._reported == datetime.fromtimestamp(SIX, UTC)


def test_without_a_schedule_there_is_no_report(settings: Any) -> None:
    worker = Upkeep(backfills.dataclasses.replace(settings, report_cron=None), Lake(settings.lake))
    worker.tick(SIX)
    assert reports(settings) == []


def test_the_lake_is_compacted_every_so_often_and_a_failure_stops_nothing(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = backfills.dataclasses.replace(settings, report_cron=None, compact_seconds=300.0)
    compacted: list[tuple[Path, float]] = []

    def compact(*told: Any) -> None:
        compacted.append(told)
        if len(compacted) == 1:
            _fail()

    monkeypatch.setattr(upkeep_module, "compact", compact)
    worker = Upkeep(settings, Lake(settings.lake))
    for second in range(0, 1000, 60):
        worker.tick(SIX + second)
    assert compacted == [(settings.lake, 120.0)] * 3
    assert "compaction failed, it will be tried again: the lake is away" in caplog.text


def _fail(*_: Any) -> None:
    raise CallfoldError("the lake is away")


def test_of_several_workers_one_compacts_in_an_interval(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = backfills.dataclasses.replace(settings, compact_seconds=HOUR, report_cron=None)
    done: list[int] = []
    compact = upkeep_module.compact

    def counted(*options: Any) -> Any:
        found = compact(*options)
        done.append(found.merged)
        return found

    monkeypatch.setattr(upkeep_module, "compact", counted)
    workers = several(settings)
    for number, worker in enumerate(workers):
        worker.tick(SIX + number)
    for number, worker in enumerate(workers):
        worker.tick(SIX + HOUR + number)
    assert len(done) == 1
    assert done[0] > 0


def test_a_clock_that_is_set_back_does_not_stop_compaction(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = backfills.dataclasses.replace(settings, compact_seconds=HOUR, report_cron=None)
    done: list[object] = []
    monkeypatch.setattr(upkeep_module, "compact", lambda *options: done.append(options))
    (worker,) = several(settings, 1)
    worker.tick(SIX + DAY)
    worker.tick(SIX)
    worker.tick(SIX + HOUR)
    assert len(done) == 1

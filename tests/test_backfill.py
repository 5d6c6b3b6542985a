"""Backfill comes to the oracle's truth in every column, however the archive is cut up, repeated or interrupted."""

import dataclasses
import gzip
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import backfill as backfill_module
from pipeline import backfill_pass
from pipeline.backfill import backfill
from pipeline.lake.compact import compact
from pipeline.providers import provider_names
from pipeline.settings import Settings, load_settings

TESTS = Path(__file__).parent
world = SimpleNamespace(**runpy.run_path(str(TESTS / "assemble" / "world.py")))
shown = SimpleNamespace(**runpy.run_path(str(TESTS / "lake" / "conftest.py")))
HARSH = (0.1, 0.1, 0.1, 0.05)
WHOLE = ("calls", "open_calls", "webhooks", "quarantine")
"""What a lake shows but for its revisions, and for which receipt of an event was stored."""

Write = Callable[..., Path]


def settings_of(lake: Path, **changes: Any) -> Settings:
    plain = load_settings({"lake": lake}, {}, Path(os.devnull), provider_names())
    return dataclasses.replace(plain, **changes)


calls_of = shown._calls_of
seen = shown._seen


def rows_in(lake: Path, *views: str) -> dict[str, list[str]]:
    """What these views show, in an order of its own."""
    return {
        view: sorted(map(repr, zip(*map(shown._values, table.columns), strict=True)))
        for view, table in shown._tables(lake, views).items()
    }


def writing_to(folder: Path) -> Write:
    def write(lines: Sequence[Any], name: str = "webhooks.ndjson") -> Path:
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        path = folder / name
        path.write_bytes(gzip.compress(text, 1) if name.endswith(".gz") else text)
        return path

    return write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes archives."""
    return writing_to(tmp_path)


@pytest.mark.parametrize(
    ("calls", "seed", "shares"), [(600, 14, HARSH), (200, 12, ()), (300, 13, (0.3, 0.3, 0.3, 0.2))]
)
def test_simulated_calls_come_to_the_truth_and_a_second_run_changes_nothing(
    tmp_path: Path, write: Write, calls: int, seed: int, shares: tuple[float, ...]
) -> None:
    lines, truth = world.simulated(calls, seed, *shares), world.simulated_truth(calls, seed, *shares)
    archive, settings = write(lines), settings_of(tmp_path / "lake")
    done = backfill(settings, [archive])
    assert (done.webhooks, done.quarantined, done.unreadable) == (len(lines), 0, 0)
    assert calls_of(settings.lake) == truth
    assert done.open_calls == sum(row["state"] != "ended" for row in truth.values())
    before = seen(settings.lake)
    assert len(before["webhooks"]) == len({json.dumps(line, sort_keys=True) for line in lines})
    again = backfill(settings, [archive])
    assert (again.events, again.records, again.retracted) == (0, 0, 0)
    assert seen(settings.lake) == before


def test_many_flushes_on_the_way_come_to_the_same(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = world.simulated(100, 21, *HARSH)
    monkeypatch.setattr(backfill_module, "WEBHOOKS_A_FLUSH", 75)
    monkeypatch.setattr(backfill_pass, "ROWS_A_FILE", 200)
    backfill(settings_of(tmp_path / "lake"), [write(lines)])
    assert calls_of(tmp_path / "lake") == world.simulated_truth(100, 21, *HARSH)


@pytest.mark.parametrize("is_one_command", [True, False])
@pytest.mark.parametrize("is_reversed", [True, False])
def test_an_archive_in_two_files_comes_to_the_same_in_either_order(
    tmp_path: Path, write: Write, is_one_command: bool, is_reversed: bool
) -> None:
    lines = world.simulated(100, 22, *HARSH)
    files = [write(lines[: len(lines) // 2], "a.ndjson.gz"), write(lines[len(lines) // 2 :], "b.ndjson")]
    files.reverse() if is_reversed else None
    settings = settings_of(tmp_path / "lake")
    for command in [files] if is_one_command else [[file] for file in files]:
        backfill(settings, command)
    found, truth = calls_of(settings.lake), world.simulated_truth(100, 22, *HARSH)
    assert world.without(found, "revision") == world.without(truth, "revision")
    for key, row in found.items():
        if is_one_command or not (is_reversed or row["provider"] == "aircall_bus"):
            assert row["revision"] == truth[key]["revision"]
        # What was published in between had more events, or an agent's were cut otherwise: the number stays up.
        assert row["revision"] >= truth[key]["revision"]


def test_lines_in_any_order_come_to_the_truth(tmp_path: Path, write: Write) -> None:
    lines = world.simulated(100, 23, *HARSH)
    backfill(settings_of(tmp_path / "lake"), [write(world.shuffled(lines, 5, 0.2))])
    assert calls_of(tmp_path / "lake") == world.simulated_truth(100, 23, *HARSH)


def test_calls_that_never_ended_are_closed_when_asked_and_stay_closed(tmp_path: Path, write: Write) -> None:
    lines = world.simulated(100, 24, 0, 0, 0, 0.3)
    archive, settings = write(lines), settings_of(tmp_path / "lake")
    backfill(settings, [archive])
    assert shown._views(settings.lake, "open_calls")["open_calls"]
    done = backfill(settings, [archive], close_open=True)
    truth = world.expected(lines, close_open=True)
    assert (done.open_calls, calls_of(settings.lake)) == (0, truth)
    for close_open in (True, False):
        before = seen(settings.lake)
        again = backfill(settings, [archive], close_open=close_open)
        assert (again.records, seen(settings.lake)) == (0, before)


def test_a_compaction_between_two_archives_changes_nothing(tmp_path: Path, write: Write) -> None:
    lines = world.simulated(120, 25, *HARSH)
    settings = settings_of(tmp_path / "lake")
    for place in range(3):
        part = lines[place * len(lines) // 3 : (place + 1) * len(lines) // 3]
        backfill(settings, [write(part, f"{place}.ndjson")])
        compact(settings.lake, 0)
    compact(settings.lake, 0)
    assert calls_of(settings.lake) == world.simulated_truth(120, 25, *HARSH)


def test_without_the_archive_setting_no_webhook_is_kept(tmp_path: Path, write: Write) -> None:
    lines = world.simulated(40, 1)
    backfill(settings_of(tmp_path / "lake", archive_webhooks=False), [write(lines)])
    assert shown._views(tmp_path / "lake", "webhooks")["webhooks"] == []
    assert calls_of(tmp_path / "lake") == world.simulated_truth(40, 1)


def test_every_line_ends_as_events_in_the_quarantine_or_is_named(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = world.simulated(40, 1)
    strange = {"provider": "recho", "received_at": lines[0]["received_at"], "body": {"no": "call"}}
    archive = write([*lines, strange, strange])
    archive.write_text(archive.read_text() + '{"provider": "recho"\n')
    done = backfill(settings_of(tmp_path / "lake"), [archive])
    assert (done.webhooks, done.quarantined, done.unreadable) == (len(lines) + 2, 2, 1)
    assert f"webhooks.ndjson:{len(lines) + 3}: " in capsys.readouterr().err
    found = shown._views(tmp_path / "lake", "quarantine")
    assert len(found["quarantine"]) == 1, "the same line twice is one webhook"
    assert calls_of(tmp_path / "lake") == world.simulated_truth(40, 1)


def written(lake: Path) -> int:
    return sum(path.name != "0-schema.parquet" for path in lake.glob("*/hot/*.parquet"))


def test_wherever_it_is_killed_the_next_run_comes_to_the_undisturbed_result(
    tmp_path: Path, write: Write
) -> None:
    lines = world.simulated(400, 11, *HARSH)
    archive, lake = write(lines), tmp_path / "lake"
    # Flushes every few hundred events, so that there is something to tear.
    program = (
        "import sys; from pipeline import backfill, backfill_pass, cli; "
        "backfill.WEBHOOKS_A_FLUSH, backfill_pass.ROWS_A_FILE = 270, 200; sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", program, "backfill", str(archive), "--lake", str(lake)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    dice, killed = random.Random(3), 0
    for _ in range(3):
        process = subprocess.Popen(
            [*arguments, "--config", os.devnull],
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 20
        # Not before the lake itself is there, which a folder of no more than schemas is not.
        files = written(lake) + dice.randint(1, 6)
        while time.monotonic() < until and written(lake) < files:
            if process.poll() is not None:
                break
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        calls_of(lake)
    assert killed >= 2
    backfill(settings_of(lake), [archive])
    assert calls_of(lake) == world.simulated_truth(400, 11, *HARSH)
    found, pairs = rows_in(lake, *WHOLE), shown._views(lake, "call_events")["call_events"]
    assert len(found["webhooks"]) == len({json.dumps(line, sort_keys=True) for line in lines})
    calm = settings_of(tmp_path / "calm")
    backfill(calm, [archive])
    assert found == rows_in(calm.lake, *WHOLE)
    assert {row["event_id"]: row["call_key"] for row in pairs} == {
        row["event_id"]: row["call_key"] for row in shown._views(calm.lake, "call_events")["call_events"]
    }

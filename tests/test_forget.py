"""Forgetting a person erases every trace, leaves all others as they are, and can be stopped anywhere."""

import dataclasses
import json
import runpy
import shutil
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import msgspec
import pytest

from pipeline.assemble.fold import FOREVER_US
from pipeline.cli import main
from pipeline.durable import assembler_of
from pipeline.errors import CallfoldError, UserError
from pipeline.forget import Wanted, forget
from pipeline.lake import Lake, LakeHistory, LakeSink
from pipeline.lake.compact import compact
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.open_lake import open_lake
from pipeline.privacy import privacy_of
from pipeline.providers import providers
from pipeline.rebuild import rebuild
from pipeline.storage.folder import Folder

rebuilds = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_rebuild.py")))
backfills, world, settings_of, seen = (
    rebuilds.backfills, rebuilds.world, rebuilds.settings_of, rebuilds.seen
)  # fmt: skip
write, ALL = backfills.write, rebuilds.ALL
HARSH = (0.15, 0.1, 0.2, 0.1)
HOW = ["hot", "sealed", "both"]
SHOWN = ("calls", "open_calls", "call_revisions", "call_events")


def filled(root: Path, write: Any, lines: list[Any], how: str, **changes: Any) -> Any:
    """A lake of these webhooks: as they were written, merged, or merged and some written again."""
    settings = settings_of(root, compact_grace_seconds=0.0, **changes)
    backfills.backfill(settings, [write(lines)], close_open=True)
    if how != "hot":
        compact(root, 0)
        compact(root, 0)
    if how == "both":
        rebuilds.without_files(root, "calls")
        rebuild(settings, *ALL, close_open=True)
        compact(root, 1000)  # merged files stay for their grace
    return settings


@pytest.fixture(scope="module")
def filled_before(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Copies of lakes as `filled` makes them, each of which is made once."""

    @cache
    def made(calls: int, seed: int, how: str) -> Path:
        folder = tmp_path_factory.mktemp(f"{seed}-{how}")
        filled(folder / "lake", backfills.writing_to(folder), world.simulated(calls, seed, *HARSH), how)
        return folder / "lake"

    def copied(root: Path, calls: int, seed: int, how: str) -> Any:
        shutil.copytree(made(calls, seed, how), root)
        return settings_of(root, compact_grace_seconds=0.0)

    return copied


def rows_without(root: Path, calls: Iterable[str], events: Iterable[str] = ()) -> dict[str, list[str]]:
    """What the views of calls and events show, but for these."""
    gone, emptied = set(calls), set(events)
    found = {}
    for view, table in backfills.shown._tables(root, SHOWN).items():
        ids = table["event_id" if view == "call_events" else "call_key"].to_pylist()
        rows = zip(*map(backfills.shown._values, table.columns), strict=True)
        of = zip(table["call_key"].to_pylist(), ids, map(repr, rows), strict=True)
        found[view] = sorted(row for call, event, row in of if call not in gone and event not in emptied)
    return found


def texts_below(root: Path) -> str:
    """Everything that stands in any file below the lake, as text; read by another engine than the one that erases."""
    told = []
    with duckdb.connect() as connection:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            if file.suffix == ".parquet":
                rows = connection.read_parquet(str(file), hive_partitioning=False).fetchall()
                told += [repr(row) for row in rows]
            else:
                told.append(file.read_bytes().decode("utf-8", "replace"))
    return "\n".join(told)


def calls_of(root: Path, condition: str) -> list[tuple[Any, ...]]:
    rows = backfills.calls_of(root).values()
    return [row for row in rows if condition in (row["provider"], row["call_key"])]


def events_of(root: Path, *keys: str) -> list[str]:
    rows = backfills.shown._views(root, "call_events")["call_events"]
    return [row["event_id"] for row in rows if row["call_key"] in keys]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("provider", sorted(providers()))
def test_a_call_goes_and_all_others_stay_as_they_are(
    tmp_path: Path, filled_before: Any, provider: str, how: str
) -> None:
    settings = filled_before(tmp_path / "lake", 40, 71, how)
    calls = calls_of(settings.lake, provider)
    key = sorted(row["call_key"] for row in calls)[len(calls) // 2]
    legs = [row["call_key"] for row in calls if row["parent_call_id"] == key.partition(":")[2]]
    events = events_of(settings.lake, key, *legs)
    before = rows_without(settings.lake, [key, *legs], events)
    told = forget(settings, Wanted(calls=(key,)))
    assert told.proof is not None
    assert (told.proof.left, told.found.calls) == (0, {key, *legs})
    after = rows_without(settings.lake, [], events)
    assert after == before
    assert key.partition(":")[2] not in texts_below(settings.lake)
    # What is left of an agent's events folds the others to what they were, also when all records are gone.
    rebuilds.without_files(settings.lake, "calls", "call_revisions")
    rebuild(settings, *ALL, close_open=True)
    again = rows_without(settings.lake, [], events)
    assert {view: again[view] for view in ("calls", "open_calls")} == {
        view: before[view] for view in ("calls", "open_calls")
    }


@pytest.mark.parametrize("seed", range(80, 83))
def test_the_other_calls_of_an_agent_are_what_they_were(tmp_path: Path, write: Any, seed: int) -> None:
    lines = [
        line for line in world.simulated(60, seed, 0.2, 0.2, 0.3, 0.2) if line["provider"] == "aircall_bus"
    ]
    settings = filled(tmp_path / "lake", write, world.shuffled(lines, seed), "sealed")
    keys = sorted(row["call_key"] for row in calls_of(settings.lake, "aircall_bus"))
    assert len(keys) > 5
    before = backfills.calls_of(settings.lake)
    for key in keys[seed % 3 :: 3]:
        found = forget(settings, Wanted(calls=(key,))).found
        before = {call: row for call, row in before.items() if call not in found.calls}
        assert rebuild(settings, *ALL, close_open=True).records == 0
        assert backfills.calls_of(settings.lake) == before


def phone_of(settings: Any) -> str:
    """A number that several calls have."""
    rows = backfills.shown._views(settings.lake, "calls")["calls"]
    numbers = [row["from_number"] for row in rows if row["from_number"] and row["from_number"][0] == "+"]
    return max(sorted(set(numbers)), key=numbers.count)


@pytest.mark.parametrize("how", HOW)
def test_a_number_goes_from_everywhere_and_does_not_come_back(
    tmp_path: Path, write: Any, filled_before: Any, how: str
) -> None:
    lines = world.simulated(40, 71, *HARSH)
    settings = filled_before(tmp_path / "lake", 40, 71, how)
    number = phone_of(settings)
    mine = {
        row["call_key"] for row in backfills.calls_of(settings.lake).values()
        if number in (row["from_number"], row["to_number"])
    }  # fmt: skip
    assert len(mine) > 1
    told = forget(settings, Wanted((f"{number[:3]} ({number[3:5]}) {number[5:]}",)))
    assert told.proof is not None
    assert told.proof.left == 0
    assert mine <= told.found.calls
    assert number[1:] not in texts_below(settings.lake)
    before = seen(settings.lake)
    assert forget(settings, Wanted((number,))).found.calls == set()
    # The archive once more, all of it folded again, and a worker that still holds everything in memory.
    backfills.backfill(settings, [write(lines)], close_open=True)
    rebuild(settings, *ALL, close_open=True)
    late = [
        {**line, "received_at": "2026-05-01T00:00:00Z"} for line in lines
        if any(e.stream_key in told.found.calls or e.event_id in told.found.events for e in world.events_of(line))
    ]  # fmt: skip
    assert late
    backfills.backfill(settings, [write(late, "late.ndjson")], close_open=True)
    worker = assembler_of(settings, LakeHistory(Lake(settings.lake)))
    for line in lines:
        worker.add(0, world.events_of(line))
    changes = worker.collect(lambda _: FOREVER_US)
    sink = LakeSink(Lake(settings.lake))
    sink.write_calls(changes.events, changes.records, changes.retracted, time.time_ns() // 1_000)
    assert seen(settings.lake) == before
    compact(settings.lake, 0)
    assert seen(settings.lake) == before
    assert number[1:] not in texts_below(settings.lake)


def test_a_worker_that_is_running_writes_nothing_of_it_any_more(tmp_path: Path) -> None:
    lines = world.simulated(60, 73)
    lines = [line for line in lines if line["provider"] == "interactly"]
    settings = settings_of(tmp_path / "lake", compact_grace_seconds=0.0)
    lake = open_lake(settings.lake)
    history, sink = LakeHistory(lake), LakeSink(lake)
    worker = assembler_of(settings, history)
    going_on = max((world.events_of(line)[0].stream_key for line in lines), key=lambda key: sum(
        world.events_of(line)[0].stream_key == key for line in lines
    ))  # fmt: skip
    half = 1 + next(n for n, line in enumerate(lines) if world.events_of(line)[0].stream_key == going_on)
    for part in (lines[:half], lines[half:]):
        for line in part:
            worker.add(0, world.events_of(line))
        changes = worker.collect(lambda _: 0)
        sink.write_calls(changes.events, changes.records, changes.retracted, time.time_ns() // 1_000)
        if part == lines[:half]:
            with pytest.raises(CallfoldError, match="still going on") as refused:
                forget(settings, Wanted(calls=(going_on,)))
            assert going_on in str(refused.value)
            assert going_on in backfills.calls_of(settings.lake)
            forget(settings, Wanted(calls=(going_on,)), force=True)
    assert going_on not in backfills.calls_of(settings.lake)
    assert len(backfills.calls_of(settings.lake)) == len(world.expected(lines)) - 1
    assert going_on.partition(":")[2] not in texts_below(settings.lake)


class Stopped(BaseException):
    """As sudden as a kill."""


@pytest.mark.parametrize(("how", "step"), [("hot", 3), ("both", 6)])
def test_stopped_anywhere_it_loses_nothing_else_and_the_next_run_completes_it(
    tmp_path: Path, filled_before: Any, how: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = filled_before(tmp_path / "whole", 25, 74, how)
    number = phone_of(settings)
    copy = settings_of(tmp_path / "done", compact_grace_seconds=0.0)
    shutil.copytree(settings.lake, copy.lake)
    found = forget(copy, Wanted((number,))).found
    others = rows_without(copy.lake, [], found.events)
    put, unlink = Folder.put, Path.unlink
    stops = 0
    for place in range(1, 200, step):
        copy = settings_of(tmp_path / f"copy-{place}", compact_grace_seconds=0.0)
        shutil.copytree(settings.lake, copy.lake)
        left = place

        def stop_at(act: Callable[..., Any]) -> Callable[..., Any]:
            def stopping(*given: Any, **named: Any) -> Any:
                nonlocal left
                is_temporary = act is unlink and "_tmp" in str(given[0])
                left -= not is_temporary
                if left == 0:
                    raise Stopped
                return act(*given, **named)

            return stopping

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "put", stop_at(put))
            patch.setattr(Path, "unlink", stop_at(unlink))
            try:
                forget(copy, Wanted((number,)))
            except Stopped:
                stops += 1
            else:
                break
        now = rows_without(copy.lake, found.calls, found.events)
        assert {view: set(rows) for view, rows in now.items()} == {v: set(rows) for v, rows in others.items()}
        if stops % 2:
            compact(copy.lake, 0)
        told = forget(copy, Wanted((number,)))
        assert told.proof is not None
        assert told.proof.left == 0
        assert rows_without(copy.lake, [], found.events) == others
        assert number[1:] not in texts_below(copy.lake)
        shutil.rmtree(copy.lake)
    assert stops >= 3


def test_hashed_numbers_are_found_by_their_hash(tmp_path: Path, write: Any) -> None:
    key = {"privacy_numbers": "hmac", "privacy_key": "a key of some length"}
    settings = filled(tmp_path / "lake", write, world.simulated(80, 75), "sealed", **key)
    plain = filled(tmp_path / "plain", write, world.simulated(80, 75), "hot")
    number = phone_of(plain)
    hashed = privacy_of(settings).number(number)
    assert hashed
    assert hashed in texts_below(settings.lake)
    told = forget(settings, Wanted((number,)))
    assert told.found.calls == forget(plain, Wanted((number,))).found.calls
    assert hashed not in texts_below(settings.lake)


def test_masked_numbers_are_nobodys(tmp_path: Path, write: Any) -> None:
    settings = filled(tmp_path / "lake", write, world.simulated(20, 76), "hot", privacy_numbers="mask")
    before = seen(settings.lake)
    with pytest.raises(UserError, match="four digits are not a person"):
        forget(settings, Wanted(("+49 30 1234567",)))
    assert seen(settings.lake) == before


NUMBER = "+49301234567"


def test_texts_that_name_the_number_go_and_the_calls_that_they_are_about_stay(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "lake", compact_grace_seconds=0.0)
    sink, normaliser = LakeSink(open_lake(settings.lake)), Normaliser(providers(), privacy_of(settings))
    bodies = [
        {"note": "call 0049 30 / 123 45-67 back"}, {"n": 49301234567}, {"link": "https://a.b/?n=%2B49%2030%201234567"},
        {"in": json.dumps({"from": "+49 (0)30 1234567"})},
    ]  # fmt: skip
    spelt = [json.dumps(body).encode() for body in bodies] + [b'{"a": "\\u002b49301234567"}']
    other = [b'{"note": "+49 30 1234568"}', b'{"id": "1493012345670"}']
    hooks = [
        Webhook("recho", 1_772_409_600_000_000 + place, body) for place, body in enumerate(spelt + other)
    ]
    hooks.append(Webhook("recho", 1, b"{}", {}, {"caller": NUMBER}))
    sink.write_webhooks([normaliser.stored(hook) for hook in hooks], 1)
    why = Rejection("normalise", "not_json", None, "made up")
    broken = [
        b"from=+49301234567&",
        '{"from": "+49301234567"'.encode("utf-16"),
        b"\xff\xfe\x00+49301234567",
        b"none",
    ]
    kept = [Webhook("recho", 5 + place, body) for place, body in enumerate(broken)]
    sink.write_quarantine([StoredRejection(*normaliser.stored(hook), why) for hook in kept], 1)
    told = forget(settings, Wanted(("+49 30 1234567",)))
    assert told.proof is not None
    assert told.proof.left == 0
    views = backfills.shown._views(settings.lake, "webhooks", "quarantine")
    assert sorted(row["body"] for row in views["webhooks"]) == sorted(body.decode() for body in other)
    assert len(views["quarantine"]) == 1


def test_it_is_not_done_while_a_trace_is_left(
    tmp_path: Path, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = filled(tmp_path / "lake", write, world.simulated(30, 77), "hot")
    number = phone_of(settings)
    (settings.lake / "reports").mkdir()
    (settings.lake / "reports" / "mine.csv").write_text(f"who\n{number}\n")
    (settings.lake / "_tmp" / "half.parquet").write_bytes(b"PAR1 and no more")
    arguments = ["forget", "--number", number, "--yes", "--now", "--lake", str(settings.lake)]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "2 traces left" in said.out
    assert "reports/mine.csv" in said.err
    assert "_tmp/half.parquet cannot be read" in said.err
    (settings.lake / "reports" / "mine.csv").unlink()
    (settings.lake / "_tmp" / "half.parquet").unlink()
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "0 traces left" in said.out
    assert number[1:] not in said.out + said.err
    accounts = sorted((settings.lake / "_forgotten").glob("*.json"))
    assert [msgspec.json.decode(file.read_bytes())["traces_left"] for file in accounts] == [2, 0]
    assert number[3:] not in texts_below(settings.lake)


def test_a_dry_run_and_a_run_that_nobody_agreed_to_change_nothing(
    tmp_path: Path, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = filled(tmp_path / "lake", write, world.simulated(30, 78), "both")
    number, before = phone_of(settings), sorted(settings.lake.rglob("*"))
    arguments = ["forget", "--number", number, "--lake", str(settings.lake)]
    assert main([*arguments, "--dry-run"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "--yes" in capsys.readouterr().err
    assert sorted(settings.lake.rglob("*")) == before
    for wrong, says in (("12", "number 1 is no telephone number"), ("nonsense", "number 1 is no")):
        assert main(["forget", "--number", wrong, "--yes", "--lake", str(settings.lake)]) == 2
        assert says in capsys.readouterr().err
    assert main(["forget", "--call", "nobody:1", "--yes", "--lake", str(settings.lake)]) == 2
    assert main(["forget", "--yes", "--lake", str(settings.lake)]) == 2
    assert sorted(settings.lake.rglob("*")) == before


def test_old_files_stay_for_their_readers_grace(tmp_path: Path, write: Any) -> None:
    settings = filled(tmp_path / "lake", write, world.simulated(30, 79), "sealed")
    patient = dataclasses.replace(settings, compact_grace_seconds=1.0)
    old = set(settings.lake.rglob("date=*/*.parquet"))
    seen_while_waiting: list[bool] = []
    number = phone_of(settings)
    told = forget(
        patient, Wanted((number,)), say=lambda _: seen_while_waiting.append(all(f.exists() for f in old))
    )
    assert seen_while_waiting == [True]
    assert told.proof is not None
    assert told.proof.left == 0
    assert not old <= set(settings.lake.rglob("date=*/*.parquet"))

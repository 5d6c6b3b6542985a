"""Replay takes out of the quarantine what the code understands now, and leaves the rest."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.lake import LakeSink
from pipeline.lake.compact import compact
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, Webhook
from pipeline.normalise.normaliser import webhook_id
from pipeline.open_lake import open_lake
from pipeline.providers import providers
from pipeline.quarantine import Wanted
from pipeline.replay import UNDERSTOOD, Outcome, replay

backfills = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_backfill.py")))
world, settings_of, calls_of, seen, write = (
    backfills.world, backfills.settings_of, backfills.calls_of, backfills.seen, backfills.write
)  # fmt: skip
LINES = world.simulated(60, 41, 0.1, 0.1, 0.1, 0)


HARSH = (0.1, 0.1, 0.1, 0.05)

Fails = Callable[[Webhook], bool]


@pytest.fixture(scope="module")
def without_whippy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake whose whippy webhooks were not understood, some of them for ever; to be copied."""
    folder = tmp_path_factory.mktemp("whippy")
    hopeless = {"provider": "whippy", "received_at": LINES[0]["received_at"], "body": {"event": "call.ended"}}
    archive = backfills.writing_to(folder)([*LINES, hopeless])
    return Path(broken_lake(folder / "lake", archive, lambda hook: hook.provider == "whippy").lake)


@pytest.fixture
def settings(tmp_path: Path, without_whippy: Path) -> Any:
    """The settings of a lake whose whippy webhooks were not understood, some of them for ever."""
    return settings_of(shutil.copytree(without_whippy, tmp_path / "lake"))


def broken_lake(lake: Path, archive: Path, fails: Fails, **told: Any) -> Any:
    """The settings of a lake that was written by code which fails on some webhooks."""
    found = settings_of(lake, **told)
    with pytest.MonkeyPatch.context() as patch:
        _break(patch, fails)
        backfills.backfill(found, [archive])
    return found


def _break(patch: pytest.MonkeyPatch, fails: Fails) -> None:
    from pipeline import backfill, backfill_pass

    def failing(understand: Any) -> Any:
        def events(webhook: Webhook) -> Any:
            if fails(webhook):
                raise KeyError("a mistake of ours")
            return understand(webhook)

        return events

    broken = {name: known._replace(events=failing(known.events)) for name, known in providers().items()}
    for module in (backfill, backfill_pass):
        patch.setattr(module, "providers", lambda: broken)


def are_the_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same calls in every column; the revision of a bus call may be higher."""
    assert world.without(found, "revision") == world.without(expected, "revision")
    for key, row in found.items():
        # Without the events in quarantine the agent's stream was cut otherwise: a number never goes down again.
        assert row["revision"] >= expected[key]["revision"]
        if row["provider"] != "aircall_bus":
            assert row["revision"] == expected[key]["revision"]


def quarantined_in(lake: Path) -> list[str]:
    return list(backfills.rows_in(lake, "quarantine")["quarantine"])


def every_second(webhook: Webhook) -> bool:
    """Half of the webhooks of every provider; of a webhook that came twice perhaps only one."""
    return int(webhook_id(webhook)[:4], 16) % 2 == 0


def test_what_is_understood_now_leaves_the_quarantine_and_becomes_calls(settings: Any) -> None:
    whippy = {str(line) for line in LINES if line["provider"] == "whippy"}
    before = seen(settings.lake)
    assert len(before["quarantine"]) == len(whippy) + 1
    assert "internal_error" in before["quarantine"][0]
    done = replay(settings)
    assert (done.webhooks.total(), done.quarantined) == (len(whippy) + 1, 1)
    assert calls_of(settings.lake) == world.simulated_truth(60, 41, 0.1, 0.1, 0.1, 0)
    after = seen(settings.lake)
    assert len(after["quarantine"]) == 1
    assert after["webhooks"] == before["webhooks"], "they were archived when they came"


def test_a_dry_run_tells_what_would_change_and_changes_nothing(settings: Any) -> None:
    files = {path: path.stat().st_mtime_ns for path in settings.lake.rglob("*")}
    dry = replay(settings, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in settings.lake.rglob("*")} == files
    done = replay(settings)
    assert (dry.webhooks, dry.events) == (done.webhooks, done.events)
    told = Outcome("whippy", "internal_error", UNDERSTOOD, None)
    stays = Outcome("whippy", "internal_error", "bad_shape", "data")
    assert set(dry.webhooks) == {told, stays}
    assert dry.events[told] >= done.written.events > 0, "some had been delivered twice"
    assert str(dry).endswith("1 would stay; nothing was changed")


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_second_run_changes_nothing(settings: Any, is_compacted: bool) -> None:
    replay(settings)
    if is_compacted:
        compact(settings.lake, 0)
        compact(settings.lake, 0)
    before, files = seen(settings.lake), sorted(settings.lake.rglob("*.parquet"))
    again = replay(settings)
    assert sorted(settings.lake.rglob("*.parquet")) == files, "not a row was written"
    assert (again.written.events, again.written.records, again.quarantined) == (0, 0, 1)
    assert seen(settings.lake) == before


def test_what_was_written_before_a_crash_is_written_once_when_it_is_replayed_again(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.lake import LakeSink

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LakeSink, "write_quarantine", lambda self, stored, at: killed() if stored else None)
        with pytest.raises(KeyboardInterrupt):
            replay(settings)
    replay(settings)
    assert calls_of(settings.lake) == world.simulated_truth(60, 41, 0.1, 0.1, 0.1, 0)
    assert len(quarantined_in(settings.lake)) == 1


@pytest.mark.parametrize(
    ("numbers", "transcripts"), [("keep", "keep"), ("keep", "drop"), ("mask", "drop"), ("hmac", "keep")]
)
def test_a_call_is_as_if_it_had_been_understood_at_once(
    tmp_path: Path, write: Any, numbers: str, transcripts: str
) -> None:
    told = {"privacy_numbers": numbers, "privacy_key": "k", "privacy_transcripts": transcripts}
    archive, calm = write(world.simulated(80, 43, *HARSH)), settings_of(tmp_path / "calm", **told)
    backfills.backfill(calm, [archive])
    late = broken_lake(tmp_path / "late", archive, every_second, **told)
    expected = calls_of(calm.lake)
    assert calls_of(late.lake) != expected
    assert replay(late).quarantined == 0
    are_the_same(calls_of(late.lake), expected)
    shown, undisturbed = seen(late.lake), seen(calm.lake)
    for view in ("call_events", "webhooks", "quarantine"):
        assert shown[view] == undisturbed[view], view


def test_what_was_masked_stays_masked_when_numbers_are_kept_again(tmp_path: Path, write: Any) -> None:
    archive = write(LINES)
    masking = broken_lake(tmp_path / "lake", archive, lambda _: True, privacy_numbers="mask")
    always = settings_of(tmp_path / "always", privacy_numbers="mask")
    backfills.backfill(always, [archive])
    replay(settings_of(masking.lake, privacy_numbers="keep"))
    assert calls_of(masking.lake) == calls_of(always.lake)


def test_what_was_kept_is_masked_when_numbers_are_masked_by_now(tmp_path: Path, write: Any) -> None:
    archive = write(LINES)
    keeping = broken_lake(tmp_path / "lake", archive, lambda _: True)
    always = settings_of(tmp_path / "always", privacy_numbers="mask")
    backfills.backfill(always, [archive])
    replay(settings_of(keeping.lake, privacy_numbers="mask"))
    assert calls_of(keeping.lake) == calls_of(always.lake)


def test_only_what_is_wanted_is_replayed(tmp_path: Path, write: Any) -> None:
    empty = {"provider": "recho", "received_at": LINES[0]["received_at"], "body": ""}
    found = broken_lake(tmp_path / "lake", write([*LINES, empty]), lambda _: True)
    days = sorted({line["received_at"][:10] for line in LINES})
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])

    def outcomes(**wanted: Any) -> tuple[set[str], set[str], int]:
        done = replay(found, Wanted(**wanted), dry_run=True)
        return {o.provider for o in done.webhooks}, {o.code for o in done.webhooks}, done.webhooks.total()

    _, codes, every = outcomes()
    assert codes == {"internal_error"}, "the mistake came before the body was looked at"
    assert outcomes(providers=("recho", "whippy"))[0] == {"recho", "whippy"}
    assert outcomes(codes=("not_json",)) == (set(), set(), 0)
    assert outcomes(providers=("nobody",)) == (set(), set(), 0)
    assert outcomes(first=first, last=last)[2] == every
    parts = [outcomes(first=date.fromisoformat(day), last=date.fromisoformat(day))[2] for day in days]
    assert (sum(parts), 0 in parts) == (every, False)

    replay(found, Wanted(providers=("recho",)))
    left = quarantined_in(found.lake)
    assert [row for row in left if "'recho'" in row] == [row for row in left if "'empty_body'" in row] != []
    assert any("'whippy'" in row for row in left)
    assert replay(found, Wanted(codes=("empty_body",)), dry_run=True).webhooks.total() == 1
    replay(found, Wanted(codes=("internal_error",)))
    assert calls_of(found.lake) == world.simulated_truth(60, 41, 0.1, 0.1, 0.1, 0)


def test_what_stays_has_the_reason_of_the_current_code(settings: Any) -> None:
    replay(settings)
    (row,) = backfills.shown._views(settings.lake, "quarantine")["quarantine"]
    assert (row["code"], row["field"]) == ("bad_shape", "data")
    assert "call.ended" in str(row), "the bytes are as they were"
    compact(settings.lake, 0)
    assert backfills.shown._views(settings.lake, "quarantine")["quarantine"] == [row]


def test_bodies_are_read_a_few_at_a_time(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import quarantine
    from pipeline import replay as replaying

    read, sizes = quarantine._whole, []

    def counted(connection: Any, ids: Any) -> Any:
        sizes.append(len(ids))
        return read(connection, ids)

    monkeypatch.setattr(quarantine, "_whole", counted)
    monkeypatch.setattr(quarantine, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(replaying, "ROWS_A_FILE", 4)
    done = replay(settings)
    assert (max(sizes), sum(sizes)) == (5, done.webhooks.total())
    assert len(sizes) > 3
    assert calls_of(settings.lake) == world.simulated_truth(60, 41, 0.1, 0.1, 0.1, 0)
    assert len(quarantined_in(settings.lake)) == 1


def test_wherever_it_is_killed_the_next_run_comes_to_the_undisturbed_result(
    tmp_path: Path, write: Any
) -> None:
    strange = {"provider": "recho", "received_at": LINES[0]["received_at"], "body": {"no": "call"}}
    archive = write([*world.simulated(120, 43, *HARSH), strange])
    calm = broken_lake(tmp_path / "calm", archive, every_second)
    killed = settings_of(shutil.copytree(calm.lake, tmp_path / "killed"))
    replay(calm)
    # Dies beside the given file that it writes, before or after; files are small, so that there are many.
    program = """if True:
        import os, signal, sys
        from pipeline import backfill, cli, replay
        from pipeline.lake import Lake
        backfill.WEBHOOKS_A_FLUSH, replay.ROWS_A_FILE, write, written = 50, 60, Lake.write, 0
        place, is_after = int(sys.argv[1]), sys.argv[2] == "after"
        def counted(*arguments):
            global written
            written += 1
            if written == place and not is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            write(*arguments)
            if written == place and is_after:
                os.kill(os.getpid(), signal.SIGKILL)
        Lake.write = counted
        sys.exit(cli.main(sys.argv[3:]))
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    codes = []
    for place, when in ((2, "after"), (3, "before"), (6, "after"), (8, "before")):
        line = [sys.executable, "-c", program, str(place), when, "replay", "--lake", str(killed.lake)]
        done = subprocess.run(line, cwd=tmp_path, env=kept, capture_output=True, timeout=120, check=False)
        codes.append(done.returncode)
        calls_of(killed.lake)
    assert codes.count(-signal.SIGKILL) >= 3, codes
    replay(killed)
    are_the_same(calls_of(killed.lake), calls_of(calm.lake))
    shown, undisturbed = seen(killed.lake), seen(calm.lake)
    for view in ("webhooks", "quarantine"):
        assert shown[view] == undisturbed[view], view
    assert len(shown["call_events"]) == len(undisturbed["call_events"])
    before = seen(killed.lake)
    replay(killed)
    assert seen(killed.lake) == before


def test_what_is_no_webhook_stays_as_it_is(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "lake")
    why = Rejection("assemble", "bad_shape", None, "not a call event: made up")
    foreign = Webhook("unknown", 1_778_576_400_000_000, b'{"event_id": 1}')
    LakeSink(open_lake(settings.lake)).write_quarantine([StoredRejection("f00d", foreign, why)], 1)
    before = seen(settings.lake)
    assert replay(settings).webhooks == {Outcome("unknown", "bad_shape", "bad_shape", None): 1}
    assert seen(settings.lake) == before


def test_a_provider_that_was_unknown_is_understood_once_it_has_a_module(tmp_path: Path) -> None:
    new = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_add_provider.py")))
    folder = new.folder.__wrapped__(tmp_path)
    archive = folder / "webhooks.ndjson"
    archive.write_text(
        "".join(
            json.dumps({"provider": "acme_voice", "received_at": "2026-05-12T09:05:00Z", "body": body}) + "\n"
            for body in (new.webhook("A1", w, s) for w, s in (("over", 25), ("ringing", 0), ("talking", 5)))
        )
    )
    program = ("-m", "pipeline.cli")
    assert new.run(folder, *program, "backfill", str(archive), "--lake", "lake").returncode == 0
    assert len(quarantined_in(folder / "lake")) == 3
    (folder / "pipeline" / "providers" / "acme_voice.py").write_text(new.MODULE, encoding="utf-8")
    done = new.run(folder, *program, "replay", "--code", "unknown_provider", "--lake", "lake")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "3 of 3 webhooks left the quarantine, 0 stayed; 3 new events, 1 call records written" in done.stdout
    )
    (row,) = new.calls_in(folder / "lake").values()
    assert new.row_facts(row) == new.DONE
    assert quarantined_in(folder / "lake") == []


def test_where_there_is_no_lake_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no lake at"):
        replay(settings_of(tmp_path / "nowhere"), dry_run=True)
    assert not (tmp_path / "nowhere").exists()

"""Replay takes out of the quarantine what the code understands now, and leaves the rest."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.lake.compact import compact
from pipeline.model import Rejection, Webhook
from pipeline.providers import providers
from pipeline.replay import replay

backfills = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_backfill.py")))
world, settings_of, calls_of, seen, write = (
    backfills.world, backfills.settings_of, backfills.calls_of, backfills.seen, backfills.write
)  # fmt: skip
LINES = world.simulated(60, 41, 0.1, 0.1, 0.1, 0)


@pytest.fixture
def settings(tmp_path: Path, write: Any) -> Any:
    """The settings of a lake whose whippy webhooks were not understood, some of them for ever."""
    found = settings_of(tmp_path / "lake")
    hopeless = {"provider": "whippy", "received_at": LINES[0]["received_at"], "body": {"event": "call.ended"}}
    with pytest.MonkeyPatch.context() as patch:
        _break(patch)
        backfills.backfill(found, [write([*LINES, hopeless])])
    return found


def _break(patch: pytest.MonkeyPatch) -> None:
    from pipeline import backfill

    def understands_nothing(_: Webhook) -> Rejection:
        raise KeyError("a mistake of ours")

    known = providers()
    broken = {**known, "whippy": known["whippy"]._replace(events=understands_nothing)}
    patch.setattr(backfill, "providers", lambda: broken)


def test_what_is_understood_now_leaves_the_quarantine_and_becomes_calls(settings: Any) -> None:
    whippy = {str(line) for line in LINES if line["provider"] == "whippy"}
    before = seen(settings.lake)
    assert len(before["quarantine"]) == len(whippy) + 1
    assert "internal_error" in before["quarantine"][0]
    done = replay(settings)
    assert (done.webhooks, done.quarantined) == (len(whippy) + 1, 1)
    assert calls_of(settings.lake) == world.simulated_truth(60, 41, 0.1, 0.1, 0.1, 0)
    after = seen(settings.lake)
    assert len(after["quarantine"]) == 1
    assert after["webhooks"] == before["webhooks"], "they were archived when they came"


def test_a_dry_run_tells_what_would_change_and_changes_nothing(settings: Any) -> None:
    files = {path: path.stat().st_mtime_ns for path in settings.lake.rglob("*")}
    dry, done = replay(settings, dry_run=True), None
    assert {path: path.stat().st_mtime_ns for path in settings.lake.rglob("*")} == files
    done = replay(settings)
    assert (dry.webhooks, dry.quarantined) == (done.webhooks, done.quarantined)
    assert dry.events > 0


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_second_run_changes_nothing(settings: Any, is_compacted: bool) -> None:
    replay(settings)
    if is_compacted:
        compact(settings.lake, 0)
        compact(settings.lake, 0)
    before = seen(settings.lake)
    again = replay(settings)
    assert (again.events, again.records, again.quarantined) == (0, 0, 1)
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
    assert len(seen(settings.lake)["quarantine"]) == 1


def test_masked_numbers_stay_as_they_are_stored(tmp_path: Path, write: Any) -> None:
    for numbers in ("mask", "hmac"):
        told = {"privacy_numbers": numbers, "privacy_key": "k"}
        calm, late = (
            settings_of(tmp_path / f"{numbers}-calm", **told),
            settings_of(tmp_path / numbers, **told),
        )
        backfills.backfill(calm, [write(LINES)])
        with pytest.MonkeyPatch.context() as patch:
            _break(patch)
            backfills.backfill(late, [write(LINES)])
        replay(late)
        assert calls_of(late.lake) == calls_of(calm.lake)


def test_where_there_is_no_lake_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no lake at"):
        replay(settings_of(tmp_path / "nowhere"), dry_run=True)
    assert not (tmp_path / "nowhere").exists()

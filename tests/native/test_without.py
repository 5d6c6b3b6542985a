"""Where nothing is compiled, Python does the same."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline import native
from pipeline.assemble.assembler import Assembler
from pipeline.backfill import backfill
from pipeline.durable import assembler_of
from pipeline.lake import Lake, LakeHistory
from pipeline.query.values import rows_of
from pipeline.query.views import connect
from pipeline.settings import Settings, load_settings
from pipeline.simulate import generate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program, without the compiled part, in which it runs."""
    folder = tmp_path_factory.mktemp("plain")
    left = shutil.ignore_patterns("__pycache__", "target", "*.so", "*.pyd")
    for part in ("pipeline", "sql"):
        shutil.copytree(ROOT / part, folder / part, ignore=left)
    return folder


def run(folder: Path, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    kept["CALLFOLD_ARCHIVE_WEBHOOKS"] = "false"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_of(lake: Path) -> Settings:
    return load_settings({}, {"CALLFOLD_LAKE": str(lake), "CALLFOLD_ARCHIVE_WEBHOOKS": "false"})


def rows_in(lake: Path) -> Iterator[list[str]]:
    """What the lake shows, in an order of its own."""
    for view in ("all_calls", "call_events", "call_revisions"):
        with connect(lake) as connection:
            yield sorted(map(repr, rows_of(connection.sql(f"from {view}").to_arrow_table())))


def test_the_whole_pipeline_comes_to_the_truth(plain: Path) -> None:
    told = run(plain, "-c", "from pipeline import native; print(native.IS_COMPILED)")
    assert told == "False\n"
    # It compares every column of every call.
    assert "right: 120 calls" in " ".join(run(plain, "-m", "pipeline.cli", "demo", "--calls", "120").split())


def test_a_backfill_comes_to_the_same_lake(plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("pipeline.native._native")
    archive = tmp_path / "webhooks.ndjson"
    archive.write_bytes(b"\n".join(generate(400, 51, duplicates=0.1, shuffle=0.2, late=0.1)) + b"\n")
    run(plain, "-m", "pipeline.cli", "backfill", str(archive), "--lake", str(tmp_path / "plain"))
    settings = settings_of(tmp_path / "quick")
    assert isinstance(assembler_of(settings, LakeHistory(_laid_out(settings.lake))), native.Assembler)
    backfill(settings, [archive])
    found, meant = (dict(enumerate(rows_in(tmp_path / name))) for name in ("quick", "plain"))
    assert found == meant
    assert len(found[0]) == 400 < len(found[1])


def _laid_out(root: Path) -> Lake:
    lake = Lake(root)
    lake.lay_out()
    return lake


def test_the_assembler_is_python_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "IS_COMPILED", False)
    settings = settings_of(tmp_path / "lake")
    assert isinstance(assembler_of(settings, LakeHistory(_laid_out(settings.lake))), Assembler)


def test_what_is_sent_as_an_event_fits_into_the_lake() -> None:
    from pipeline.model import CallEvent
    from pipeline.stream.messages import event_from, event_message

    event = CallEvent(
        event_id="1", provider="p", stream_key="p:1", event_type="t", at_us=0, received_us=2**53
    )
    assert event_from(event_message(event)) == event
    for wrong in ({"at_us": 2**60}, {"fact_rank": 2**31}, {"seq": 2**63}, {"ended_us": -(2**63)}):
        with pytest.raises(msgspec.DecodeError):
            event_from(event_message(msgspec.structs.replace(event, **wrong)))

"""Every command with its lake on S3, from outside: the same as in a folder, and one clear line where it fails."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Serving, until

from pipeline.cli import main
from pipeline.query.views import connect
from pipeline.simulate import generate, send
from pipeline.storage import place

VIEWS = ("calls", "open_calls", "call_events", "call_revisions", "quarantine", "webhooks")


def rows_of(root: Path) -> dict[str, list[str]]:
    """All that the views show, in an order of its own."""
    with connect(root) as connection:
        return {view: sorted(map(repr, connection.sql(f"from {view}").fetchall())) for view in VIEWS}


def run(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    """What a command prints; it succeeds, and says nothing else."""
    capsys.readouterr()
    assert main(list(line)) == 0, capsys.readouterr().err
    told = capsys.readouterr()
    assert told.err == ""
    return told.out


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Webhooks of a few calls, one of them not to be understood."""
    file = tmp_path / "webhooks.ndjson"
    assert main(["simulate", "--calls", "25", "--seed", "5", "--out", str(file)]) == 0
    line = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    broken = line | {"provider": "interactly", "body": {"message": 7}, "id": "broken"}
    with file.open("a", encoding="utf-8") as more:
        more.write(json.dumps(broken) + "\n")
    return file


@pytest.mark.slow
def test_every_command_does_on_s3_what_it_does_in_a_folder(
    bucket: Any, tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, here = bucket / "lake", tmp_path / "lake"
    dates = ("--from", "2026-01-01", "--to", "2026-12-31")
    query = ("query", "select call_key, outcome from all_calls order by 1", "--format", "json")
    printed: dict[str, list[str]] = {}
    for root in (there, here):
        lake = ("--lake", str(root))
        told = printed[str(root)] = []
        run(capsys, "backfill", str(archive), *lake)
        run(capsys, "backfill", str(archive), *lake)
        told.append(run(capsys, "compact", *lake))
        told.append(run(capsys, *query, *lake))
        told.append(run(capsys, "quarantine", "list", "--format", "csv", *lake))
        told.append(run(capsys, "replay", "--dry-run", *lake))
        report = run(capsys, "report", "--period", "2026-03", "--format", "csv", *lake)
        told.append(re.sub(r"report,,made_at,.*", "", report))
        assert " 0 call records written" in run(capsys, "rebuild", *dates, *lake)
        assert f"ok    lake                           {root}: " in run(capsys, "doctor", *lake)
    assert printed[str(there)] == printed[str(here)]
    assert rows_of(there) == rows_of(here)
    assert len(rows_of(there)["quarantine"]) == 1


def test_views_sql_names_the_addresses(
    bucket: Any, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "backfill", str(archive), "--lake", f"{bucket}lake")
    views = (bucket / "lake" / "views.sql").read_text(encoding="utf-8")
    assert f"read_parquet('{bucket}lake/calls/hot/*.parquet'" in views
    assert "httpfs" in views.split("create", maxsplit=1)[0]
    assert "read_parquet('calls" not in views


@pytest.mark.slow
def test_serve_folds_into_a_lake_on_s3_and_goes_on_when_the_store_was_away(
    spoilable: Any, bucket: Any, tmp_path: Path, start: Callable[..., Serving]
) -> None:
    root = bucket / "lake"
    server = start(
        Serving,
        CALLFOLD_LAKE=str(root),
        CALLFOLD_SPOOL_DIR=str(tmp_path / "spool"),
        CALLFOLD_COMPACT_SECONDS="2",
    )
    lines = list(generate(20, 6))
    half = len(lines) // 2
    asyncio.run(send(lines[:half], server.url))
    until(lambda: list(root.glob("calls/hot/01*.parquet")), "calls in the lake")
    with spoilable.spoilt(lambda _: "503 Slow Down"):
        asyncio.run(send(lines[half:], server.url))
        server.wait_for("nothing is lost, it will be tried again: cannot")
    assert server.stop() == 0, server.said()
    assert "made-up-for-the-test" not in server.said()
    with connect(root) as connection:
        webhooks = connection.sql("select count(*) from webhooks").fetchall()
        (twice,) = connection.sql("select count(*) - count(distinct call_key) from all_calls").fetchall()
    assert webhooks == [(len(lines),)]
    assert twice == (0,)


def test_a_lake_in_a_folder_needs_none_of_it(tmp_path: Path) -> None:
    """The packages may be missing, and cost nothing."""
    script = (
        "import sys; from pipeline.cli import main; import pipeline.rebuild, pipeline.replay, pipeline.stream.work\n"
        f"assert main(['backfill', '/dev/null', '--lake', {str(tmp_path / 'lake')!r}]) == 0\n"
        f"assert main(['compact', '--lake', {str(tmp_path / 'lake')!r}]) == 0\n"
        "sys.exit(bool({'s3fs', 'fsspec', 'upath', 'botocore'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(place, "find_spec", lambda _: None)
    assert main(["query", "from calls", "--lake", "s3://bucket/lake"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.endswith("whose packages are not installed: pip install 'callfold[s3]'")


@pytest.mark.parametrize(
    ("lake", "told"),
    [
        ("s3://no-such-bucket-anywhere/lake", "there is no bucket no-such-bucket-anywhere"),
        ("gs://bucket/lake", "'gs://bucket/lake' is neither a folder nor s3://bucket/prefix"),
        ("s3://bucket/../lake", "is neither a folder nor s3://bucket/prefix"),
        ("s3://AKIAX:made-up@bucket/lake", "option lake: the value is neither a folder nor"),
    ],
)
def test_what_is_wrong_with_a_lake_s_address_is_one_line(
    s3: Any, lake: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (
        ["query", "from calls"],
        ["compact"],
        ["rebuild", "--from", "2026-01-01", "--to", "2026-01-02"],
    ):
        code = main([*line, "--lake", lake])
        (error,) = capsys.readouterr().err.splitlines()
        assert code == (1 if "no-such-bucket" in lake else 2)
        assert told in error
        assert "made-up" not in error


def test_a_collector_before_a_lake_on_s3_needs_a_directory_of_its_machine(
    bucket: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", "--lake", f"{bucket}lake"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "spool.dir" in error
    assert "CALLFOLD_SPOOL_DIR" in error
    monkeypatch.setenv("CALLFOLD_SPOOL_DIR", f"{bucket}spool")
    assert main(["query", "from calls", "--lake", f"{bucket}lake"]) == 2
    assert "is no directory of this machine" in capsys.readouterr().err

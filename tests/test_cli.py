"""The program's edge: exit codes, one-line failures, and a quick start."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pipeline.cli import cli, main
from pipeline.errors import CallfoldError, DestinationUnavailable, UserError

Fail = Callable[[BaseException], None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Adds a command `fail` that raises what it is told to."""

    def install(failure: BaseException) -> None:
        @click.command("fail")
        @click.option("--debug", is_flag=True)
        def command(debug: bool) -> None:
            raise failure

        monkeypatch.setitem(cli.commands, "fail", command)

    return install


def _program(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, **options)


def _one_line(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("callfold: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("callfold: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["query"], "Missing argument 'SQL'"),
        (["query", "select 1", "--format", "xml"], "'xml' is not one of"),
        (["query", "select 1", "--formt", "csv"], "No such option"),
        (["backfill"], "Missing argument 'FILE...'"),
        (["backfill", "no/such/file.ndjson"], "does not exist"),
        (["rebuild", "--from", "2026-03-05"], "Missing option '--to'"),
        (["rebuild", "--from", "5 March", "--to", "2026-03-05"], "does not match the format"),
        (["rebuild", "--from", "2026-03-05", "--to", "2026-03-04"], "--to is before --from"),
        (["forget", "--yes"], "Name a --number or a --call"),
        (["forget", "--number", "+49301234567"], "say --yes"),
        (["forget", "--number", "1234", "--yes"], "number 1 is no telephone number"),
        (["forget", "--call", "1234", "--yes"], "is no call key"),
        (["simulate", "--calls", "many"], "not a valid integer"),
        (["simulate", "--calls", "-1"], "not in the range"),
        (["simulate", "--duplicates", "2"], "not in the range"),
        (["serve", "--config", "no-such.toml"], "does not exist"),
        (["serve", "--port", "99999"], "http.port"),
        (["serve", "--broker", "localhost:9092"], "broker"),
        (["demo", "--calls", "0"], "not in the range"),
    ],
)
def test_wrong_use_is_told_in_one_line_and_exits_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in _one_line(capsys)


def test_wrong_use_names_the_help_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query"]) == 2
    assert _one_line(capsys).endswith("Try 'callfold query --help'.")


def test_no_command_shows_the_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_every_wrong_setting_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "callfold.toml"
    config.write_text('flush_seconds = "soon"\n[privacy]\nnumbers = "hide"\n')
    monkeypatch.setenv("CALLFOLD_HTTP_PORT", "http")
    assert main(["compact", "--config", str(config)]) == 2
    said = _one_line(capsys)
    for setting in ("flush_seconds", "privacy.numbers", "CALLFOLD_HTTP_PORT"):
        assert setting in said


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (CallfoldError("the lake is full"), 1, "the lake is full"),
        (DestinationUnavailable("no broker at kafka:9092"), 1, "no broker at kafka:9092"),
        (UserError("no such period: soon"), 2, "no such period: soon"),
        (click.ClickException("two checks failed"), 1, "two checks failed"),
        (PermissionError(13, "Permission denied", "/lake"), 1, "/lake: Permission denied"),
        (ValueError("first\n\nsecond\tline"), 1, "ValueError: first second line (run it again with --debug"),
        (MemoryError(), 1, "MemoryError"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(
    failure: BaseException, code: int, says: str, fail: Fail, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(failure)
    assert main(["fail"]) == code
    assert says in _one_line(capsys)


def test_the_traceback_is_for_debug(fail: Fail, capsys: pytest.CaptureFixture[str]) -> None:
    fail(ValueError("odd"))
    assert main(["fail", "--debug"]) == 1
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.splitlines()[-1] == "callfold: ValueError: odd"


def test_a_command_gives_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.commands, "three", click.Command("three", callback=lambda: 3))
    assert main(["three"]) == 3


def test_a_reader_that_goes_away_is_no_news() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "simulate", "--calls", "2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline().startswith('{"provider"')
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(60) == 141


def test_the_program_starts_without_importing_anything_heavy() -> None:
    heavy = {
        "aiohttp",
        "aiokafka",
        "confluent_kafka",
        "croniter",
        "duckdb",
        "faust",
        "msgspec",
        "pandas",
        "pyarrow",
        "rich",
    }
    code = f"import sys, pipeline.cli; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_collector_is_there_without_what_only_workers_need() -> None:
    needed = "pipeline.stream.serve, pipeline.stream.connection, pipeline.collect.collector"
    heavy = {"confluent_kafka", "duckdb", "faust", "pandas", "pyarrow"}
    code = f"import sys, {needed}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_version_and_help_go_to_stdout_and_exit_0() -> None:
    version = _program("--version")
    assert (version.returncode, version.stdout.split()[0], version.stderr) == (0, "callfold", "")
    shown = _program("--help")
    assert (shown.returncode, shown.stderr) == (0, "")


def test_a_query_that_cannot_run_is_one_line(small_lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["query", "select nothing from calls", "--lake", str(small_lake)]) in (1, 2)
    assert "nothing" in _one_line(capsys)


def test_a_failed_query_leaves_no_file(small_lake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert (
        main(["query", "select nothing", "--format", "csv", "-o", str(out), "--lake", str(small_lake)]) != 0
    )
    assert list(tmp_path.iterdir()) == []


def test_sql_may_come_from_stdin(small_lake: Path) -> None:
    done = _program("query", "-", "--format", "json", "--lake", str(small_lake), input="select 1 as one")
    assert (done.returncode, json.loads(done.stdout)) == (0, [{"one": 1}])


def test_an_unreadable_line_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, lake = tmp_path / "webhooks.ndjson", tmp_path / "lake"
    assert main(["simulate", "--calls", "5", "--out", str(archive)]) == 0
    archive.write_bytes(b"{\n" + archive.read_bytes())
    capsys.readouterr()
    assert main(["backfill", str(archive), "--lake", str(lake)]) == 0
    said = capsys.readouterr().err
    assert f"{archive}:1: " in said
    assert main(["query", "select count(*) as n from calls", "--format", "csv", "--lake", str(lake)]) == 0
    assert capsys.readouterr().out == "n\n5\n"


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        (["--format", "md"], "# "),
        (["-o", "r.json"], "{"),
        (["-o", "r.out"], "<!doctype html>"),
        ([], "<!doctype html>"),
    ],
)
def test_a_report_has_the_form_asked_for_or_that_of_its_file(
    options: list[str],
    starts: str,
    small_lake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["report", "--period", "all", "--lake", str(small_lake), *options]) == 0
    files = list(tmp_path.iterdir())
    assert len(files) == ("-o" in options)
    text = files[0].read_text() if files else capsys.readouterr().out
    assert text.startswith(starts)


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "--period", "all", "-o", "no/such/folder/r.md"],
        ["query", "select 1", "--format", "csv", "-o", "no/such/folder/q.csv"],
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(
    arguments: list[str], small_lake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([*arguments, "--lake", str(small_lake)]) in (1, 2)
    assert "no/such/folder" in _one_line(capsys)


@pytest.mark.parametrize("command", ["query", "report"])
def test_a_folder_that_is_no_lake_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *(["select 1"] if command == "query" else []), "--lake", str(tmp_path)]) == 2
    assert "no lake" in _one_line(capsys)


def test_a_lake_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive, in_the_way = tmp_path / "webhooks.ndjson", tmp_path / "file"
    assert main(["simulate", "--calls", "1", "--out", str(archive)]) == 0
    in_the_way.write_text("not a folder")
    capsys.readouterr()
    assert main(["backfill", str(archive), "--lake", str(in_the_way / "lake")]) == 1
    assert str(in_the_way) in _one_line(capsys)


def test_an_address_without_http_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--calls", "1", "--url", "localhost:1"]) == 2
    assert "http://" in _one_line(capsys)


def test_ctrl_c_says_so_and_leaves_no_half_file(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pipeline.cli", "simulate", "--calls", "1000000", "--out", "big.ndjson"]
    with subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as program:
        deadline = time.monotonic() + 30
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=60)
    assert (program.returncode, said) == (130, "callfold: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_the_interpreter_is_not_taken_apart_while_threads_of_libraries_may_hold_something() -> None:
    """Arrow's aborted the process then: exit code 134, after all was done. What is registered for the end is run."""
    code = """
import atexit, os, sys
from pipeline.cli import program

class Held:
    def __del__(self, write=os.write):
        write(2, b"taken apart")

sys.held = Held()
atexit.register(os.write, 2, b"at the end")
sys.argv = ["callfold", "--version"]
program()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "at the end")
    assert done.stdout.startswith("callfold ")

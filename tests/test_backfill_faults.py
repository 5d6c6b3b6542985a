"""A backfill of several processes that is interrupted, robbed of a process, or refused by the disk."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.backfill import backfill

backfills = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_backfill.py")))
world, settings_of, written = backfills.world, backfills.settings_of, backfills.written
write = backfills.write
CALLS = (200, 61, 0.1, 0.1, 0.1, 0.05)
PROGRAM = """
import sys
from pipeline import backfill, cli
backfill.FEW_WEBHOOKS, backfill.WEBHOOKS_A_FLUSH = 1, 300
sys.exit(cli.main(sys.argv[1:]))
"""
PATIENCE_SECONDS = 120.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to this"
        time.sleep(0.005)


def descendants(process: int) -> list[int]:
    """All processes below one, whoever is nearer to it first."""
    found = [process]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found[1:]


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class Run:
    """`callfold backfill` of two processes, once it has begun to write; `folding` are those two."""

    def __init__(self, archive: Path, lake: Path) -> None:
        command = [sys.executable, "-c", PROGRAM, "backfill", str(archive), "--lake", str(lake)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
        self.process = subprocess.Popen(
            [*command, "--processes", "2", "--config", os.devnull],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.below: list[int] = []
        self.lake = lake

    def has_begun(self) -> None:
        until(lambda: written(self.lake) > 4 or self.process.poll() is not None)
        assert self.process.poll() is None, "it was over before it could be disturbed"
        self.below = descendants(self.process.pid)

    @property
    def folding(self) -> list[int]:
        """Those that have no others below them and have used the CPU most: the two that fold."""

        def cpu(process: int) -> int:
            return sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))

        return sorted((p for p in self.below if not descendants(p)), key=cpu)[-2:]

    def ends(self) -> tuple[int, list[str]]:
        """Its exit code and the lines of its stderr, once all of it has ended."""
        _, said = self.process.communicate(timeout=PATIENCE_SECONDS)
        until(lambda: not any(map(is_alive, self.below)))
        return self.process.returncode, said.splitlines()

    def close(self) -> None:
        for process in (*self.below, *descendants(self.process.pid), self.process.pid):
            if is_alive(process):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def run(tmp_path: Path, write: Any) -> Iterator[Callable[[], Run]]:
    """Starts backfills of a long archive: the same webhooks again and again."""
    archive = write(world.simulated(*CALLS) * 20, "long.ndjson")
    runs: list[Run] = []

    def started() -> Run:
        runs.append(Run(archive, tmp_path / "lake"))
        return runs[-1]

    yield started
    for one in runs:
        one.close()


@pytest.fixture
def is_mended(tmp_path: Path, write: Any) -> Callable[[], None]:
    """The next backfill of the webhooks comes to the truth."""

    def mended() -> None:
        backfill(settings_of(tmp_path / "lake"), [write(world.simulated(*CALLS))])
        assert backfills.calls_of(tmp_path / "lake") == world.simulated_truth(*CALLS)

    return mended


def test_a_process_that_is_killed_is_told_in_one_line(
    run: Callable[[], Run], is_mended: Callable[[], None]
) -> None:
    disturbed = run()
    disturbed.has_begun()
    os.kill(disturbed.folding[0], signal.SIGKILL)
    code, said = disturbed.ends()
    assert (code, len(said)) == (1, 1), said
    assert said[0].startswith(
        "callfold: a process of the backfill was ended from outside (SIGKILL): run it again"
    )
    is_mended()


def test_with_the_one_that_reads_all_end(run: Callable[[], Run], is_mended: Callable[[], None]) -> None:
    disturbed = run()
    disturbed.has_begun()
    os.kill(disturbed.process.pid, signal.SIGKILL)
    assert disturbed.ends() == (-signal.SIGKILL, [])
    is_mended()


def test_ctrl_c_ends_all_in_one_line(run: Callable[[], Run], is_mended: Callable[[], None]) -> None:
    disturbed = run()
    disturbed.has_begun()
    # As a terminal does it: to every process of the group.
    os.killpg(disturbed.process.pid, signal.SIGINT)
    assert disturbed.ends() == (130, ["callfold: interrupted"])
    is_mended()


def test_ctrl_c_while_the_processes_start_says_no_more(run: Callable[[], Run]) -> None:
    disturbed = run()
    until(lambda: len(descendants(disturbed.process.pid)) >= 2)
    disturbed.below = descendants(disturbed.process.pid)
    os.killpg(disturbed.process.pid, signal.SIGINT)
    assert disturbed.ends() == (130, ["callfold: interrupted"])


def test_a_lake_that_goes_away_is_told_in_one_line(
    run: Callable[[], Run], is_mended: Callable[[], None]
) -> None:
    refused = run()
    refused.has_begun()
    # The next flush fails, at the latest that of the end.
    folders = [refused.lake / dataset / "hot" for dataset in ("call_events", "webhooks")]
    for folder in folders:
        folder.rename(folder.with_name("aside"))
        folder.write_text("no folder")
    code, said = refused.ends()
    assert (code, len(said)) == (1, 1), said
    assert re.match(f"callfold: cannot (read|write) the lake at {re.escape(str(refused.lake))}: ", said[0])
    for folder in folders:
        folder.unlink()
        folder.with_name("aside").rename(folder)
    is_mended()


def test_what_is_wrong_with_the_program_is_told_in_one_line(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lake of a newer program, say: what a process cannot read, it says itself.
    monkeypatch.setattr("pipeline.backfill.FEW_WEBHOOKS", 1)
    settings = settings_of(tmp_path / "lake")
    backfill(settings, [])
    (settings.lake / "calls" / "hot" / "00000000000000001-x-0.parquet").write_bytes(b"no Parquet")
    with pytest.raises(Exception, match="cannot read the lake at") as problem:
        backfill(settings, [write(world.simulated(50, 62))], processes=2)
    assert "\n" not in str(problem.value)

"""Readers of every kind, while a real process compacts and is killed again and again: each call exactly once."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.errors import DestinationUnavailable
from pipeline.lake import merge
from pipeline.lake.compact import compact
from pipeline.lake.files import Lake
from pipeline.lake.removal import remove_noted
from pipeline.query.views import views_sql

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "sql" / "analysts.md").read_text(encoding="utf-8")
RECIPE = next(
    code
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    if "def completed_calls" in code
)
GONE = re.compile(r'No such file|No files found that match the pattern "[^*"]+"')
"""What is said of a file that was listed and is not there: by the system, or by DuckDB, which lists it once more."""
DUCKDB = Path(sys.executable).parent / "duckdb"
COUNTED = (
    "select (select count(*) from calls), (select count(distinct call_key) from calls), "
    "(select sum(revision) from all_calls), (select count(*) from open_calls), (select count(*) from call_events), "
    "(select count(*) from call_revisions), (select count(*) from webhooks), (select count(*) from quarantine)"
)
WRITER = """
import os, sys, time
from pathlib import Path
from pipeline.lake.compact import compact
root, grace = Path(sys.argv[1]), float(sys.argv[2])
again = [(name, sorted((root / name / "hot").glob("0[0-9]*.parquet"))[0].read_bytes())
         for name in ("calls", "call_events", "webhooks")]
def once():
    number = time.time_ns()
    for name, content in again:
        # What a worker that was killed writes once more: the same rows.
        path = root / "_tmp" / f"{number}.parquet"
        path.write_bytes(content)
        path.rename(root / name / "hot" / f"{number:020d}-again.parquet")
    while (done := compact(root, grace)).is_elsewhere:
        time.sleep(0.01)  # or what it writes meanwhile would be all that the other one ever merges
    print(done.merged, done.removed, flush=True)
for told in sys.stdin:
    if told == "once\\n":
        once()
    elif child := os.fork():
        os.waitpid(child, 0)
    else:
        print("process", os.getpid(), flush=True)
        while True:
            once()
"""
"""Compacts once when it is told to, or in a process of its own again and again: one that need not import anything."""


@pytest.fixture
def lake(tmp_path: Path, world: Any, worker_at: Any) -> Path:
    """Hot files of every dataset, with open calls, late revisions and a resolved webhook."""
    worker = worker_at(tmp_path / "lake")
    lines = world.simulated(25, 1, 0.2, 0.2, 0.2, 0.0)
    for part in (lines[:40], lines[40:]):
        worker.add(part)
        worker.flush(max(world.instant.from_text(line["received_at"]) for line in part))
        worker.store(part, part[:4])
    newest_us = max(world.instant.from_text(line["received_at"]) for line in lines)
    worker.add([world.bus_line("DIALING", 1, newest_us, newest_us, agent=8)])
    worker.flush(newest_us)
    worker.store([], lines[:2], is_resolved=True)
    root: Path = worker.root
    (tmp_path / "few.sql").write_text(few_views(""), encoding="utf-8")
    return root


def few_views(root: str) -> str:
    """Of the lake's `views.sql` what is looked at here: to bind all the others takes most of a reader's time."""
    head, *views = views_sql(root).split("create or replace view ")
    wanted = {"int_latest_calls", *re.findall(r"from (\w+)", COUNTED)}
    return "create or replace view ".join([head, *(view for view in views if view.split()[0] in wanted)])


def by_duckdb(root: Path) -> Any:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(few_views(str(root)))
        return connection.execute(COUNTED).fetchone()


def by_command_line(root: Path) -> Any:
    done = subprocess.run(
        [DUCKDB, "-init", "../few.sql", "-json", "-c", COUNTED],
        cwd=root, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode:
        raise OSError(done.stderr)
    return tuple(int(value) for value in json.loads(done.stdout)[0].values())


def by_recipe(root: Path) -> Any:
    names: dict[str, Any] = {}
    exec(RECIPE.partition("\n\n\ncalls = ")[0], names)
    calls = names["completed_calls"](root)
    return (len(calls), calls.call_key.nunique())


READERS: dict[str, Callable[[Path], Any]] = {
    "DuckDB": by_duckdb,
    "the DuckDB command line": by_command_line,
    "pyarrow and pandas": by_recipe,
}


class Reading:
    """Readers of all kinds, one after the other, until they are stopped."""

    def __init__(self, root: Path) -> None:
        self.problems: list[Any] = []
        self.gone = 0
        self.reads = dict.fromkeys(READERS, 0)
        self._root, self._stopping = root, threading.Event()
        self._expected = {name: read(root) for name, read in READERS.items()}
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Reading":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for_all(self) -> None:
        """Until what is being read has been, and every reader has read once more from its beginning."""
        before = sum(self.reads.values())
        while sum(self.reads.values()) < before + 1 + len(READERS):
            assert not self.problems
            threading.Event().wait(0.02)

    def _read(self) -> None:
        for name, read in itertools.cycle(READERS.items()):
            if self._stopping.is_set():
                return
            try:
                found = read(self._root)
            except (duckdb.Error, OSError) as error:
                if not isinstance(error, FileNotFoundError) and not GONE.search(str(error)):
                    self.problems.append((name, error))
                self.gone += 1
            else:
                if found != self._expected[name]:
                    self.problems.append((name, found, self._expected[name]))
            self.reads[name] += 1


class Compacting:
    """A real process that compacts a lake, and complains of nothing until it is killed."""

    def __init__(self, root: Path, grace_seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), str(grace_seconds)], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._child: int | None = None

    def __enter__(self) -> "Compacting":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.kill()
        _, complaint = self._process.communicate(timeout=30)
        assert kind is not None or complaint == ""

    def tell(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def wait_for_one(self) -> None:
        """Until it has compacted once more."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), self._process.communicate()[1]

    def start(self) -> None:
        """Lets it compact again and again, until it is killed."""
        self.tell("again and again")
        assert self._process.stdout is not None
        # What one that was killed said last may come first.
        line = next(line for line in self._process.stdout if line.startswith("process"))
        self._child = int(line.split()[1])

    def kill(self) -> None:
        """Ends it as a power failure would."""
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            self._child = None


def leftovers(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if "_tmp" in path.parts and path.name != "_tmp"]


def test_no_reader_of_any_kind_sees_a_compaction(lake: Path) -> None:
    """Nothing is removed while they read: whatever they miss or see twice is not for them to try again."""
    with Reading(lake) as reading, Compacting(lake, 3600) as compacting:
        compacting.start()
        done = 0
        while done < 3 or min(reading.reads.values()) < 4:
            compacting.wait_for_one()
            done += 1
    assert (reading.problems, reading.gone) == ([], 0)


def test_a_reader_that_finds_a_file_gone_finds_all_when_it_looks_again(lake: Path) -> None:
    """Merged files are removed under readers that began after the merge: what they see is right, or an error."""
    again = [(path.parent, path.read_bytes()) for path in lake.glob("*/hot/0[0-9]*.parquet")]
    with Reading(lake) as reading:
        for number in range(2):
            for place, (folder, content) in enumerate(again):
                (lake / "_tmp" / "again").write_bytes(content)
                (lake / "_tmp" / "again").rename(folder / f"again-{number}-{place}.parquet")
            assert compact(lake, 3600).merged >= len(again)
            reading.wait_for_all()
            assert remove_noted(Lake(lake), 0) >= len(again)
    assert reading.problems == []
    assert reading.gone < sum(reading.reads.values())


def test_a_compaction_that_is_killed_at_any_moment_loses_nothing_and_is_tidied_up_after(
    lake: Path, seen: Any
) -> None:
    before = seen(lake)
    with Reading(lake) as reading, Compacting(lake, 3600) as compacting:
        for number in range(5):
            compacting.start()
            # At first a compaction is heard of; then it is killed at ever other moments of the next one.
            compacting.wait_for_one()
            threading.Event().wait(number * 0.05)
            compacting.kill()
            reading.wait_for_all()
    assert (reading.problems, reading.gone) == ([], 0)
    assert seen(lake) == before
    for path in leftovers(lake):
        os.utime(path, (1_000, 1_000))
    for _ in range(3):
        compact(lake, 0)
    assert seen(lake) == before
    assert leftovers(lake) == []
    hot = [path for path in lake.glob("*/hot/*.parquet") if path.name != "0-schema.parquet"]
    assert [path.name.endswith("-carried.parquet") for path in hot] == [True]
    for folder in lake.glob("*/sealed/date=*"):
        assert len(list(folder.iterdir())) == 1, folder
    assert [
        len(list(lake.glob(f"{name}/manifest/0*[1-9]*.parquet"))) for name in ("calls", "call_events")
    ] == [1, 1]


def test_two_compacting_processes_do_no_harm(lake: Path, seen: Any) -> None:
    before = seen(lake)
    with Compacting(lake, 0.5) as one, Compacting(lake, 0.5) as other:
        for _ in range(3):
            # Both at the same moment: left to themselves, one would have its turn again and again.
            for process in (one, other):
                process.tell("once")
            for process in (one, other):
                process.wait_for_one()
    for _ in range(2):
        compact(lake, 0)
    assert seen(lake) == before


def test_where_locks_do_nothing_the_second_to_publish_is_refused(
    lake: Path, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines on a file system without locks: what one of them merged is not forgotten by the other."""
    before, other = seen(lake), shutil.copytree(lake, lake.parent / "other")
    published = merge.publish

    def overtaken(there: Lake, dataset: str, files: Any, after: int | None = None) -> None:
        if dataset == "calls":
            published(there, dataset, {}, after=after)
        published(there, dataset, files, after=after)

    with monkeypatch.context() as both:
        both.setattr(merge, "publish", overtaken)
        with pytest.raises(DestinationUnavailable, match="somebody else changed calls of the lake"):
            compact(other, 0)
    assert seen(other) == before
    assert not list((other / "_compacted").glob("*.json")), "what was not merged must not be removed"
    compact(other, 0)
    compact(other, 0)
    assert seen(other) == before

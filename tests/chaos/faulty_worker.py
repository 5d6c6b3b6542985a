"""`callfold work` or `callfold collect` with accidents: at a named step, at a named passing, something happens.

    CHAOS_AT=after_calls_file:3:kill     at the third passing of that step: SIGKILL itself; `pause`: SIGSTOP itself
    CHAOS_SESSION=3                      the group session in seconds, so that a pause is soon missed
    CHAOS_FOLDER=…                       where it writes what happened (`fired.log`) and reads these while it runs:
        clock-<pid>                      seconds by which the wall clock is wrong
        disk-is-full                     while it is there, no file of the lake can be written

The program itself is not changed: its public functions are wrapped before its own `main` is called.
"""

import errno
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("CHAOS_FOLDER", "."))
LOOK_SECONDS = 0.05
EVENTS_A_FLUSH = 20

STEPS = (
    # The program starts.
    "layout", "producer_start", "history_refresh",
    # Normalise: events are sent, then the files, then the commit.
    "before_events_sent", "after_events_sent", "in_webhooks_file", "after_webhooks_file",
    "after_quarantine_file", "after_quarantine_sent",
    # Assemble: files, records, commit.
    "in_events_file", "after_events_file", "in_calls_file", "after_calls_file",
    "before_records_sent", "after_records_sent", "before_commit", "after_commit",
    # The group is dealt anew, and calls are taken up again.
    "revoked", "assigned", "remember", "after_remember",
    # Compaction.
    "in_sealed_file", "after_sealed_file", "after_carried_file", "before_manifest", "after_manifest", "in_removal",
)  # fmt: skip
"""Every step that can be named."""


class Accident:
    """What is to happen, and the passings counted until it does."""

    def __init__(self, told: str) -> None:
        self.step, passing, self.deed = told.split(":") if told else ("", "0", "")
        self.passing = int(passing)
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def at(self, step: str) -> None:
        """The program passes this step."""
        if step != self.step:
            return
        with self._lock:
            self._passed[step] += 1
            is_now = self._passed[step] == self.passing
        if is_now:
            tell(f"{self.step}:{self.passing}:{self.deed}")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}[self.deed])


def tell(what: str) -> None:
    with (FOLDER / "fired.log").open("a", encoding="utf-8") as log:
        log.write(f"{what}\n")


def bend_clock() -> None:
    """The wall clock is wrong by what the file says; before anything else has taken hold of the real one."""
    wrong = {"ns": 0}
    real_time, real_time_ns = time.time, time.time_ns
    told = FOLDER / f"clock-{os.getpid()}"

    def look() -> None:
        harness = os.getppid()
        while os.getppid() == harness:
            if told.exists():
                wrong["ns"] = round(float(told.read_text() or 0) * 1e9)
            time.sleep(LOOK_SECONDS)
        # The harness is gone, however that came about: nobody would ever stop this process.
        os.kill(os.getpid(), signal.SIGKILL)

    time.time = lambda: real_time() + wrong["ns"] / 1e9
    time.time_ns = lambda: real_time_ns() + wrong["ns"]
    threading.Thread(target=look, daemon=True).start()


def before(owner: Any, name: str, step_of: Callable[..., str], accident: Accident) -> None:
    """Before each call of the function, its step is passed."""
    inner = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        accident.at(step_of(*args, **options))
        return inner(*args, **options)

    setattr(owner, name, wrapped)


def around(owner: Any, name: str, steps_of: Callable[..., tuple[str, str]], accident: Accident) -> None:
    """Before and after each call of the function."""
    inner = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        first, last = steps_of(*args, **options)
        accident.at(first)
        result = inner(*args, **options)
        accident.at(last)
        return result

    setattr(owner, name, wrapped)


def around_async(owner: Any, name: str, steps_of: Callable[..., tuple[str, str]], accident: Accident) -> None:
    """Before and after each awaiting of the function."""
    inner = getattr(owner, name)

    async def wrapped(*args: Any, **options: Any) -> Any:
        first, last = steps_of(*args, **options)
        accident.at(first)
        result = await inner(*args, **options)
        accident.at(last)
        return result

    setattr(owner, name, wrapped)


def dataset_of(target: Path) -> str:
    """`events`, `calls`, `webhooks`, `quarantine`, `sealed`, `carried`, or `` for what is no data."""
    if target.name == "0-schema.parquet":
        return ""
    if "sealed" in target.parts:
        return "sealed"
    if target.name.endswith("-carried.parquet"):
        return "carried"
    return target.parent.parent.name.removeprefix("call_")


def wrap_lake(accident: Accident) -> None:
    import pyarrow.parquet

    from pipeline.lake import Lake, LakeHistory

    target = threading.local()
    inner_write, inner_table = Lake.write, pyarrow.parquet.write_table

    def write(lake: Any, table: Any, path: Path, *args: Any, **options: Any) -> Any:
        target.dataset = dataset_of(path)
        result = inner_write(lake, table, path, *args, **options)
        accident.at(f"after_{dataset_of(path)}_file")
        return result

    def write_table(table: Any, where: Any, *args: Any, **options: Any) -> Any:
        if (FOLDER / "disk-is-full").exists():
            Path(where).write_bytes(b"PAR1 and then the disk was full")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))
        accident.at(f"in_{getattr(target, 'dataset', '')}_file")
        return inner_table(table, where, *args, **options)

    Lake.write, pyarrow.parquet.write_table = write, write_table
    is_manifest = lambda _lake, _text, path, *_: path.parent.name == "_compacted"  # noqa: E731
    around(
        Lake,
        "write_text",
        lambda *args: ("before_manifest", "after_manifest") if is_manifest(*args) else ("", ""),
        accident,
    )
    around(
        Path, "unlink", lambda path, **_: ("", "in_removal" if path.parent.name == "hot" else ""), accident
    )
    before(Lake, "lay_out", lambda *_: "layout", accident)
    before(LakeHistory, "refresh", lambda *_: "history_refresh", accident)
    around(LakeHistory, "remember", lambda *_: ("remember", "after_remember"), accident)


def wrap_stream(accident: Accident) -> None:
    from pipeline.stream import app, work
    from pipeline.stream.producer import BulkProducer

    def sent(_: Any, topic: str, *__: Any, **___: Any) -> tuple[str, str]:
        what = {"call-events": "events", "call-records": "records"}.get(
            topic.rpartition(".")[2], "quarantine"
        )
        return f"before_{what}_sent", f"after_{what}_sent"

    around_async(BulkProducer, "send", sent, accident)
    around_async(BulkProducer, "start", lambda *_: ("producer_start", ""), accident)
    around_async(app.StreamApp, "commit_now", lambda *_: ("before_commit", "after_commit"), accident)
    around_async(app.StreamApp, "before_revoked", lambda *_: ("revoked", ""), accident)
    around_async(app.StreamApp, "before_assigned", lambda *_: ("assigned", ""), accident)
    # Some flushes are to come early, as in a backlog of a size that no round has.
    work.EVENTS_A_FLUSH = EVENTS_A_FLUSH
    work.SESSION_SECONDS = float(os.environ.get("CHAOS_SESSION", work.SESSION_SECONDS))


def main() -> int:
    # Next to this file, which is run with -P: the names here must not get in the program's way.
    sys.path.append(str(Path(__file__).parent))
    import whereabouts

    whereabouts.answer_requests()
    bend_clock()
    accident = Accident(os.environ.get("CHAOS_AT", ""))
    if sys.argv[1] == "work":
        wrap_lake(accident)
        wrap_stream(accident)
    from pipeline.cli import main as callfold

    return callfold()


if __name__ == "__main__":
    sys.exit(main())

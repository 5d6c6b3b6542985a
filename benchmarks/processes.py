"""Processes that are measured: started on certain cores, watched until they end, and what they took."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

PATIENCE_SECONDS = 900.0
POLL_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):  # noqa: N818  it is told, not caught as an error of the code
    """A program did not do its job; the message says which and how."""


class NotInstalled(Failed):
    """A peer's packages are not there; the others can be measured all the same."""


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    return kept | settings


def start(
    command: list[str],
    log: Path,
    folder: Path,
    env: Mapping[str, str],
    cores: frozenset[int],
) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=said,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509  no threads run here
        )


def finish(process: subprocess.Popen[bytes], name: str, log: Path) -> tuple[bytes, float, float]:
    """Its output, CPU seconds and peak MiB, once it has ended by itself. Raises `Failed` if it ended badly."""
    assert process.stdout is not None
    said: list[bytes] = []
    with process.stdout as stdout:
        reading = threading.Thread(target=lambda: said.append(stdout.read()))
        reading.start()
        peak = 0.0
        while is_running(process):
            peak = max(peak, peak_mib(process.pid))
            time.sleep(POLL_SECONDS)
        reading.join()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGTERM):
        told = log.read_text("utf-8", "replace").strip().splitlines() or ["nothing said"]
        if told[-1].startswith(("ModuleNotFoundError", "ImportError")):
            raise NotInstalled(told[-1])
        raise Failed(f"{name} ended with {process.returncode}: {told[-1]}")
    return said[0], usage.ru_utime + usage.ru_stime, peak


def is_running(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has not ended yet; one that has is left to be awaited."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def peak_mib(pid: int) -> float:
    """Its largest resident set so far; 0 once it has ended.

    What the kernel tells of an ended child (`ru_maxrss`) is no less than what its parent had when it was started.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


def until(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes],
    name: str,
    log: Path,
    patience_s: float = PATIENCE_SECONDS,
) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if process.poll() is not None:
            raise Failed(f"{name} ended early: {log.read_text('utf-8', 'replace')[-500:]}")
        if time.monotonic() > deadline:
            process.kill()
            raise Failed(f"{name} did not finish within {patience_s:g} s")
        time.sleep(POLL_SECONDS)


def watched(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """CPU seconds of the processes below one, and the peak MiB of all together, once it has ended.

    They end with it and unawaited, so they are looked at while they run: of each at most `POLL_SECONDS` are missing.
    Memory that they share counts once.
    """
    used: dict[int, float] = {}
    peak = 0.0
    while is_running(process):
        below, resident = descendants(process.pid), 0
        for pid in (process.pid, *below):
            with suppress(OSError):
                told = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8") if below else ""
                resident += sum(int(kib) for kib in re.findall(r"^Pss: +(\d+)", told, re.MULTILINE))
                used[pid] = cpu_seconds(pid, with_ended=False)
        peak = max(peak, resident / 1024, peak_mib(process.pid))
        time.sleep(POLL_SECONDS)
    used.pop(process.pid, None)
    return sum(used.values()), peak


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text("utf-8").split())
    return found[1:]


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def cpu_seconds(pid: int, with_ended: bool = True) -> float:
    """What a process has used so far, with its children that have ended or without."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if with_ended else 13])) / TICKS

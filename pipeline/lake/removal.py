"""Files of the lake that no longer count, and stay until the readers that have them open are done.

Which those are is noted in small files under `_compacted`. A grace is counted by clocks that nobody sets: one that is
set forward would take files away from under a reader.
"""

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.lake.files import Lake

FOLDER: Final = "_compacted"


class _Note(NamedTuple):
    """Files that may be removed once their grace is over, and when that began, by a clock that nobody sets."""

    names: list[str]
    boot: str = ""
    awake_seconds: float = 0.0


def _this_moment() -> tuple[str, float]:
    """The boot of this machine, and the seconds since then; "" where there is no telling."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return "", 0.0


def _read_note(path: Path) -> _Note:
    try:
        return _Note(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        # A machine that lost its power may leave an empty file: those hot files are merged once more.
        return _Note([])


def _age_seconds(lake: Lake, path: Path, note: _Note) -> float:
    boot, awake_seconds = _this_moment()
    if boot and boot == note.boot:
        return awake_seconds - note.awake_seconds
    # Another machine's: then by the clock of the file system that both write to.
    return lake.age_seconds(path)


def _notes(lake: Lake) -> list[Path]:
    return lake.listed(lake.root / FOLDER, "*.json")


def noted(lake: Lake) -> set[str]:
    """The files, relative to the lake, that are noted and still there."""
    return {name for path in _notes(lake) for name in _read_note(path).names}


def note(lake: Lake, names: Sequence[str]) -> None:
    """The grace of these files begins now."""
    told = _Note(list(names), *_this_moment())
    lake.store.lay_out(lake.root / FOLDER)
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
    lake.write_text(json.dumps(told._asdict()), lake.root / FOLDER / name)


def remove_noted(lake: Lake, grace_seconds: float) -> int:
    """Removes the files whose grace is over; how many there were."""
    removed = 0
    for path in _notes(lake):
        told = _read_note(path)
        if _age_seconds(lake, path, told) < grace_seconds:
            continue
        for name in told.names:
            (lake.root / name).unlink(missing_ok=True)
            removed += 1
        path.unlink()
    return removed

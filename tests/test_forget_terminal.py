"""At a terminal `callfold forget` says what would go, asks, and does it only if the answer is yes."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from running import AS_INSTALLED

forgets = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_forget.py")))
backfills, world = forgets.backfills, forgets.world


def answering(answer: bytes, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the program, to which somebody at a terminal says this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    keyboard, terminal = os.openpty()
    try:
        os.write(keyboard, answer)
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            stdin=terminal, capture_output=True, text=True, timeout=120, check=False,
            env=kept | AS_INSTALLED,
        )  # fmt: skip
    finally:
        os.close(keyboard)
        os.close(terminal)
    return done.returncode, done.stdout + done.stderr


def test_only_a_yes_at_the_terminal_erases(tmp_path: Path) -> None:
    write = backfills.writing_to(tmp_path)
    settings = forgets.filled(tmp_path / "lake", write, world.simulated(30, 78), "both")
    number, before = forgets.phone_of(settings), forgets.seen(settings.lake)
    arguments = ["forget", "--number", number, "--now", "--lake", str(settings.lake)]
    for no in (b"n\n", b"\n", b"\x04"):
        code, said = answering(no, *arguments)
        assert (code, " for good? [y/N]: " in said) == (130, True), said
        assert forgets.seen(settings.lake) == before
    code, said = answering(b"y\n", *arguments)
    assert (code, "0 traces left" in said) == (0, True), said
    assert forgets.seen(settings.lake) != before
    assert number[3:] not in forgets.texts_below(settings.lake)

"""The end of a worker's program."""

import subprocess
import sys
import time

import pytest

HANGS = """
import threading, time
from pipeline.errors import CallfoldError
from pipeline.stream import worker
worker.END_SECONDS = 0.5
threading.Thread(target=time.sleep, args=(60,)).start()
with worker.ending_in_time():
    {last}
"""


@pytest.mark.parametrize(
    ("last", "code", "told"), [("pass", 0, ""), ("raise CallfoldError('no lake')", 1, "callfold: no lake")]
)
def test_a_thread_that_hangs_does_not_keep_the_program_from_ending(last: str, code: int, told: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGS.format(last=last)],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert time.monotonic() - began < 30
    assert done.returncode == code
    assert told in done.stderr

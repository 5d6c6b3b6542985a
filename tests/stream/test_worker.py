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


STUCK_LEAVING = """
import asyncio, time
from pipeline.settings import load_settings
from pipeline.stream import worker
from pipeline.stream.build import build_app
worker.STOP_SECONDS = worker.END_SECONDS = 0.5

class Handler:
    async def drain(self): {last}
    async def take(self, batch): batch.ack()
    async def assigned(self, partitions): pass
    async def revoked(self, partitions): pass

async def run():
    from pipeline.errors import CallfoldError
    from pipeline.stream.embedded import EmbeddedBroker
    with EmbeddedBroker() as broker, worker.ending_in_time() as ending:
        stopping = asyncio.Event()
        app = build_app(load_settings({{}}, {{}}), broker.url, {{"callfold.webhooks.x": Handler()}}, session_seconds=6)
        app.stop = lambda: time.sleep(60)
        await worker.run_until(app, stopping, stopping.set, ending)

asyncio.run(run())
"""


@pytest.mark.parametrize(
    ("last", "code", "told"), [("pass", 0, ""), ("raise CallfoldError('no lake')", 1, "callfold: no lake")]
)
def test_leaving_that_blocks_even_the_event_loop_does_not_keep_the_program_from_ending(
    last: str, code: int, told: str
) -> None:
    last = last.replace("raise", "from pipeline.errors import CallfoldError; raise")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUCK_LEAVING.format(last=last)],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert time.monotonic() - began < 40
    assert done.returncode == code, done.stderr
    assert told in done.stderr


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

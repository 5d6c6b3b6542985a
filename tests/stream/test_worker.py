"""The end of a worker's program."""

import subprocess
import sys

import pytest

HANGS = """
import threading, time
from pipeline.errors import CallfoldError
from pipeline.stream import worker
worker.END_SECONDS = 0.5
threading.Thread(target=time.sleep, args=(600,)).start()
with worker.ending_in_time():
    {last}
"""


STUCK_LEAVING = """
import asyncio, time
from pipeline.settings import load_settings
from pipeline.stream import worker
from pipeline.stream.build import build_app
from pipeline.errors import CallfoldError
worker.STOP_SECONDS = worker.END_SECONDS = 0.5

class Handler:
    async def drain(self): {last}
    async def take(self, batch): batch.ack()
    async def assigned(self, partitions): pass
    async def revoked(self, partitions): pass

async def run():
    from pipeline.stream.embedded import EmbeddedBroker
    with EmbeddedBroker() as broker, worker.ending_in_time() as ending:
        stopping = asyncio.Event()
        app = build_app(load_settings({{}}, {{}}), broker.url, {{"callfold.webhooks.x": Handler()}}, session_seconds=6)
        app.stop = lambda: time.sleep(600)  # as Faust's own does when its thread hangs
        await worker.run_until(app, stopping, stopping.set, ending)

asyncio.run(run())
"""


@pytest.mark.parametrize(
    ("last", "code", "told"), [("pass", 0, ""), ("raise CallfoldError('no lake')", 1, "callfold: no lake")]
)
@pytest.mark.parametrize("program", [HANGS, STUCK_LEAVING], ids=["a thread hangs", "the loop is blocked"])
def test_what_hangs_at_the_end_does_not_keep_the_program_from_ending(
    program: str, last: str, code: int, told: str
) -> None:
    # What hangs would do so for ten minutes: only an end by force comes before the time is over.
    done = subprocess.run(
        [sys.executable, "-c", program.format(last=last)],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == code, done.stderr
    assert told in done.stderr

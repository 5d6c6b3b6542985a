"""Where a worker stands, on request: every task of its event loops down to what it waits for, in its log."""

import asyncio
import faulthandler
import signal
import sys
from typing import Any

REQUEST = signal.SIGUSR2
TOLD = "that is where everything stands"
"""The last line of an answer."""


def answer_requests() -> None:
    """From now on `REQUEST` writes all threads and tasks to stderr."""
    signal.signal(REQUEST, lambda *_: tell())


def tell() -> None:
    faulthandler.dump_traceback(all_threads=True)
    # Those of all loops; asyncio.all_tasks() tells only of one's own.
    known = getattr(asyncio.tasks, "_all_tasks", None) or getattr(asyncio.tasks, "_scheduled_tasks", ())
    for task in list(known):
        if not task.done():
            print(
                f"task {task.get_name()}: {' > '.join(_waits(task.get_coro()))}", file=sys.stderr, flush=True
            )
    print(TOLD, file=sys.stderr, flush=True)


def _waits(awaited: Any) -> list[str]:
    """Function and line of each coroutine in the chain, the innermost last."""
    chain = []
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            chain.append(repr(awaited)[:120])
            break
        chain.append(f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return chain

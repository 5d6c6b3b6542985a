"""Runs a stream application until it is told to stop, or fails."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiokafka.errors import KafkaError

from pipeline.errors import CallfoldError, DestinationUnavailable
from pipeline.stream.app import StreamApp
from pipeline.stream.supervisor import STOP_SIGNALS

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
END_SECONDS = 10.0


class Ending:
    """The end of the program by force, should it not come by itself.

    Faust waits for its consumer thread without end, even in the event loop, and that thread hangs now and then when a
    worker leaves in the midst of a rebalance. By then everything is committed that could be.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def comes_within(self, seconds: float, failure: BaseException | None = None) -> None:
        """After so long the process is gone, with what failed as the last line on stderr and in the exit code."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, _end, (failure,))
        self._timer.daemon = True
        self._timer.start()


async def run_until(
    app: StreamApp,
    stopping: asyncio.Event,
    on_ready: Callable[[], None] | None = None,
    ending: Ending | None = None,
) -> None:
    """Run the worker until `stopping` is set, then drain, commit and leave the group.

    `on_ready` is called once the worker has its partitions. Raises `CallfoldError` when something else stopped it; then
    nothing is drained, and what was not committed is read again by the next worker. With `ending` the whole
    program ends if leaving hangs.
    """
    is_working = False
    watches = [asyncio.create_task(event.wait()) for event in (stopping, app.has_failed)]
    try:
        await _first_of(_start(app), watches)
        if not stopping.is_set() and not app.has_failed.is_set():
            is_working = True
            app.start_timers()
            if on_ready is not None:
                on_ready()
            await _first_of(app.wait_until_stopped(), watches)
        if is_working and app.failure is None and stopping.is_set():
            await app.drain()
    finally:
        for watch in watches:
            watch.cancel()
        app.watch.stop()
        if ending is not None:
            ending.comes_within(
                STOP_SECONDS + END_SECONDS, sys.exception() or _failure(app, stopping.is_set())
            )
        await _stop(app)
    failure = _failure(app, stopping.is_set())
    if failure is not None:
        raise failure


def run_worker(build: Callable[[], StreamApp], on_ready: Callable[[], None] | None = None) -> None:
    """Run a worker as the whole program: SIGTERM or Ctrl-C drains and returns, a failure raises.

    `build` makes the application inside the event loop.
    """

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stopping.set)
        with ending_in_time() as ending:
            await run_until(build(), stopping, on_ready, ending)

    quiet_libraries()
    asyncio.run(run())


@contextmanager
def ending_in_time() -> Iterator[Ending]:
    """After it the program ends soon, even if a thread of it hangs, which the interpreter would wait for."""
    ending = Ending()
    try:
        yield ending
    except CallfoldError as failure:
        ending.comes_within(END_SECONDS, failure)
        raise
    ending.comes_within(END_SECONDS)


def _end(failure: BaseException | None) -> None:
    if failure is not None:
        sys.stderr.write(f"callfold: {failure}\n")
        sys.stderr.flush()
    os._exit(0 if failure is None else getattr(failure, "exit_code", CallfoldError.exit_code))


def quiet_libraries() -> None:
    """Keep what Faust, mode and aiokafka say in normal running out of the log."""
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _first_of(work: Coroutine[Any, Any, Any], watches: list[asyncio.Task[Any]]) -> None:
    """Await `work` unless a watch comes first; then it is given up."""
    task = asyncio.create_task(work)
    await asyncio.wait([task, *watches], return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        log.debug("%s was given up", task.get_name())


async def _start(app: StreamApp) -> None:
    try:
        await app.start()
    except (KafkaError, OSError) as problem:
        message = f"Kafka at {app.conf.broker[0]} cannot be reached: {problem!r}"
        raise DestinationUnavailable(message) from problem


async def _stop(app: StreamApp) -> None:
    try:
        await asyncio.wait_for(app.stop(), STOP_SECONDS)
    except TimeoutError:
        log.warning("Faust did not stop within %g s; what was acknowledged is committed", STOP_SECONDS)
    app.release()


def _failure(app: StreamApp, is_asked_to_stop: bool) -> CallfoldError | None:
    failure = app.failure or app.crash_reason
    if isinstance(failure, CallfoldError):
        return failure
    if failure is not None:
        told = CallfoldError(f"the worker stopped: {failure!r}")
        told.__cause__ = failure
        return told
    return (
        None
        if is_asked_to_stop
        else CallfoldError("the worker stopped by itself; the log says what Faust met")
    )

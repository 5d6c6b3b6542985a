"""Several processes as one program: started, started again when they die, and stopped in the right order."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

from pipeline.errors import CallfoldError, UserError
from pipeline.logs import LogSetup, logging_setup, set_up_logging

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
DRAIN_SECONDS = 60.0
STOP_SECONDS = 45.0
RESTART_SECONDS = 2.0
RESTARTS_AT_MOST = 5
"""A worker that dies so often within `RESTARTS_WITHIN_SECONDS` will not be helped by another start."""
RESTARTS_WITHIN_SECONDS = 120.0
LOOK_SECONDS = 0.2

Job = Callable[[Callable[[], None]], None]
"""What a process does until SIGTERM; it calls its argument once it works. Must bear being pickled."""


class Child:
    """One process and its job."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self._job = job
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._ready: Event | None = None

    def start(self) -> None:
        """Starts it; the one that died before is forgotten."""
        if self._pipe is not None:
            self._pipe.close()
        context = multiprocessing.get_context("spawn")
        ours, self._pipe = context.Pipe(duplex=False)
        self._ready = context.Event()
        self._process = context.Process(
            target=_as_process, args=(self._job, self._ready, ours, logging_setup()), name=self.name
        )
        self._process.start()
        # The child sees our death by the pipe's end.
        ours.close()

    @property
    def is_alive(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.is_alive()

    @property
    def is_ready(self) -> bool:
        """Whether it has come as far as doing its job."""
        return self._ready is not None and self._ready.is_set()

    def wait_until_ready(self, seconds: float) -> bool:
        """Whether it is, at the latest after so long."""
        return self._ready is not None and self._ready.wait(seconds)

    @property
    def exit_code(self) -> int | None:
        """As `multiprocessing` tells it: None before the end, negative for a signal."""
        return None if self._process is None else self._process.exitcode

    def signal(self, number: int) -> None:
        """Sends a signal, if there is anybody to get it."""
        if self._process is not None and self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    def join(self, deadline: float) -> int:
        """Waits until `deadline` (of `time.monotonic`) for its end, then kills it; 0 if it ended well."""
        process = self._process
        if process is None:
            return 0
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            log.error("the %s did not stop within %g s and is killed", self.name, STOP_SECONDS)
            process.kill()
            process.join()
        if process.exitcode == -signal.SIGTERM:
            # It had not come as far as handling the signal: nothing had been begun.
            return 0
        return 1 if process.exitcode is None or process.exitcode < 0 else process.exitcode


class _Worker(Child):
    """A child that is worth another start."""

    def __init__(self, name: str, job: Job) -> None:
        super().__init__(name, job)
        self._deaths: list[float] = []
        self._start_at: float | None = None

    def keep(self) -> bool:
        """Starts it again a little after it has died; false when that has not helped."""
        now = time.monotonic()
        if self.is_alive:
            return True
        if self._start_at is None:
            if not self._may_start_again(now):
                return False
            self._start_at = now + RESTART_SECONDS
        elif now >= self._start_at:
            self._start_at = None
            self.start()
        return True

    def join(self, deadline: float) -> int:
        """As `Child.join`; but a death that was told, and would have been mended, is no failure of the stop."""
        return 0 if self._start_at is not None else super().join(deadline)

    def _may_start_again(self, now: float) -> bool:
        self._deaths = [at for at in self._deaths if now - at < RESTARTS_WITHIN_SECONDS] + [now]
        if len(self._deaths) > RESTARTS_AT_MOST or self.exit_code == UserError.exit_code:
            log.error("the %s died again (exit code %s) and is given up", self.name, self.exit_code)
            return False
        log.warning("the %s died (exit code %s) and is started again", self.name, self.exit_code)
        return True


class Supervisor:
    """Workers, and in front of them a collector if there is one.

    A collector that `is_settling` leaves when the workers have written all that it accepted; they are asked to do so
    without delay.
    """

    def __init__(
        self,
        workers: Sequence[Job],
        *,
        collector: Job | None = None,
        is_settling: bool = False,
    ) -> None:
        several = len(workers) > 1
        self._workers = [
            _Worker(f"worker {number}" if several else "worker", job) for number, job in enumerate(workers)
        ]
        self._collector = None if collector is None else Child("collector", collector)
        self._is_settling = is_settling

    def run(self, stopping: threading.Event) -> int:
        """Until `stopping`, or until something is given up; the exit code."""
        if self._collector is not None:
            self._collector.start()
            while not self._collector.wait_until_ready(LOOK_SECONDS):
                if stopping.is_set() or not self._collector.is_alive:
                    # Its own line, on a port in use say, has told why.
                    return self._stop([self._collector])
        for worker in self._workers:
            worker.start()
        is_given_up = False
        while self._is_collecting() and not is_given_up and not stopping.wait(LOOK_SECONDS):
            is_given_up = not self._keep_working()
        failed = is_given_up or not stopping.is_set()
        code = (
            0 if self._collector is None else self._stop_collector(self._collector, is_given_up=is_given_up)
        )
        return max(code, self._stop(self._workers), int(failed))

    def _is_collecting(self) -> bool:
        return self._collector is None or self._collector.is_alive

    def _keep_working(self) -> bool:
        kept = [worker.keep() for worker in self._workers]
        return all(kept)

    def _stop(self, children: Sequence[Child]) -> int:
        """Tells all of them first: each drains while the others do."""
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        return max(child.join(deadline) for child in children)

    def _stop_collector(self, collector: Child, *, is_given_up: bool) -> int:
        """The exit code of a collector that leaves; while it waits for the workers, these are kept at it."""
        collector.signal(signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._is_settling and collector.is_alive and time.monotonic() < deadline:
            is_given_up = is_given_up or not self._keep_working()
            if is_given_up:
                # Nobody will write it: what it has stays in its spool.
                collector.signal(signal.SIGTERM)
            for worker in self._workers:
                if worker.is_ready:
                    worker.signal(signal.SIGUSR1)
            time.sleep(LOOK_SECONDS)
        return collector.join(deadline)


def _as_process(job: Job, ready: Event, parent: Connection, logs: LogSetup) -> None:
    # Its own session: Ctrl-C is for the one who started us, who stops us in order.
    os.setsid()
    # Asked to flush before there is anything to flush: no reason to die.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # Told to stop before anything was begun: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    set_up_logging(logs)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    code = 0
    try:
        job(ready.set)
    except CallfoldError as error:
        sys.stderr.write(f"callfold: {error}\n")
        code = error.exit_code
    except Exception:
        log.exception("a process of callfold failed")
        code = 1
    # Everything is closed; DuckDB's bindings would complain of the thread that still watches for our parent.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with(parent: Connection) -> None:
    try:
        parent.recv()
    except (EOFError, OSError):
        # The second is for a collector, which then leaves to the next start what it would pass on. Sent to the process,
        # two at once may arrive as one.
        for _ in range(2):
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

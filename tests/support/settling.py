"""A collector that waits for its workers, and such workers; in a module that a new process can import."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

STOPS, ASKS = {signal.SIGTERM}, {signal.SIGUSR1}


def settle(written: Path, on_ready: Callable[[], None]) -> None:
    """Told to stop, it leaves when the worker has written; told so again, at once."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    on_ready()
    signal.sigwait(STOPS)
    while not written.exists():
        if signal.sigtimedwait(STOPS, 0.05) is not None:
            written.with_name("hurried").touch()
            return


def write_when_asked(written: Path, on_ready: Callable[[], None]) -> None:
    """Writes when it is asked to flush."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS | ASKS)
    on_ready()
    if signal.sigwait(STOPS | ASKS) == signal.SIGUSR1:
        written.touch()
        signal.sigwait(STOPS)


def die_when_first_asked(written: Path, on_ready: Callable[[], None]) -> None:
    """Its first process dies instead of writing."""
    died = written.with_name("died")
    if died.exists():
        write_when_asked(written, on_ready)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS | ASKS)
    on_ready()
    signal.sigwait(ASKS)
    died.touch()
    os._exit(7)


def die_whenever_asked(_: Path, on_ready: Callable[[], None]) -> None:
    """Nothing comes of it, however often it is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKS)
    on_ready()
    signal.sigwait(ASKS)
    os._exit(7)

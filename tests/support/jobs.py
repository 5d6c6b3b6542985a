"""What the processes of a supervisor do in its tests; in a module of their own, since a new process imports it."""

import signal
from collections.abc import Callable


def fail(on_ready: Callable[[], None]) -> None:
    """Ends at once, badly."""
    raise RuntimeError("as the test wants it")


def wait(on_ready: Callable[[], None]) -> None:
    """Ends well when it is told to stop."""
    stops = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    on_ready()
    signal.sigwait(stops)

"""A worker's right to write for its partitions: as long as they are assigned to it, and its group confirms that.

Kafka refuses the commit of a worker that it has given up for dead, but nothing stops such a worker (one that was
paused, say, and wakes up) from writing files and producing records. What it knows is old by then: it might bring
back a call that a later event has merged into another one. So it asks here, immediately before a file appears and
before records are sent.

The group coordinator lets a member live for `session_seconds` from the last request of it that it accepted. That
moment is no earlier than the one at which the request was sent, so until that plus `session_seconds` nobody else can
have been given the partitions, except by a rebalance that this worker takes part in, which ends the tenure.
"""

import time
from collections.abc import Callable

from pipeline.errors import DestinationUnavailable

Claim = Callable[[], None]
"""Raises `TenureLost` once the right that it was given for is over; may be called from any thread."""


class TenureLostError(DestinationUnavailable):
    """The partitions are or may be another worker's by now: nothing may be written for them."""


def awake_seconds() -> float:
    """A clock that goes on while the process is stopped and, where the system can tell, while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Tenure:
    """Kept by the consumer: `begin` and `end` with each assignment, `confirm` with each sign of the group."""

    def __init__(self, session_seconds: float, clock: Callable[[], float] = awake_seconds) -> None:
        self.session_seconds = session_seconds
        self.clock = clock
        self._term = 0
        self._is_held = False
        self._confirmed_at = float("-inf")

    def confirm(self, sent_at: float) -> None:
        """The group has accepted a request as a member's that was sent at this time of `clock`."""
        self._confirmed_at = max(self._confirmed_at, sent_at)

    def begin(self) -> None:
        """Partitions are ours from now on."""
        self._term += 1
        self._is_held = True

    def end(self) -> None:
        """They no longer are; every claim made so far is void."""
        self._is_held = False

    def claim(self) -> Claim:
        """The right of this moment, to be asked again before each thing that others can see."""
        term = self._term

        def check() -> None:
            if not self._is_held or self._term != term:
                raise TenureLostError("the partitions have been given to another worker")
            silence = self.clock() - self._confirmed_at
            if silence >= self.session_seconds:
                raise TenureLostError(
                    "the consumer group has not confirmed this worker for "
                    f"{min(silence, 1e6):.0f} s: its partitions may be another's"
                )

        return check

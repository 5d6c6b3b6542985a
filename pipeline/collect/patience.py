"""Timeouts for what is done thousands of times a second and hardly ever takes too long.

`asyncio.timeout` makes a timer for each use, which costs 10 µs; here one look a quarter of a second serves all.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

LOOK_SECONDS = 0.25


class Patience:
    """Ends what takes longer than so many seconds, a little late at most."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: in the order of their deadlines, because all have the same time
        self._waits: deque[Wait] = deque()
        self._looking: asyncio.TimerHandle | None = None

    def wait(self) -> "Wait":
        """A block of code that gets a `TimeoutError` when it takes too long."""
        loop = asyncio.get_running_loop()
        wait = Wait(loop.time() + self._seconds)
        self._waits.append(wait)
        if self._looking is None:
            self._looking = loop.call_later(LOOK_SECONDS, self._look)
        return wait

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waits and (self._waits[0].is_over or self._waits[0].deadline <= now):
            self._waits.popleft().end()
        self._looking = loop.call_later(LOOK_SECONDS, self._look) if self._waits else None


class Wait:
    """One use."""

    __slots__ = ("_task", "deadline", "is_ended", "is_over")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_over = False
        self.is_ended = False
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task, self.is_over = self._task, None, True
        if self.is_ended and task is not None and kind is asyncio.CancelledError and task.uncancel() == 0:
            raise TimeoutError from error

    def end(self) -> None:
        """It has taken too long."""
        if self._task is not None:
            self.is_ended = True
            self._task.cancel()

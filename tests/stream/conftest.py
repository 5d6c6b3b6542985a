"""`callfold serve` for a test, and its end whatever happens."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import Serving


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(**settings: str) -> Serving:
        started.append(Serving(tmp_path, **settings))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.kill_all()

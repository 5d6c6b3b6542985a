"""What the collector's tests share."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import spooling as spooling_program
from spools import Start, killed

from pipeline.stream.embedded import EmbeddedBroker


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as started:
        yield started


@pytest.fixture
def spooling(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(directory: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [*before, sys.executable, str(spooling_program.__file__), str(directory), *arguments]
        # A session of its own: what traces it goes with it.
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        killed(process)

"""What the collector's tests share."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import spooling as spooling_program
from browser import chromium, require_browser
from relaying import Play, Script, scene_in
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


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    require_browser()
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def play(runner: asyncio.Runner) -> Iterator[Play]:
    """Runs a script with a user of its own, in a browser that all the tests share."""
    browsing = chromium()
    browser = runner.run(browsing.__aenter__())

    async def run(script: Script) -> None:
        context = await browser.new_context()
        try:
            async with scene_in(context) as scene:
                await script(scene)
        finally:
            await context.close()

    yield lambda script: runner.run(run(script))
    runner.run(browsing.__aexit__(None, None, None))

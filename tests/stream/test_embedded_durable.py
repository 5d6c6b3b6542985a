"""The embedded broker is memory; the spool is what makes a 202 of it mean something."""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from producing import busy_calls
from running import Serving, count_in, metrics_on, until
from spooled_traffic import Deliveries

from pipeline.demo import compare
from pipeline.query.views import connect
from pipeline.simulate import generate, send

Start = Callable[..., Serving]
FOREVER_SECONDS = 150.0
"""For what takes a few seconds where nobody else is at work."""


def spooled(program: Serving) -> float:
    return metrics_on(int(program.settings["CALLFOLD_HTTP_PORT"])).get("callfold_spool_webhooks", -1.0)


def kill_whole(program: Serving) -> None:
    """As a power failure would: supervisor, collector and worker at the same moment."""
    everyone = [program.process.pid, *program.children()]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    for pid in everyone:
        os.kill(pid, signal.SIGKILL)
    program.process.wait(20)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone[1:]), "their end")


@pytest.mark.slow
def test_killed_as_a_whole_three_times_it_loses_and_doubles_nothing(start: Start) -> None:
    dice = random.Random(8)
    lines = list(generate(400, 31, duplicates=0.05, shuffle=0.1))
    parts = [lines[len(lines) * n // 4 : len(lines) * (n + 1) // 4] for n in range(4)]
    accepted: dict[str, bytes] = {}
    attempts: dict[str, bytes] = {}

    async def post_and_kill(program: Serving, some: list[bytes]) -> None:
        deliveries = Deliveries(program.url, accepted, attempts)
        posting = asyncio.create_task(deliveries.post(some))
        wanted = len(accepted) + dice.randrange(30, len(some) * 3 // 4)
        await asyncio.to_thread(
            until, lambda: len(accepted) >= wanted or posting.done(), "some webhooks", FOREVER_SECONDS
        )
        await asyncio.to_thread(kill_whole, program)
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)

    for part in parts[:3]:
        program = start(Serving)
        asyncio.run(post_and_kill(program, part))
    program = start(Serving)
    asyncio.run(Deliveries(program.url, accepted, attempts).post(parts[3]))
    until(lambda: spooled(program) == 0, "everything in the lake", FOREVER_SECONDS)
    assert program.stop() == 0, program.said()
    with connect(program.lake) as connection:
        stored = [
            name for (name,) in connection.execute("select query->>'delivery' from webhooks").fetchall()
        ]
    assert len(stored) == len(set(stored)), "a receipt is there twice"
    assert accepted.keys() <= set(stored)
    assert len(accepted) > 200
    # What the killed one had in its spool is read after what was received later.
    compare(program.lake, [attempts[name] for name in stored], is_in_order=False)
    folder = program.lake.with_name(f"{program.lake.name}-spool")
    for path in folder.glob("spool-*.db"):
        connection = sqlite3.connect(path)
        assert connection.execute("select count(*) from webhook").fetchone() == (0,)
        connection.close()


def test_where_only_the_first_process_is_killed_the_next_start_has_all_that_was_accepted(
    start: Start,
) -> None:
    program = start(Serving, CALLFOLD_FLUSH_SECONDS="30")
    lines = busy_calls(200)
    assert asyncio.run(send(lines, program.url, 8)).refused == 0
    others = program.children()
    program.process.kill()
    program.process.wait(20)
    # The broker is gone with it: a collector that waited for the lake as at every stop would do so for 45 s.
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in others), "the end of the others", 30)
    program = start(Serving)
    assert spooled(program) > 0, "the collector that was left had them"
    until(lambda: spooled(program) == 0, "everything in the lake", FOREVER_SECONDS)
    assert program.stop() == 0, program.said()
    compare(program.lake, lines)


@pytest.mark.slow
def test_more_than_the_broker_can_hold_is_taken_while_the_worker_stands_still(start: Start) -> None:
    program = start(Serving)
    first = busy_calls(20)
    assert asyncio.run(send(first, program.url, 4)).refused == 0
    until(lambda: spooled(program) == 0, "the first ones in the lake", FOREVER_SECONDS)
    worker = program.children()[-1]
    os.kill(worker, signal.SIGSTOP)
    try:
        # 4 partitions of 5 MB are all there is of a provider, and 27 MB come.
        large = busy_calls(54, padding=500_000, first=20)
        assert asyncio.run(send(large, program.url, 4)).refused == 0
        assert spooled(program) == 54
        assert program.is_ready()
    finally:
        os.kill(worker, signal.SIGCONT)
    until(lambda: spooled(program) == 0, "all of them in the lake", FOREVER_SECONDS)
    assert program.stop() == 0, program.said()
    assert count_in(program.lake, "webhooks") == 74
    compare(program.lake, [*first, *large])


def test_told_to_stop_it_leaves_nothing_in_the_spool(start: Start) -> None:
    program = start(Serving, CALLFOLD_FLUSH_SECONDS="30")
    lines = busy_calls(200)
    assert asyncio.run(send(lines, program.url, 8)).refused == 0
    assert spooled(program) == 200, "they are not in the lake yet"
    assert program.stop() == 0, program.said()
    compare(program.lake, lines)
    (path,) = program.lake.with_name("lake-spool").glob("spool-*.db")
    connection = sqlite3.connect(path)
    assert connection.execute("select count(*) from webhook").fetchone() == (0,)
    connection.close()


def test_what_is_in_the_lake_and_was_not_yet_forgotten_comes_again_and_changes_nothing(start: Start) -> None:
    program = start(Serving)
    lines = [*busy_calls(60), b'{"provider": "recho", "body": "no JSON {"}']
    worker = program.children()[-1]
    os.kill(worker, signal.SIGSTOP)
    assert asyncio.run(send(lines, program.url, 4)).refused == 0
    folder = program.lake.with_name("lake-spool")
    shutil.copytree(folder, folder.with_name("before"))
    os.kill(worker, signal.SIGCONT)
    until(lambda: spooled(program) == 0, "all of them in the lake", FOREVER_SECONDS)
    assert program.stop() == 0, program.said()
    assert count_in(program.lake, "quarantine") == 1
    # As if it had been killed between the commit and the forgetting.
    shutil.rmtree(folder)
    folder.with_name("before").rename(folder)
    again = start(Serving)
    until(lambda: spooled(again) == 0, "all of them once more", FOREVER_SECONDS)
    assert again.stop() == 0, again.said()
    assert "61 webhooks are in the spool" in again.said()
    assert count_in(again.lake, "webhooks") == 61
    assert count_in(again.lake, "quarantine") == 1
    assert count_in(again.lake, "calls") == 60

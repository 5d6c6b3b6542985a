"""More senders than there is room for: who has to go, and that nobody else waits for them."""

import asyncio
import resource
import socket
import time
from contextlib import ExitStack, suppress

import pytest
from raw_senders import (
    HEAD,
    OPEN,
    SECONDS,
    Scene,
    play,
    whole,
)

from pipeline.collect import intake
from pipeline.collect.received import WebhookRecord
from pipeline.collect.store import Where
from pipeline.stream.embedded import EmbeddedBroker


def test_of_too_many_connections_the_idlest_goes(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        idle = [await scene.line() for _ in range(4)]
        # A new sender makes the oldest go, and one that did something in between stays.
        await idle[0].send(whole(more=b""))
        await scene.until(1, "callfold_webhooks_stored_total")
        assert [await scene.answers(whole()) for _ in range(3)] == [[202]] * 3
        assert await idle[1].said() == b""
        await idle[0].send(whole())
        assert await idle[0].statuses() == [202, 202]
        assert await scene.counted("callfold_connections_closed_total", reason="full") == 0
        assert await scene.counted("callfold_connections_closed_total", reason="idlest") >= 1

    play(broker, script, max_connections=5)


def test_a_request_in_hand_is_never_cut(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        store, gate = scene.collector.store, asyncio.Event()
        plain = store.store

        async def wait(record: WebhookRecord) -> Where:
            await gate.wait()
            return await plain(record)

        store.store = wait  # type: ignore[method-assign]
        in_hand = [await (await scene.line()).send(whole()) for _ in range(3)]
        connections = scene.collector.server._connections
        async with asyncio.timeout(SECONDS):
            while sum(open_.is_working for open_ in connections._open) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for _ in range(5):
            said = await (await scene.line()).said()
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in said
        gate.set()
        assert [await line.statuses() for line in in_hand] == [[202]] * 3
        assert await scene.counted("callfold_connections_closed_total", reason="full") == 5
        assert await scene.counted("callfold_connections_closed_total", reason="idlest") == 0

    play(broker, script, max_connections=3)


def test_the_slowest_body_makes_room(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MEMORY_BYTES", 1_000_000)

    async def script(scene: Scene) -> None:
        part = whole(b"x" * 300_000)[:-1]
        slow = []
        for number in range(1, 4):
            slow.append(await (await scene.line()).send(part))
            await scene.until(number * 299_999, "callfold_bodies_in_memory_bytes")
        # The memory is theirs; who sends all at once gets in nevertheless.
        assert [await scene.answers(whole(b" " * 250_000)) for _ in range(5)] == [[202]] * 5
        said = await slow[0].said()
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in said
        for line in slow[1:]:
            await line.send(b"x")
            assert await line.statuses() == [202]
        await scene.until(0, "callfold_bodies_in_memory_bytes")

    play(broker, script)


@pytest.mark.slow
def test_bad_clients_do_not_slow_the_good_ones(broker: EmbeddedBroker) -> None:
    environ = OPEN | {"CALLFOLD_WHIPPY_AUTH": "bearer", "CALLFOLD_WHIPPY_SECRET": "right"}

    async def script(scene: Scene) -> None:
        async def good() -> float:
            began = time.monotonic()
            answers = [await scene.post() for _ in range(200)]
            assert answers == [(202, None)] * 200
            return time.monotonic() - began

        async def drip(start: bytes) -> None:
            while True:
                line = await (await scene.line()).send(start)
                with suppress(ConnectionError):
                    while not line.writer.is_closing() and not line._reader.at_eof():
                        await line.send(b"x")
                        await asyncio.sleep(0.3)

        async def repeat(raw: bytes) -> None:
            while True:
                with suppress(ConnectionError):
                    await scene.answers(raw)
                await asyncio.sleep(0.02)

        alone = await good()
        unproven = whole(b" " * 10_000, head=HEAD.replace(b"recho", b"whippy"))
        bad = [
            *(drip(HEAD + b"X: ") for _ in range(100)),
            *(drip(HEAD + b"Content-Length: 9999\r\n\r\n") for _ in range(100)),
            *(repeat(unproven) for _ in range(5)),
            *(repeat(b"\x16\x03\x01" + bytes(300)) for _ in range(5)),
            *(repeat(whole(b" " * 2_000_000)) for _ in range(2)),
        ]
        tasks = [asyncio.create_task(work) for work in bad]
        async with asyncio.timeout(SECONDS):
            while len(scene.collector.server._connections) < 100:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        beside = await good()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The bad ones live in this process too, so this says only that nobody waits for them.
        assert beside < 20 * alone + 5
        for status in ("401", "400", "413"):
            assert await scene.counted("callfold_webhooks_received_total", answer=status) > 0

    play(broker, script, environ, request_seconds=2, max_connections=180)


def test_a_flood_of_connections_cuts_nobody_who_has_sent(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        address = ("127.0.0.1", int(scene.collector.url.rpartition(":")[2]))

        def flood(lines: ExitStack) -> None:
            for _ in range(600):
                lines.enter_context(socket.create_connection(address, timeout=SECONDS))

        async def evicted() -> float:
            return await scene.counted("callfold_connections_closed_total", reason="idlest")

        for _ in range(3):
            with ExitStack() as lines:
                before = await evicted()
                task = asyncio.create_task(asyncio.to_thread(flood, lines))
                # They stay until the collector has seen that they are too many, however late it comes to look.
                async with asyncio.timeout(SECONDS):
                    while not task.done() or await evicted() == before:
                        assert await scene.answers(whole()) == [202]
                await task

    play(broker, script, max_connections=300)


def test_connections_that_come_at_once_are_taken_a_few_at_a_time(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        address = ("127.0.0.1", int(scene.collector.url.rpartition(":")[2]))
        with ExitStack() as stack:
            # All of them are there, and the first has said what it wants, before the collector looks.
            lines = [
                stack.enter_context(socket.create_connection(address, timeout=SECONDS)) for _ in range(300)
            ]
            lines[0].sendall(whole())
            said = await asyncio.to_thread(lines[0].recv, 65536)
            assert said.startswith(b"HTTP/1.1 202 ")
            async with asyncio.timeout(SECONDS):
                while await scene.counted("callfold_connections_closed_total", reason="idlest") < 150:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            # Some may be on their way through the door.
            assert await scene.counted("callfold_connections") < 130

    play(broker, script, max_connections=100)


def test_who_has_brought_a_webhook_is_the_last_to_make_room(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        line = await (await scene.line()).send(whole(more=b""))
        await scene.until(1, "callfold_webhooks_received_total", answer="202")
        silent = [await scene.line() for _ in range(30)]
        # Those that make room are told by their end; the one that has been silent for longest is not among them.
        ended = [asyncio.create_task(other.said()) for other in silent]
        async with asyncio.timeout(SECONDS):
            while sum(task.done() for task in ended) < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await line.send(whole())
        assert await line.statuses() == [202, 202]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    play(broker, script, max_connections=10)


def test_there_are_files_for_all_connections(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def script(scene: Scene) -> None:
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 700

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        play(broker, script, max_connections=500)
        assert "files" not in caplog.text
        if before[1] != resource.RLIM_INFINITY:
            play(broker, script, max_connections=before[1])
            assert f"only {before[1]} files may be open" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

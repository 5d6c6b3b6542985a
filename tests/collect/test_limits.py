"""What one sender may take: each limit by itself, over raw sockets, and what it leaves to the others."""

import asyncio
import itertools
import re
import resource
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from pipeline.collect import intake
from pipeline.collect.collector import Collector
from pipeline.collect.received import WebhookRecord
from pipeline.collect.store import Where
from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.providers import providers
from pipeline.settings import load_settings
from pipeline.stream.embedded import EmbeddedBroker

PROVIDERS = ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")
OPEN = {f"CALLFOLD_{name.upper()}_AUTH": "none" for name in PROVIDERS}
BODY = b'{"callId": "c1"}'
HEAD = b"POST /webhooks/recho HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CLOSING = b"Connection: close\r\n"
SECONDS = 20
_numbers = itertools.count()

Script = Callable[["Scene"], Awaitable[None]]


def key_of(provider: str, body: bytes, query: Any) -> bytes | None:
    key = providers()[provider].stream_key(body, query)
    return None if key is None else key.encode()


def whole(body: bytes = BODY, more: bytes = CLOSING, head: bytes = HEAD) -> bytes:
    return head + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, size: int, more: bytes = CLOSING) -> bytes:
    pieces = (body[n : n + size] for n in range(0, len(body), size))
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return HEAD + more + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


class Line:
    """One sender's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def send(self, data: bytes) -> "Line":
        self.writer.write(data)
        with suppress(ConnectionError):
            await self.writer.drain()
        return self

    async def said(self) -> bytes:
        """All that the collector says until it closes."""
        said = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(SECONDS):
                while piece := await self._reader.read(65536):
                    said += piece
        return said

    async def statuses(self) -> list[int]:
        return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3}) ", await self.said())]


class Scene:
    """One collector on a free port."""

    def __init__(self, url: str, given: dict[str, object], environ: dict[str, str]) -> None:
        base = {"http.port": 0, "topics.prefix": f"l{next(_numbers)}", "spool.max_bytes": 0}
        settings = load_settings(base | given, environ, None, PROVIDERS)
        self.collector = Collector(settings, url, key_of, is_embedded=False)
        self.session = ClientSession()
        self._lines: list[Line] = []

    async def line(self) -> Line:
        port = int(self.collector.url.rpartition(":")[2])
        line = Line(*await asyncio.open_connection("127.0.0.1", port))
        self._lines.append(line)
        return line

    async def answers(self, raw: bytes) -> list[int]:
        """The answers to some bytes, which have to make the collector close."""
        return await (await (await self.line()).send(raw)).statuses()

    async def post(self, provider: str = "recho", **headers: str) -> tuple[int, str | None]:
        sent = {"Content-Type": "application/json"} | headers
        url = f"{self.collector.url}/webhooks/{provider}"
        async with self.session.post(url, data=BODY, headers=sent) as answer:
            return answer.status, answer.headers.get("Retry-After")

    async def counted(self, name: str, **labels: str) -> float:
        async with self.session.get(f"{self.collector.url}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    async def until(self, number: float, name: str, **labels: str) -> None:
        async with asyncio.timeout(SECONDS):
            while await self.counted(name, **labels) != number:  # noqa: ASYNC110  it polls as Prometheus would
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        for line in self._lines:
            line.writer.transport.abort()
        await self.session.close()
        await self.collector.stop()


def play(broker: EmbeddedBroker, script: Script, environ: dict[str, str] = OPEN, **given: object) -> None:
    async def run() -> None:
        settings = {f"http.{name}": value for name, value in given.items()}
        scene = Scene(broker.url, settings, environ)
        await scene.collector.start()
        try:
            async with asyncio.timeout(SECONDS):
                while scene.collector.store.refusal is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await script(scene)
            assert await scene.post() in {(202, None), (429, "1")}
        finally:
            await scene.stop()

    asyncio.run(run())


def test_a_body_may_have_as_many_bytes_as_are_allowed_and_no_more(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        right, over = b" " * 300_000, b" " * 300_001
        assert await scene.answers(whole(right)) == [202]
        assert await scene.answers(whole(over)) == [413]
        for size in (7_000, 299_999, 300_000):
            assert await scene.answers(chunked(right, size)) == [202]
            assert await scene.answers(chunked(over, size)) == [413]
        # It is refused by its length before there is a byte of it, and asked for none.
        unsent = await (await scene.line()).send(HEAD + CLOSING + b"Content-Length: 300001\r\n\r\n")
        assert await unsent.statuses() == [413]
        endless = HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFF\r\n" + over
        assert await scene.answers(endless) == [413]
        assert await scene.counted("callfold_webhooks_received_total", answer="413") == 6
        assert await scene.counted("callfold_webhooks_stored_bytes_total") == 4 * len(right)
        await scene.until(0, "callfold_bodies_in_memory_bytes")

    play(broker, script, max_body_bytes=300_000)


def test_a_compressed_body_is_not_taken(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        bomb = b"\x1f\x8b\x08" + b"\x00" * 500
        for coding in (b"gzip", b"br", b"identity, gzip", b"GZIP"):
            assert await scene.answers(whole(bomb, CLOSING + b"Content-Encoding: " + coding + b"\r\n")) == [
                415
            ]
        assert await scene.answers(whole(more=CLOSING + b"Content-Encoding: identity\r\n")) == [202]
        transfer = chunked(bomb, 100).replace(b"Encoding: chunked", b"Encoding: gzip, chunked")
        assert await scene.answers(transfer) == [415]

    play(broker, script)


def test_heads_are_limited_in_each_line_and_in_their_number(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        assert await scene.answers(whole(more=CLOSING + b"X: " + b"y" * 900 + b"\r\n")) == [202]
        long_target = HEAD.replace(b"recho", b"recho?a=" + b"b" * 900)
        assert await scene.answers(whole(head=long_target)) == [202]
        bad = (
            whole(more=b"X: " + b"y" * 1100 + b"\r\n"),
            whole(more=b"X" * 1100 + b": y\r\n"),
            whole(head=HEAD.replace(b"recho", b"recho?a=" + b"b" * 1100)),
            HEAD + b"X: " + b"y" * 5000,
            whole(more=b"".join(b"X-%d: y\r\n" % n for n in range(200))),
            chunked(BODY, 5).replace(b"0\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 500 + b"\r\n"),
        )
        for raw in bad:
            assert await scene.answers(raw) == [400], raw[:100]
        assert await scene.counted("callfold_webhooks_received_total", answer="400") == len(bad)

    play(broker, script, max_header_bytes=1024)


BROKEN = {
    "both lengths": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + whole(),
    "two lengths": whole(more=b"Content-Length: 3\r\n"),
    "the length twice": whole(more=b"Content-Length: 16\r\n"),
    "a length below zero": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +16\r\n\r\n" + BODY,
    "another coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nZ\r\n",
    "a chunk of too many": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 20 + b"\r\n",
    "a chunk of another size": chunked(BODY, 16).replace(b"\r\n10\r\n", b"\r\n5\r\n"),
    "a zero byte": whole(more=b"X: a\x00b\r\n"),
    "a bare return": whole(more=b"X: a\rb\r\n"),
    "a folded line": whole(more=b"X: a\r\n b\r\n"),
    "lines without returns": whole().replace(b"\r\n", b"\n"),
    "no host": whole().replace(b"Host: x\r\n", b""),
    "bytes in the address": whole(head=HEAD.replace(b"recho", b"recho?\xff")),
    "a space in the address": whole(head=HEAD.replace(b"recho", b"re cho")),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(300),
    "no address": b"CONNECT  \r\nHost: x\r\n\r\n",
}


def test_what_is_no_http_is_answered_once_and_closed(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(scene: Scene) -> None:
        for what, raw in BROKEN.items():
            assert await scene.answers(raw) == [400], what
        labels = {"answer": "400", "provider": "unknown"}
        assert await scene.counted("callfold_webhooks_received_total", **labels) == len(BROKEN)
        assert await scene.counted("callfold_webhooks_stored_total") == 0

    play(broker, script)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_addresses_and_methods_that_there_are_not_are_counted_too(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        for path in (
            b"//webhooks/recho",
            b"/webhooks/../webhooks/recho",
            b"/webhooks%2Frecho",
            b"/webhooks/recho/",
        ):
            assert await scene.answers(whole(head=HEAD.replace(b"/webhooks/recho", path))) == [404]
        for method in (b"PUT", b"GET", b"TRACE", b"HEAD"):
            assert await scene.answers(whole(head=HEAD.replace(b"POST", method))) == [405]
        for path in (b"/webhooks/recho", b"/nowhere"):
            for expected in (b"tea", b"\xff"):
                raw = whole(more=CLOSING + b"Expect: " + expected + b"\r\n")
                assert await scene.answers(raw.replace(b"/webhooks/recho", path)) == [417]
        assert await scene.counted("callfold_webhooks_received_total", answer="417") == 4
        assert await scene.counted("callfold_webhooks_received_total", answer="404") == 4
        assert await scene.counted("callfold_webhooks_received_total", answer="405") == 4
        assert await scene.counted("callfold_webhooks_received_total") == 12

    play(broker, script)


def test_other_ways_to_say_the_same_are_taken(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        asked = await (await scene.line()).send(whole(more=CLOSING + b"Expect: 100-continue\r\n"))
        assert await asked.statuses() == [100, 202]
        old = whole(more=b"").replace(b"HTTP/1.1", b"HTTP/1.0")
        assert await scene.answers(old) == [202]
        for number, protocol in enumerate((b"websocket", b"h2c"), 1):
            line = await scene.line()
            await line.send(whole(more=b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n"))
            await scene.until(2 * number + 1, "callfold_webhooks_stored_total")
            assert await (await line.send(whole())).statuses() == [202, 202]
        many = whole(more=b"") * 999 + whole()
        assert await scene.answers(many) == [202] * 1000
        deep = b'{"callId": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        assert await scene.answers(whole(deep)) == [202]
        found = Normaliser(providers(), Privacy("keep")).events(Webhook("recho", 1, deep))
        assert isinstance(found, Rejection)
        assert found.code == "too_deep"
        stored = len(BODY) * 1006 + len(deep)
        assert await scene.counted("callfold_webhooks_stored_bytes_total") == stored

    play(broker, script)


def test_a_slow_head_is_cut_and_a_slow_body_is_told(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        heads = [await (await scene.line()).send(HEAD[:n]) for n in (1, 30, len(HEAD))]
        dripping = await scene.line()

        async def drip() -> None:
            for byte in HEAD * 10:
                await dripping.send(bytes((byte,)))
                await asyncio.sleep(0.1)

        task = asyncio.create_task(drip())
        bodies = [await (await scene.line()).send(whole()[:-n]) for n in (1, 10)]
        bodies.append(await (await scene.line()).send(chunked(BODY, 5)[:-4]))
        assert [await line.statuses() for line in bodies] == [[408], [408], [408]]
        assert [await line.said() for line in (*heads, dripping)] == [b""] * 4
        task.cancel()
        assert await scene.counted("callfold_connections_closed_total", reason="slow") == 4
        assert await scene.counted("callfold_webhooks_received_total", answer="408") == 3
        assert await scene.counted("callfold_webhooks_stored_total") == 0
        await scene.until(1, "callfold_connections")

    play(broker, script, request_seconds=0.5)


def test_one_who_reads_no_answers_is_cut(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        line = await scene.line()
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        # More than the socket's buffers hold.
        await line.send(b"GET /relay/aircall_bus.js HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        await scene.until(1, "callfold_connections_closed_total", reason="slow")
        await scene.until(1, "callfold_connections")

    play(broker, script, request_seconds=0.5)


def test_one_who_leaves_in_the_middle_leaves_nothing(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        raw = whole(b'{"callId": "' + b"x" * 200 + b'"}')
        for place in range(1, len(raw), 20):
            line = await (await scene.line()).send(raw[:place])
            line.writer.close()
        await scene.until(1, "callfold_connections")
        assert await scene.counted("callfold_webhooks_stored_total") == 0
        received = await scene.counted("callfold_webhooks_received_total")
        assert received == await scene.counted("callfold_webhooks_received_total", answer="400")
        await scene.until(0, "callfold_bodies_in_memory_bytes")

    play(broker, script)


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


def test_a_providers_rate_is_its_own_and_only_believed_senders_use_it(broker: EmbeddedBroker) -> None:
    environ = OPEN | {"CALLFOLD_RECHO_AUTH": "bearer", "CALLFOLD_RECHO_SECRET": "right"}

    async def script(scene: Scene) -> None:
        wrong = [await scene.post(Authorization="Bearer wrong") for _ in range(20)]
        assert {status for status, _ in wrong} == {401}
        began = time.monotonic()
        answers = [await scene.post(Authorization="Bearer right") for _ in range(60)]
        taken = [status for status, _ in answers].count(202)
        assert answers[:5] == [(202, None)] * 5
        assert set(answers[5:]) <= {(202, None), (429, "1")}
        # It fills again while they are sent.
        assert taken <= 5 + 5 * (time.monotonic() - began) + 1
        assert await scene.post("whippy") == (202, None)
        assert await scene.counted("callfold_webhooks_stored_total", provider="recho") == taken
        refused = await scene.counted("callfold_webhooks_received_total", provider="recho", answer="429")
        assert refused == 60 - taken > 0
        scene.session.headers["Authorization"] = "Bearer right"

    play(broker, script, environ, max_per_second=5)


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

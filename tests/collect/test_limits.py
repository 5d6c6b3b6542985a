"""What one sender may take: each limit by itself, over raw sockets, and what it leaves to the others."""

import asyncio
import time

import pytest
from raw_senders import (
    BODY,
    CLOSING,
    HEAD,
    OPEN,
    Scene,
    chunked,
    play,
    whole,
)

from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.providers import providers
from pipeline.stream.embedded import EmbeddedBroker


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

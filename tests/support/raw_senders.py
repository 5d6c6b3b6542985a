"""Senders over raw sockets, and the collector that they try."""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from pipeline.collect.collector import Collector
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

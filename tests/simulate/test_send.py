"""The sender, tried against a collector of our own."""

import asyncio
from collections import defaultdict
from importlib import import_module
from typing import Any

import msgspec
import pytest
from aiohttp import web

from pipeline.errors import DestinationUnavailable
from pipeline.simulate import Sent, generate, send


class Collector:
    """Keeps what it is sent; answers 503 to every tenth request first."""

    def __init__(self, answer: int = 202) -> None:
        self.answer = answer
        self.requests = 0
        self.taken: dict[str, list[tuple[bytes, dict[str, str], dict[str, str]]]] = defaultdict(list)

    async def take(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.read()
        if self.requests % 10 == 0:
            return web.Response(status=503, headers={"Retry-After": "0.01"})
        assert request.content_type == "application/json"
        entry = (body, dict(request.headers), dict(request.query))
        self.taken[request.match_info["provider"]].append(entry)
        return web.Response(status=self.answer)

    async def receive(self, lines: list[bytes], **options: Any) -> Sent:
        app = web.Application()
        app.router.add_post("/webhooks/{provider}", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            return await send(lines, f"http://127.0.0.1:{runner.addresses[0][1]}/", **options)
        finally:
            await runner.cleanup()


def test_every_webhook_arrives_untouched_and_in_order_within_its_call() -> None:
    lines = list(generate(60, seed=2))
    collector = Collector()
    ticks: list[int] = []
    sent = asyncio.run(collector.receive(lines, concurrency=8, progress=ticks.append))
    assert (sent.posted, sent.by_answer, sent.refused) == (len(lines), {202: len(lines)}, 0)
    assert sum(ticks) == len(lines)
    seen: dict[str, list[bytes]] = defaultdict(list)
    for body, _, query in collector.taken["aircall_bus"]:
        agent = query.get("agent_id") or str(msgspec.json.decode(body)["agent_id"])
        seen[agent].append(body)
    expected: dict[str, list[bytes]] = defaultdict(list)
    for line in lines:
        webhook = msgspec.json.decode(line)
        if webhook["provider"] == "aircall_bus":
            agent = webhook.get("query", {}).get("agent_id") or webhook["body"]["agent_id"]
            expected[str(agent)].append(msgspec.json.encode(webhook["body"]))
    assert seen == expected
    assert any(
        "freeclimb-signature" in {name.lower() for name in h} for _, h, _ in collector.taken["freeclimb"]
    )


def test_raw_bodies_and_credentials_are_sent_as_they_are() -> None:
    line = msgspec.json.encode(
        {"provider": "recho", "received_at": "2026-03-05T09:21:19Z", "body": "not json"}
    )
    collector = Collector()
    asyncio.run(collector.receive([line], headers={"recho": {"Authorization": "Bearer x"}}))
    ((body, headers, _),) = collector.taken["recho"]
    assert (body, headers["Authorization"]) == (b"not json", "Bearer x")


def test_other_answers_are_counted() -> None:
    sent = asyncio.run(Collector(answer=401).receive(list(generate(3, seed=1))[:5]))
    assert (sent.by_answer, sent.refused) == ({401: 5}, 5)


def test_a_collector_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    monkeypatch.setattr(import_module("pipeline.simulate.send"), "_CONNECT_TRIES", 2)
    with pytest.raises(DestinationUnavailable, match="cannot post to"):
        asyncio.run(send(generate(2, seed=1), f"http://127.0.0.1:{unused_port}"))

"""What the collector serves to pages of other origins: the relay script, and leave to post."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from aiohttp.web import Application

from pipeline.collect.relay import add_relay, cors_headers
from pipeline.providers import provider_names, relay_script

PAGE = "https://dialer.example"


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


Ask = Callable[..., Awaitable[Answer]]


def play(script: Callable[[Ask], Awaitable[None]], allowed_origins: tuple[str, ...] = ("*",)) -> None:
    async def run() -> None:
        app = Application()
        add_relay(app, provider_names(), allowed_origins)
        async with TestServer(app) as server, ClientSession() as session:

            async def ask(method: str, path: str, headers: Mapping[str, str] | None = None) -> Answer:
                async with session.request(method, server.make_url(path), headers=headers) as answer:
                    return Answer(answer.status, answer.headers, await answer.read())

            await script(ask)

    asyncio.run(run())


def preflight(origin: str = PAGE) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }


def test_the_script_is_served_to_pages_of_any_origin() -> None:
    async def script(ask: Ask) -> None:
        answer = await ask("GET", "/relay/aircall_bus.js")
        assert answer.status == 200
        assert answer.body == relay_script("aircall_bus")
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        known = {"If-None-Match": answer.headers["ETag"]}
        again = await ask("GET", "/relay/aircall_bus.js", known)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["ETag"] == answer.headers["ETag"]
        assert (await ask("GET", "/relay/aircall_bus.js", {"If-None-Match": '"other"'})).status == 200

    play(script)


@pytest.mark.parametrize("name", ["recho", "nobody", "..%2faircall_bus", "_payload", "aircall_bus_relay"])
def test_there_is_a_script_only_for_a_provider_that_has_one(name: str) -> None:
    async def script(ask: Ask) -> None:
        assert (await ask("GET", f"/relay/{name}.js")).status == 404
        assert (await ask("OPTIONS", f"/webhooks/{name}", preflight())).status == 404

    play(script)


def test_a_script_is_found_by_its_name_and_by_nothing_else() -> None:
    assert [name for name in provider_names() if relay_script(name) is not None] == ["aircall_bus"]
    assert relay_script("../providers/aircall_bus") is None


def test_any_page_may_post_if_all_may() -> None:
    async def script(ask: Ask) -> None:
        answer = await ask("OPTIONS", "/webhooks/aircall_bus", preflight())
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Access-Control-Allow-Methods"] == "POST"
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
        assert answer.headers["Access-Control-Max-Age"] == "7200"
        assert "Access-Control-Allow-Private-Network" not in answer.headers

    play(script)


def test_only_a_listed_page_may_post_if_there_is_a_list() -> None:
    async def script(ask: Ask) -> None:
        let_in = await ask("OPTIONS", "/webhooks/aircall_bus", preflight())
        assert let_in.headers["Access-Control-Allow-Origin"] == PAGE
        assert let_in.headers["Vary"] == "Origin"
        kept_out = await ask("OPTIONS", "/webhooks/aircall_bus", preflight("https://other.example"))
        assert kept_out.status == 204
        assert not [name for name in kept_out.headers if name.startswith("Access-Control-")]
        assert kept_out.headers["Vary"] == "Origin"

    play(script, ("https://first.example", PAGE))


def test_a_page_of_the_internet_may_post_into_a_private_network_if_it_asks() -> None:
    async def script(ask: Ask) -> None:
        asked = preflight() | {"Access-Control-Request-Private-Network": "true"}
        answer = await ask("OPTIONS", "/webhooks/aircall_bus", asked)
        assert answer.headers["Access-Control-Allow-Private-Network"] == "true"

    play(script)


@pytest.mark.parametrize(
    ("origin", "allowed_origins", "let_in"),
    [
        (PAGE, ("*",), "*"),
        ("null", ("*",), "*"),
        (PAGE, (PAGE,), PAGE),
        (PAGE, ("HTTPS://Dialer.Example/", "https://b.example"), PAGE),
        (PAGE, (" https://b.example", f" {PAGE} "), PAGE),
        (PAGE, (), None),
        (PAGE, ("http://dialer.example",), None),
        (PAGE, ("https://dialer.example:8443",), None),
        (f"{PAGE}.evil.example", (PAGE,), None),
        (None, ("*",), None),
        (None, (PAGE,), None),
    ],
)
def test_who_may_read_an_answer(
    origin: str | None, allowed_origins: tuple[str, ...], let_in: str | None
) -> None:
    headers = cors_headers(origin, allowed_origins)
    assert headers.get("Access-Control-Allow-Origin") == let_in
    # Without these the relay could not see how long it is to wait.
    exposed = None if let_in is None else "Retry-After, X-Request-Id"
    assert headers.get("Access-Control-Expose-Headers") == exposed
    assert headers["Vary"] == "Origin"

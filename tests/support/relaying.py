"""The relay of the Aircall Bus in a page of another origin than the collector's, in a user's browser."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from browser import RecordingCollector, Site

QUICK: dict[str, Any] = {"minRetryMs": 20, "maxRetryMs": 100}
PATIENT: dict[str, Any] = {"minRetryMs": 60_000, "maxRetryMs": 60_000}
"""For tests in which nothing may come of the relay's own retries."""
START = """options => {
    window.problems = []; window.refused = [];
    const told = {onProblem: problem => problems.push(problem), onRefused: refusal => refused.push(refusal)};
    window.relay = CallfoldRelay.start({agentId: 41123, ...told, ...options});
    window.say = status => relay.send({type: "DIALER.CALL_STATUS", payload: {status, flow: "regular"}});
    return relay.sessionId;
}"""
STORED = """() => Object.entries(localStorage)
    .filter(([key]) => key.startsWith("callfold-relay"))
    .map(([key, body]) => `${key} ${body}`)"""
Script = Callable[["Scene"], Awaitable[None]]


class Scene:
    """One collector, one site with the dialer's page, and one user's browser."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.collector = RecordingCollector()
        self.site = Site(self._application)
        self.console: list[str] = []

    def _application(self) -> web.Application:
        async def page(request: web.Request) -> web.Response:
            head = f'<link rel=icon href="data:,"><script src="{self.collector.url}/relay/aircall_bus.js"></script>'
            return web.Response(text=f"<!doctype html>{head}<p>the dialer", content_type="text/html")

        async def frame(request: web.Request) -> web.Response:
            return web.Response(text="<!doctype html><p>the bus", content_type="text/html")

        app = web.Application()
        app.router.add_get("/", page)
        app.router.add_get("/frame", frame)
        return app

    async def page(self, **options: Any) -> Any:
        """The dialer's page with the relay running in it."""
        page = await self.context.new_page()
        page.on("console", lambda line: self.console.append(line.text))
        await page.goto(self.site.url)
        await self.start(page, **options)
        return page

    async def start(self, page: Any, **options: Any) -> str:
        told = {"token": self.collector.token, **QUICK, **options}
        return str(await page.evaluate(START, told))

    async def say(self, page: Any, *statuses: str) -> None:
        assert await page.evaluate("all => all.every(status => say(status))", list(statuses))

    async def pending(self, page: Any, count: int) -> None:
        await page.wait_for_function(
            "count => relay.pending() === count", arg=count, polling=20, timeout=15_000
        )

    def order(self) -> list[tuple[str, int]]:
        """Session and number of the events, each when it came first."""
        return list(dict.fromkeys((each["session_id"], each["seq"]) for each in self.collector.stored))


@asynccontextmanager
async def scene_in(context: Any) -> AsyncIterator[Scene]:
    scene = Scene(context)
    await scene.collector.up()
    await scene.site.up()
    try:
        yield scene
    finally:
        scene.collector.goes_on.set()
        await scene.site.down()
        await scene.collector.down()


Play = Callable[[Script], None]


def numbered(count: int, first: int = 1) -> list[str]:
    return [f"s{number}" for number in range(first, first + count)]

"""A real Chromium for the tests, the system's own, without a window and driven by Playwright."""

import asyncio
import importlib.util
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from required import require
from running import free_port

from pipeline.collect.relay import add_relay, cors_headers

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext

# As root in a container there is no sandbox; and the browser is to speak to nobody but the tests.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_SECONDS = 15.0


def why_unavailable() -> str | None:
    """Why there can be no browser here; None if there can."""
    if importlib.util.find_spec("playwright") is None:
        return "a real browser needs the Python package playwright"
    return "a real browser needs chromium on the PATH" if shutil.which("chromium") is None else None


def require_browser() -> None:
    """Skips the test where there can be no browser; with CALLFOLD_REQUIRE_BROWSER=1 that is a failure instead."""
    require(why_unavailable(), "CALLFOLD_REQUIRE_BROWSER")


@asynccontextmanager
async def chromium() -> AsyncIterator["Browser"]:
    """A browser whose every context has a storage of its own."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(ARGUMENTS)
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def chromium_in(folder: Path) -> AsyncIterator["BrowserContext"]:
    """A browser that keeps its storage in a folder, as a user's does; it may be killed meanwhile."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        yield await playwright.chromium.launch_persistent_context(
            folder, executable_path=shutil.which("chromium"), args=list(ARGUMENTS)
        )
        kill_chromium_in(folder)


def kill_chromium_in(folder: Path) -> None:
    """SIGKILL to all processes of the browser that has this folder."""
    ours = f"--user-data-dir={folder}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and ours in (entry / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


async def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """The first true answer, while the browser goes on; a failure that says what was waited for."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                if found := condition():
                    return found
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:g} s") from None


class Site:
    """What one port serves, until it is taken down; it may come up again."""

    def __init__(self, make: Callable[[], web.Application]) -> None:
        self._make = make
        self._port = free_port()
        self._runner: web.AppRunner | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    async def up(self) -> None:
        self._runner = web.AppRunner(self._make(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    async def down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


class RecordingCollector(Site):
    """A collector to the browser; what it stores it remembers, and it answers as it is told."""

    token = "bus-t0ken"

    def __init__(self) -> None:
        super().__init__(self._application)
        #: the envelopes in the order in which they were answered 202
        self.stored: list[dict[str, Any]] = []
        #: status and envelope of every post, in the order of the answers
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.requests: list[web.Request] = []
        #: at once at most
        self.most_at_once = 0
        self._at_once = 0
        self.status_for: Callable[[dict[str, Any]], int] = lambda envelope: 202
        self.retry_after: str | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=2**22)
        app.router.add_post("/webhooks/aircall_bus", self._take)
        add_relay(app, ["aircall_bus"], ("*",))
        return app

    async def _take(self, request: web.Request) -> web.Response:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            envelope = json.loads(await request.read())
            self.requests.append(request)
            await self.goes_on.wait()
        finally:
            self._at_once -= 1
        is_known = request.headers.get("Authorization") == f"Bearer {self.token}"
        status = self.status_for(envelope) if is_known else 401
        self.answers.append((status, envelope))
        if status == 202:
            self.stored.append(envelope)
        headers = cors_headers(request.headers.get("Origin"), ("*",))
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        return web.json_response({}, status=status, headers=headers)

    def said(self) -> list[str]:
        """The statuses of the stored events, in order."""
        return [envelope["event"]["payload"]["status"] for envelope in self.stored]

    async def has(self, count: int) -> None:
        await until(lambda: len(self.stored) >= count, f"{count} events stored")

"""The relay of the Aircall Bus in a real browser, on a page of another origin than the collector's."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from browser import RecordingCollector, Site, chromium, chromium_in, kill_chromium_in, require_browser, until
from running import Serving, calls_in
from running import until as until_then

pytestmark = pytest.mark.browser

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
MADE_OLD = """() => {
    for (const [key, body] of Object.entries(localStorage)) {
        localStorage.removeItem(key);
        localStorage.setItem(key.replace(/:\\d{14}:/, ":00000000000000:"), body);
    }
}"""
FILLED = """() => {
    let part = "x".repeat(2 ** 20);
    for (let n = 0; part; n += 1) {
        try { localStorage.setItem(`other${n}`, part); }
        catch { part = part.slice(part.length / 2 + 0.5); }
    }
}"""
CHATTER = """count => new Promise(done => {
    let n = 0;
    const talk = () => {
        n += 1;
        say(`s${n}`);
        if (n < count) setTimeout(talk);
        else done();
    };
    talk();
})"""
FRAME = """url => new Promise(done => {
    const frame = document.createElement("iframe");
    frame.onload = done;
    frame.src = url;
    document.body.append(frame);
})"""
NO_EVENTS = """() => {
    const cyclic = {type: "DIALER.X"};
    cyclic.cyclic = cyclic;
    return [null, "text", {}, {type: ""}, {type: 1}, cyclic].map(event => relay.send(event));
}"""
ATTEMPT = """options => {
    try { CallfoldRelay.start(options); return ""; }
    catch (problem) { return `${problem}`; }
}"""
TOKEN_FUNCTION = """() => {
    const tokens = [async () => { throw new Error(); }, async () => "", async () => "bus-t0ken"];
    const token = () => (tokens.length > 1 ? tokens.shift() : tokens[0])();
    window.problems = [];
    const onProblem = problem => problems.push(problem);
    window.relay = CallfoldRelay.start({agentId: 1, minRetryMs: 20, maxRetryMs: 20, token, onProblem});
    relay.send({type: "DIALER.X"});
}"""
DENIED = """Object.defineProperty(window, "localStorage", {
    get() { throw new DOMException("no", "SecurityError"); }
})"""
NO_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', {value: undefined})"

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


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    require_browser()
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def play(runner: asyncio.Runner) -> Iterator[Callable[[Script], None]]:
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


Play = Callable[[Script], None]


def numbered(count: int, first: int = 1) -> list[str]:
    return [f"s{number}" for number in range(first, first + count)]


def test_events_are_numbered_timed_and_posted_one_by_one(play: Play) -> None:
    async def script(scene: Scene) -> None:
        before = datetime.now().astimezone() - timedelta(milliseconds=1)
        page = await scene.page()
        await scene.say(page, *numbered(20))
        await scene.collector.has(20)
        stored = scene.collector.stored
        assert scene.collector.most_at_once == 1
        assert scene.collector.said() == numbered(20)
        assert [each["seq"] for each in stored] == list(range(1, 21))
        assert {each["agent_id"] for each in stored} == {41123}
        (session_id,) = {each["session_id"] for each in stored}
        assert re.fullmatch("[0-9a-f]{32}", session_id)
        assert stored[0]["event"] == {
            "type": "DIALER.CALL_STATUS",
            "payload": {"status": "s1", "flow": "regular"},
        }
        assert set(stored[0]) == {"agent_id", "session_id", "seq", "sent_at", "event"}
        assert all(
            re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["sent_at"]) for each in stored
        )
        times = [datetime.fromisoformat(each["sent_at"]) for each in stored]
        assert times == sorted(times)
        assert before <= times[0] <= times[-1] <= datetime.now().astimezone()
        first = scene.collector.requests[0].headers
        assert first["Origin"] == scene.site.url
        assert first["Content-Type"] == "application/json"
        await scene.pending(page, 0)
        assert await page.evaluate(STORED) == []
        assert (scene.console, await page.evaluate("problems")) == ([], [])

    play(script)


def test_what_happened_while_the_collector_was_away_arrives_once_and_in_order(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page()
        await scene.say(page, "s1")
        await scene.pending(page, 0)
        await scene.collector.down()
        await scene.say(page, *numbered(9, 2))
        await page.wait_for_function("problems.length > 0")
        assert await page.evaluate("relay.pending()") == 9
        await scene.collector.up()
        await scene.pending(page, 0)
        assert scene.collector.said() == numbered(10)
        assert [each["kind"] for each in await page.evaluate("problems")] == ["unreachable", "unreachable"]
        assert (await page.evaluate("problems"))[-1]["message"] is None
        assert len([line for line in scene.console if "cannot be reached" in line]) == 1

    play(script)


def test_an_event_is_stored_before_anything_else_happens(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page()
        stored = f"({STORED})().length"
        turn = f"() => {{ say('s1'); const one = {stored}; say('s2'); return [one, {stored}]; }}"
        assert await page.evaluate(turn) == [1, 2]
        await scene.pending(page, 0)

    play(script)


def test_coming_online_ends_the_wait(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(**PATIENT)
        await scene.context.set_offline(True)
        await scene.say(page, *numbered(5))
        await page.wait_for_function("problems.length > 0")
        assert scene.collector.answers == []
        await scene.context.set_offline(False)
        await scene.pending(page, 0)
        assert scene.collector.said() == numbered(5)

    play(script)


def test_a_reload_without_the_collector_loses_nothing(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(**PATIENT)
        old = await page.evaluate("relay.sessionId")
        await scene.collector.down()
        await scene.say(page, *numbered(3))
        await scene.collector.up()
        scene.collector.status_for = lambda envelope: 503
        await page.reload()
        new = await scene.start(page, agentId="7")
        await scene.say(page, *numbered(3, 4))
        await until(lambda: len(scene.collector.answers) > 2, "refusals")
        scene.collector.status_for = lambda envelope: 202
        await scene.pending(page, 0)
        assert old != new
        assert scene.order() == [(old, 1), (old, 2), (old, 3), (new, 1), (new, 2), (new, 3)]
        assert scene.collector.said() == numbered(6)
        assert [each["agent_id"] for each in scene.collector.stored] == [41123] * 3 + ["7"] * 3

    play(script)


@pytest.mark.parametrize("way", ["close", "leave"])
@pytest.mark.parametrize("posted_before", [True, False])
def test_a_page_that_goes_sends_the_rest(play: Play, way: str, posted_before: bool) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(**PATIENT)
        if posted_before:
            await scene.say(page, "s0")
            await scene.pending(page, 0)
        # The first post is still on its way when the page goes: those behind it are the rest.
        scene.collector.goes_on.clear()
        await scene.say(page, *numbered(30))
        if way == "close":
            await page.close()
        else:
            await page.goto("about:blank")
        scene.collector.goes_on.set()
        wanted = set(numbered(30)) | ({"s0"} if posted_before else set())
        await until(lambda: set(scene.collector.said()) == wanted, "everything")
        # Nobody was there to see the answers, so the next page tells of the same events again, by the same names.
        again = await scene.page()
        await scene.pending(again, 0)
        assert len(scene.order()) == len(wanted)

    play(script)


def test_a_page_that_comes_back_goes_on(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(**PATIENT)
        scene.collector.goes_on.clear()
        await scene.say(page, *numbered(3))
        # What a browser does that keeps the page for the way back; a driven one does not keep it.
        await page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
        await scene.say(page, "s4")
        await until(lambda: len(scene.collector.requests) == 4, "the rest")
        await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        await scene.say(page, "s5")
        # The answers come to a page that is there again: what was refused is tried again.
        refusals = iter([503])
        scene.collector.status_for = lambda envelope: next(refusals, 202) if envelope["seq"] == 2 else 202
        scene.collector.goes_on.set()
        await scene.pending(page, 0)
        assert sorted(scene.collector.said()) == numbered(5)
        assert len(scene.collector.answers) == 6

    play(script)


def test_a_page_that_is_hidden_tries_at_once(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(**PATIENT)
        scene.collector.status_for = lambda envelope: 503
        await scene.say(page, *numbered(3))
        await page.wait_for_function("problems.length > 0")
        scene.collector.status_for = lambda envelope: 202
        await page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden'})")
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await scene.pending(page, 0)
        assert scene.collector.said() == numbered(3)

    play(script)


def test_a_clock_that_is_set_back_changes_no_order(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page()
        scene.collector.status_for = lambda envelope: 503
        await scene.say(page, "s1")
        await page.evaluate("Date.now = () => 1000")
        await scene.say(page, *numbered(11, 2))
        scene.collector.status_for = lambda envelope: 202
        await scene.pending(page, 0)
        assert scene.collector.said() == numbered(12)

    play(script)


def test_a_page_that_goes_with_too_much_leaves_it_to_the_next(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(**PATIENT)
        scene.collector.goes_on.clear()
        await page.evaluate("for (let n = 0; n < 120; n += 1) say(`${n} ${'x'.repeat(1000)}`)")
        await page.close()
        scene.collector.goes_on.set()
        await scene.collector.has(40)
        again = await scene.page()
        await scene.pending(again, 0)
        assert sorted(seq for _, seq in scene.order()) == list(range(1, 121))

    play(script)


def test_a_killed_browser_loses_nothing_that_is_on_its_disk(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def script() -> None:
        collector = RecordingCollector()
        async with chromium_in(tmp_path) as context, scene_in(context) as scene:
            collector = scene.collector
            page = await scene.page(**PATIENT)
            collector.status_for = lambda envelope: 503
            await scene.say(page, *numbered(5))
            ours = (await page.evaluate("relay.sessionId")).encode()
            # A browser writes its storage to the disk a little later.
            logs = tmp_path / "Default" / "Local Storage" / "leveldb"
            await until(
                lambda: any(ours in log.read_bytes() for log in logs.glob("*.log")), "it on the disk", 40
            )
            kill_chromium_in(tmp_path)
            await scene.site.down()
            collector.status_for = lambda envelope: 202
            async with chromium_in(tmp_path) as restarted:
                scene.context = restarted
                await scene.site.up()
                again = await scene.page()
                await scene.pending(again, 0)
                assert scene.collector.said() == numbered(5)
                assert {each["session_id"].encode() for each in collector.stored} == {ours}

    runner.run(script())


def test_a_wrong_token_keeps_everything_and_is_told_once(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(token="0ld-t0ken")
        await scene.say(page, *numbered(3))
        await until(lambda: len(scene.collector.answers) > 3, "several attempts")
        stored = await page.evaluate(STORED)
        assert len(stored) == 3
        scene.collector.token = "0ld-t0ken"
        await scene.pending(page, 0)
        assert scene.collector.said() == numbered(3)
        problems = await page.evaluate("problems")
        assert [(each["kind"], each["message"] is None) for each in problems] == [
            ("credentials", False),
            ("credentials", True),
        ]
        ours = [line for line in scene.console if line.startswith("CallfoldRelay")]
        assert ours == ["CallfoldRelay: the collector does not accept the token (401): events wait"]
        assert "t0ken" not in " ".join([*stored, *scene.console])

    play(script)


def test_a_token_may_be_a_function(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.context.new_page()
        await page.goto(scene.site.url)
        await page.evaluate(TOKEN_FUNCTION)
        await scene.pending(page, 0)
        # Without a token nothing is posted, and that is another problem than a collector that is away.
        assert [status for status, _ in scene.collector.answers] == [202]
        assert [each["kind"] for each in await page.evaluate("problems")] == ["credentials", "credentials"]

    play(script)


def test_a_refused_event_does_not_hold_up_the_others(play: Play) -> None:
    async def script(scene: Scene) -> None:
        is_odd = lambda envelope: envelope["event"]["payload"]["status"] == "s2"  # noqa: E731
        scene.collector.status_for = lambda envelope: 413 if is_odd(envelope) else 202
        page = await scene.page()
        await scene.say(page, *numbered(3))
        await scene.pending(page, 0)
        assert scene.collector.said() == ["s1", "s3"]
        (refusal,) = await page.evaluate("refused")
        assert (refusal["status"], refusal["isLost"]) == (413, False)
        assert refusal["envelope"]["event"]["payload"]["status"] == "s2"
        assert len(await page.evaluate(STORED)) == 1
        assert any("set aside" in line for line in scene.console)
        # The next page tries again: what was wrong may be mended.
        scene.collector.status_for = lambda envelope: 202
        await page.reload()
        await scene.start(page)
        await scene.pending(page, 0)
        assert scene.collector.said() == ["s1", "s3", "s2"]
        assert await page.evaluate(STORED) == []

    play(script)


def test_an_event_refused_for_a_week_is_given_up_and_told(play: Play) -> None:
    async def script(scene: Scene) -> None:
        scene.collector.status_for = lambda envelope: 404
        page = await scene.page()
        await scene.say(page, "s1")
        await scene.pending(page, 0)
        # Or this page, which looks again every tenth of a second, may be the one that gives it up.
        await page.evaluate("relay.stop()")
        await page.evaluate(MADE_OLD)
        await page.reload()
        await scene.start(page)
        await page.wait_for_function("refused.length > 0")
        assert [each["isLost"] for each in await page.evaluate("refused")] == [True]
        assert await page.evaluate(STORED) == []

    play(script)


@pytest.mark.parametrize("status", [503, 429])
def test_the_collector_is_left_alone_for_as_long_as_it_says(play: Play, status: int) -> None:
    async def script(scene: Scene) -> None:
        scene.collector.retry_after = "1"
        scene.collector.status_for = lambda envelope: status
        page = await scene.page(minRetryMs=1, maxRetryMs=1)
        clock = asyncio.get_running_loop().time
        await scene.say(page, "s1", "s2")
        await until(lambda: scene.collector.answers, "a refusal")
        refused_at = clock()
        scene.collector.status_for = lambda envelope: 202
        await scene.say(page, "s3")
        await scene.collector.has(3)
        assert clock() - refused_at > 0.9
        assert scene.collector.said() == numbered(3)
        assert len(scene.collector.answers) == 4

    play(script)


def test_nothing_but_a_202_takes_an_event_off(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page()
        for seq, status in enumerate((200, 204, 403, 408, 425, 429, 500, 502), 1):
            scene.collector.answers.clear()
            scene.collector.status_for = lambda envelope, status=status: status
            await scene.say(page, f"s{seq}")
            await until(lambda: len(scene.collector.answers) > 1, "two attempts")
            assert {(each, envelope["seq"]) for each, envelope in scene.collector.answers} == {(status, seq)}
            scene.collector.status_for = lambda envelope: 202
            await scene.pending(page, 0)
        assert scene.collector.said() == numbered(8)
        assert await page.evaluate("refused") == []

    play(script)


def test_a_post_without_an_answer_is_given_up_and_tried_again(play: Play) -> None:
    async def script(scene: Scene) -> None:
        scene.collector.goes_on.clear()
        page = await scene.page(timeoutMs=100)
        await scene.say(page, "s1", "s2")
        await until(lambda: len(scene.collector.requests) > 1, "a second attempt")
        scene.collector.goes_on.set()
        await scene.pending(page, 0)
        assert [seq for _, seq in scene.order()] == [1, 2]

    play(script)


@pytest.mark.parametrize("has_locks", [True, False])
def test_two_tabs_lose_and_reorder_nothing(play: Play, has_locks: bool) -> None:
    async def script(scene: Scene) -> None:
        if not has_locks:
            await scene.context.add_init_script(NO_LOCKS)
        tabs = [await scene.page(), await scene.page()]
        assert [await tab.evaluate("!!navigator.locks") for tab in tabs] == [has_locks] * 2
        sessions = [await tab.evaluate("relay.sessionId") for tab in tabs]
        scene.collector.status_for = lambda envelope: 202 if len(scene.collector.answers) % 7 else 503
        await asyncio.gather(*(tab.evaluate(CHATTER, 40) for tab in tabs))
        for tab in tabs:
            await scene.pending(tab, 0)
        for session in sessions:
            assert [seq for of, seq in scene.order() if of == session] == list(range(1, 41))
        # An event may come twice: a tab sees what another has taken out of the storage a moment later.
        if has_locks:
            assert scene.collector.most_at_once == 1

    play(script)


def test_a_tab_takes_over_what_another_has_left(play: Play) -> None:
    async def script(scene: Scene) -> None:
        left = await scene.page(**PATIENT)
        await scene.page()
        scene.collector.status_for = lambda envelope: 503
        await scene.say(left, *numbered(3))
        await left.wait_for_function("problems.length > 0")
        await left.evaluate("relay.stop()")
        scene.collector.status_for = lambda envelope: 202
        await scene.collector.has(3)
        assert scene.collector.said() == numbered(3)

    play(script)


def test_an_event_too_large_to_outlive_its_page_is_posted_all_the_same(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page()
        large = "x" * 100_000
        await scene.say(page, "s1", large, "s3")
        await scene.pending(page, 0)
        assert scene.collector.said() == ["s1", large, "s3"]

    play(script)


def test_without_storage_events_wait_in_memory(play: Play) -> None:
    async def script(scene: Scene) -> None:
        await scene.context.add_init_script(DENIED)
        page = await scene.page()
        await scene.collector.down()
        await scene.say(page, *numbered(5))
        assert (await page.evaluate("problems"))[0]["kind"] == "storage"
        assert await page.evaluate("relay.pending()") == 5
        await scene.collector.up()
        await scene.pending(page, 0)
        assert scene.collector.said() == numbered(5)
        assert len([line for line in scene.console if "storage is denied" in line]) == 1

    play(script)


@pytest.mark.parametrize("filled_by", ["the relay", "the page"])
def test_what_a_full_storage_does_not_take_waits_in_memory(play: Play, filled_by: str) -> None:
    async def script(scene: Scene) -> None:
        limit = {"maxStorageBytes": 1500} if filled_by == "the relay" else {}
        page = await scene.page(**limit)
        if filled_by == "the page":
            await page.evaluate(FILLED)
        scene.collector.status_for = lambda envelope: 503
        await scene.say(page, *numbered(10))
        assert len(await page.evaluate(STORED)) < 10
        assert (await page.evaluate("problems"))[0]["kind"] == "storage"
        assert await page.evaluate("relay.pending()") == 10
        if filled_by == "the page":
            await page.evaluate("localStorage.removeItem('other0')")
            await page.evaluate("relay.flush()")
            assert len(await page.evaluate(STORED)) == 10
        scene.collector.status_for = lambda envelope: 202
        await scene.pending(page, 0)
        assert scene.collector.said() == numbered(10)

    play(script)


def test_an_event_that_fits_nowhere_is_handed_back(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(maxStorageBytes=10, maxMemoryBytes=1000)
        scene.collector.status_for = lambda envelope: 503
        taken = await page.evaluate("['s1', 's2', 's3', 's4'].map(status => say(status))")
        assert taken[0] is True
        assert taken[-1] is False
        refused = await page.evaluate("refused")
        assert len(refused) == taken.count(False)
        assert {(each["status"], each["isLost"]) for each in refused} == {(None, True)}
        assert refused[-1]["envelope"]["event"]["payload"]["status"] == "s4"

    play(script)


def test_stop_leaves_the_rest_to_the_next_start(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page(**PATIENT)
        scene.collector.status_for = lambda envelope: 503
        await scene.say(page, *numbered(3))
        await page.wait_for_function("problems.length > 0")
        assert await page.evaluate("relay.stop()") == 3
        scene.collector.status_for = lambda envelope: 202
        assert await page.evaluate("relay.flush()") == 3
        new = await scene.start(page)
        assert await page.evaluate("relay.flush()") == 0
        assert scene.collector.said() == numbered(3)
        assert new not in {each["session_id"] for each in scene.collector.stored}

    play(script)


def test_the_bus_is_listened_to_and_nobody_else(play: Play) -> None:
    async def script(scene: Scene) -> None:
        bus_origin = scene.site.url.replace("127.0.0.1", "localhost")
        page = await scene.page(busOrigin=bus_origin)
        await page.evaluate(FRAME, f"{bus_origin}/frame")
        frame = page.frame(url=f"{bus_origin}/frame")
        said: list[Any] = [
            {"type": "BUS.REGISTER_FULFILLED", "payload": {"user": {"email": "a@b.example"}}},
            {"type": "DIALER.CALL_STATUS", "payload": {"status": "ringing"}},
            {"other": 1},
            "no json",
            None,
            '{"type": "DIALER.CALL_STATUS", "payload": {"status": "connected"}}',
            {"type": "USER.AVAILABILITY_CHANGED", "payload": {"status": "available"}},
        ]
        await frame.evaluate("all => all.forEach(each => parent.postMessage(each, '*'))", said)
        await page.evaluate("postMessage({type: 'DIALER.CALL_STATUS', payload: {status: 'forged'}}, '*')")
        await scene.collector.has(3)
        assert await page.evaluate("relay.flush()") == 0
        assert scene.collector.said() == ["ringing", "connected", "available"]

    play(script)


def test_what_is_no_event_is_not_taken(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page()
        assert await page.evaluate(NO_EVENTS) == [False] * 6
        await scene.say(page, "s1")
        await scene.collector.has(1)
        assert scene.collector.stored[0]["seq"] == 1
        assert len([line for line in scene.console if "not an event" in line]) == 6

    play(script)


def test_a_wrong_option_is_named_at_the_start(play: Play) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"token": "x"}, "agentId"),
        ({"agentId": " ", "token": "x"}, "agentId"),
        ({"agentId": 1}, "token"),
        ({"agentId": 1, "token": "two words"}, "token"),
        ({"agentId": 1, "token": "x", "timeoutMs": 0}, "timeoutMs"),
        ({"agentId": 1, "token": "x", "url": "ftp://collector.example"}, "url"),
        ({"agentId": 1, "token": "x", "url": "collector.example"}, "url"),
    ]

    async def script(scene: Scene) -> None:
        page = await scene.context.new_page()
        await page.goto(scene.site.url)
        for options, named in wrong:
            assert f"TypeError: CallfoldRelay: {named} must be" in await page.evaluate(ATTEMPT, options)

    play(script)


def test_the_address_of_the_collector_may_be_given(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page()
        for count, path in enumerate(("", "/", "/webhooks/aircall_bus"), 1):
            await page.evaluate("relay.stop()")
            await scene.start(page, url=scene.collector.url + path)
            await scene.say(page, "s1")
            await scene.collector.has(count)

    play(script)


@pytest.mark.slow
def test_a_call_in_the_browser_is_a_call_in_the_lake(runner: asyncio.Runner, tmp_path: Path) -> None:
    serving = Serving(tmp_path, CALLFOLD_AIRCALL_BUS_AUTH="bearer", CALLFOLD_AIRCALL_BUS_SECRET="real-t0ken")

    async def talk() -> None:
        async with chromium() as browser:
            context = await browser.new_context()
            scene = Scene(context)
            scene.collector.url = serving.url
            await scene.site.up()
            page = await scene.page(token="real-t0ken")
            await page.evaluate("relay.send({type: 'DIALER.DIALING', payload: {from: '+1', to: '+2'}})")
            await scene.say(page, "connecting", "ringing", "connected", "hanging", "ended")
            await scene.pending(page, 0)
            assert scene.console == []
            await scene.site.down()

    try:
        runner.run(talk())
        (call,) = until_then(lambda: calls_in(serving.lake), "the call in the lake").values()
        until_then(lambda: calls_in(serving.lake)[call["call_key"]]["outcome"] == "completed", "its end")
        call = calls_in(serving.lake)[call["call_key"]]
        assert (call["agent_id"], call["direction"], call["event_count"]) == ("41123", "outbound", 6)
        assert call["time_source"] == "provider"
        assert serving.stop() == 0
    finally:
        serving.kill_all()

"""What the relay of the Aircall Bus has not posted outlives its page and its browser, and bears a full storage."""

import asyncio
from pathlib import Path

import pytest
from browser import RecordingCollector, chromium_in, kill_chromium_in, until
from relaying import PATIENT, STORED, Play, Scene, numbered, scene_in

pytestmark = pytest.mark.browser
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
DENIED = """Object.defineProperty(window, "localStorage", {
    get() { throw new DOMException("no", "SecurityError"); }
})"""
NO_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', {value: undefined})"


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

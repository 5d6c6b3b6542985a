"""The relay of the Aircall Bus in a real browser, on a page of another origin than the collector's."""

import asyncio
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, until
from relaying import PATIENT, STORED, Play, Scene, numbered
from running import Serving, calls_in
from running import until as until_then

pytestmark = pytest.mark.browser
MADE_OLD = """() => {
    for (const [key, body] of Object.entries(localStorage)) {
        localStorage.removeItem(key);
        localStorage.setItem(key.replace(/:\\d{14}:/, ":00000000000000:"), body);
    }
}"""
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


def test_an_event_too_large_to_outlive_its_page_is_posted_all_the_same(play: Play) -> None:
    async def script(scene: Scene) -> None:
        page = await scene.page()
        large = "x" * 100_000
        await scene.say(page, "s1", large, "s3")
        await scene.pending(page, 0)
        assert scene.collector.said() == ["s1", large, "s3"]

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

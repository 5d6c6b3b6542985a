"""What a service says in its log: each line is whole, none holds what was sent, and a bad sender does not fill it."""

import asyncio
import itertools
import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from running import Serving, until

from pipeline.collect import refusals
from pipeline.collect.collector import Collector
from pipeline.logs import RepeatsLeftOut
from pipeline.settings import load_settings
from pipeline.stream.embedded import EmbeddedBroker

PROVIDERS = ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")
CLOSED = {f"CALLFOLD_{name.upper()}_AUTH": "bearer" for name in PROVIDERS}
MARK = "m4rk-0f-th3-s3nd3r"
OURS = "0ur-0wn-s3cr3t"
FORGED = "2026-01-01 00:00:00,000 ERROR pipeline: forged"
_numbers = itertools.count()


Post = Callable[..., Awaitable[tuple[int, str]]]


def play(broker: EmbeddedBroker, script: Callable[[Post], Awaitable[None]]) -> None:
    async def run() -> None:
        given = {"http.port": 0, "topics.prefix": f"g{next(_numbers)}", "spool.max_bytes": 0}
        environ = CLOSED | {"CALLFOLD_RECHO_SECRET": OURS}
        collector = Collector(load_settings(given, environ, None, PROVIDERS), broker.url, lambda *_: None)
        await collector.start()
        try:
            async with ClientSession() as session:

                async def post(path: str = "/webhooks/recho", **headers: str) -> tuple[int, str]:
                    sent = {name.replace("_", "-"): value for name, value in headers.items()}
                    sent = {"Content-Type": "application/json"} | sent
                    async with session.post(f"{collector.url}{path}", data=MARK, headers=sent) as answer:
                        return answer.status, answer.headers["X-Request-Id"]

                await script(post)
        finally:
            hurry = asyncio.Event()
            hurry.set()
            await collector.stop(hurry)

    asyncio.run(run())


def _refused(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "pipeline.collect.refusals"]


def test_a_request_is_found_again_by_its_id(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    async def script(post: Post) -> None:
        assert await post(X_Request_Id="proxy-1:a.b_c", Authorization=f"Bearer {OURS}") == (
            202,
            "proxy-1:a.b_c",
        )
        assert await post(X_Request_Id="proxy-2", Authorization="Bearer no") == (401, "proxy-2")
        (told,) = _refused(caplog)
        fields = {
            name: told.__dict__[name]
            for name in ("provider", "answer", "request_id", "body_bytes", "not_told")
        }
        assert fields == {
            "provider": "recho",
            "answer": 401,
            "request_id": "proxy-2",
            "body_bytes": len(MARK),
            "not_told": 0,
        }
        caplog.clear()
        given = ["", "x" * 65, "a b", 'a"b', "a\tb", "é", "${jndi:x}", "<b>", "a,b"]
        ids = [(await post("/webhooks/nobody", X_Request_Id=text))[1] for text in given]
        ids.append((await post("/webhooks/nobody"))[1])
        assert len(set(ids)) == len(ids)
        assert not set(ids) & set(given)
        assert _refused(caplog)[0].__dict__["request_id"] == ids[0]

    play(broker, script)


def test_refusals_are_counted_and_not_repeated(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "SAME_AGAIN_SECONDS", 3.0)

    async def script(post: Post) -> None:
        began = time.monotonic()
        for _ in range(300):
            assert (await post())[0] == 401
            assert (await post("/webhooks/whippy"))[0] == 401
            assert (await post(Content_Type="text/plain"))[0] == 415
        spans = 1 + (time.monotonic() - began) / refusals.SAME_AGAIN_SECONDS
        assert 3 <= len(_refused(caplog)) <= 3 * spans
        async with asyncio.timeout(20):
            while sum(1 + record.__dict__["not_told"] for record in _refused(caplog)) < 900:
                for headers in ({}, {"Content_Type": "text/plain"}):
                    await post(**headers)
                await post("/webhooks/whippy")
                await asyncio.sleep(0.1)
        assert len(_refused(caplog)) <= 3 * (2 + (time.monotonic() - began) / refusals.SAME_AGAIN_SECONDS)

    play(broker, script)


_SAYS = """
import logging, sys, warnings
from pipeline.logs import LogSetup, set_up_logging
set_up_logging(LogSetup(sys.argv[1], logging.INFO))
logging.getLogger("pipeline.x").info("hello", extra={"answer": 401, "provider": "recho"})
logging.getLogger("aiokafka.conn").error("broker %s\\r\\nis %s", "b1", "away")
logging.getLogger("faust").info("not told")
warnings.warn("old", UserWarning)
logging.getLogger("pipeline.x").warning("odd", extra={"path": "/a\\x1b[31m\\n" + sys.argv[2]})
try:
    {}["k"]
except KeyError:
    logging.getLogger("asyncio").exception("it failed")
"""


def _said(form: str) -> str:
    command = [sys.executable, "-c", _SAYS, form, FORGED]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr


def test_json_is_an_object_a_line_whoever_speaks() -> None:
    lines = [json.loads(line) for line in _said("json").splitlines()]
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("INFO", "pipeline.x"),
        ("ERROR", "aiokafka.conn"),
        ("WARNING", "py.warnings"),
        ("WARNING", "pipeline.x"),
        ("ERROR", "asyncio"),
    ]
    assert lines[0]["message"] == "hello"
    assert (lines[0]["answer"], lines[0]["provider"]) == (401, "recho")
    assert all({"timestamp", "message", "processName"} <= line.keys() for line in lines)
    assert "KeyError" in lines[-1]["exc_info"]


def test_a_line_for_people_stays_one_line() -> None:
    lines = _said("human").splitlines()
    assert lines[0].endswith(" INFO pipeline.x: hello [answer=401 provider=recho]")
    assert lines[1].endswith(r" ERROR aiokafka.conn: broker b1\x0d\x0ais away")
    assert not any(line.startswith(FORGED) for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_what_the_kafka_client_repeats_is_said_each_ten_seconds_with_how_often_it_came() -> None:
    sparing = RepeatsLeftOut()

    def said(logger: str, message: str, at: float, *arguments: object) -> tuple[bool, object]:
        record = logging.LogRecord(logger, logging.ERROR, "", 0, message, arguments, None)
        record.created = at
        return sparing.filter(record), record.__dict__.get("repeated")

    client, away = "aiokafka.consumer.fetcher", "node %s is away"
    assert [said(client, away, at / 10, at) for at in range(3)] == [
        (True, None),
        (False, None),
        (False, None),
    ]
    assert said(client, "another thing", 0.3) == (True, None)
    assert said("aiokafka", away, 0.3, 1) == (True, None)
    assert said(client, away, 9.9, 1) == (False, None)
    assert said(client, away, 10.0, 1) == (True, 3)
    assert said(client, away, 10.1, 1) == (False, None)
    assert said(client, away, 30.0, 1) == (True, 1)
    # A clock that was set back is no reason to keep silent.
    assert said(client, away, 5.0, 1) == (True, None)
    for other in ("pipeline.stream.worker", "asyncio", "aiohttp.server"):
        assert all(said(other, away, 0.0, 1) == (True, None) for _ in range(3))
    failed = logging.LogRecord(client, logging.ERROR, "", 0, away, (1,), (KeyError, KeyError(), None))
    assert all(sparing.filter(failed) for _ in range(3))
    for number in range(3 * sparing.KINDS_AT_MOST):
        assert said(client, f"no arguments, {number}", 40.0) == (True, None)
    assert len(sparing._told) <= sparing.KINDS_AT_MOST


def _send(port: int, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(raw)
        line.shutdown(socket.SHUT_WR)
        try:
            while line.recv(65536):
                pass
        except ConnectionError:
            return


def _attack(serving: Serving) -> None:
    port = int(serving.settings["CALLFOLD_HTTP_PORT"])
    mark, body = MARK.encode(), b'{"callId": "%s", "note": "%s' % (MARK.encode(), MARK.encode())
    rest = b"Host: x\r\nContent-Type: application/json\r\nX-Api-Key: %s\r\n" % mark
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    target = b"/webhooks/recho?token=" + mark
    forged = b"%0d%0a" + FORGED.replace(" ", "%20").encode()
    for raw in (
        b"POST %s HTTP/1.1\r\n%sAuthorization: Bearer %s\r\n%s%s" % (target, rest, mark, length, body),
        b"POST %s HTTP/1.1\r\n%sX-Recho-Signature: %s\r\n%s%s" % (target, rest, mark, length, body),
        b"POST %s HTTP/1.1\r\n%sX-Request-Id: %s\r\n%s%s" % (target, rest, forged, length, body),
        b"POST %s%s HTTP/1.1\r\n%s%s%s" % (target, forged, rest, length, body),
        b"POST /webhooks/%s%s HTTP/1.1\r\n%s%s%s" % (mark, forged, rest, length, body),
        b"POST %s HTTP/1.1\r\n%sX: %s\x00\r\n%s%s" % (target, rest, mark, length, body),
        b"POST %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n5\r\n%s" % (target, rest, mark),
        b"POST %s HTTP/1.1\r\nContent-Type: text/plain; %s\r\n%s%s" % (target, mark, rest, length),
        b"CONNECT  \r\nHost: %s\r\n\r\n" % mark,
        b"%s\r\n\r\n" % mark,
        b"\x16\x03\x01%s" % mark,
    ):
        _send(port, raw)
    assert serving.post("recho", {"callId": MARK, "note": MARK}) == 401
    for provider, payload in {
        "whippy": {"data": {"note": MARK}},
        "freeclimb": MARK,
        "interactly": [MARK],
    }.items():
        assert serving.post(provider, payload, f"?token={MARK}") == 202
    assert serving.post("freeclimb", MARK.encode()) == 202


def _series(serving: Serving) -> list[str]:
    with urllib.request.urlopen(f"{serving.url}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]


def _check_metrics(serving: Serving) -> None:
    """Collector's and worker's on one page: each series once, and nothing of a sender's in a label."""
    until(lambda: "callfold_assigned_partitions" in _series(serving), "the worker's metrics")
    series = _series(serving)
    assert "callfold_collector_ready" in series
    assert len(series) == len(set(series))
    assert MARK not in "".join(series)


def _serve(folder: Path, form: str) -> str:
    """What `serve` says, with all of its words, to senders of all kinds."""
    given: dict[str, Any] = {"CALLFOLD_RECHO_AUTH": "bearer", "CALLFOLD_RECHO_SECRET": OURS}
    serving = Serving(folder, "--debug", CALLFOLD_LOG_FORMAT=form, **given)
    try:
        _attack(serving)
        until(lambda: "a webhook was refused" in serving.said(), "the refusals")
        _check_metrics(serving)
        assert serving.stop() == 0
    finally:
        serving.kill_all()
    return serving.said()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "human"])
def test_no_line_holds_what_was_sent(form: str, tmp_path: Path) -> None:
    said = _serve(tmp_path, form)
    for word in (MARK, OURS, "forged"):
        assert word not in said, [line for line in said.splitlines() if word in line][:3]
    lines = said.splitlines()
    if form == "json":
        told = [json.loads(line) for line in lines]
        assert {"level", "logger", "message", "processName", "timestamp"} <= set.intersection(*map(set, told))
        assert {line["answer"] for line in told if "answer" in line} >= {401, 404}
        assert len({line["processName"] for line in told}) > 1
    else:
        assert any("[provider=recho answer=401 request_id=" in line for line in lines)

"""`callfold serve`, from outside: HTTP in, the lake looked at, processes killed."""

import asyncio
import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Serving, calls_in, count_in, until

from pipeline.cli import main
from pipeline.demo import compare, demo
from pipeline.errors import CallfoldError
from pipeline.query.views import connect
from pipeline.simulate import generate, send

Serve = Callable[..., Serving]
on_the_embedded_broker = pytest.mark.parametrize("broker_settings", ["embedded"], indirect=True)
"""For what only its stop promises, and for what is the same whatever the broker."""
PROVIDERS = ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")


def interactly(call_id: str, status: str, second: int, **fields: Any) -> dict[str, Any]:
    call = {
        "id": call_id,
        "status": status,
        "direction": "inbound",
        "startAt": "2026-03-05T09:21:20Z",
        **fields,
    }
    timestamp = 1_772_702_480_000 + second * 1_000
    return {"message": {"type": "status-update", "timestamp": timestamp, "call": call}}


def metrics_of(program: Serving) -> str:
    with urllib.request.urlopen(f"{program.url}/metrics", timeout=5) as answer:
        return str(answer.read(), "utf-8")


def metric(program: Serving, series: str) -> float:
    """A series by its name and labels; zero while it is not there."""
    found = [line for line in metrics_of(program).splitlines() if line.startswith(f"{series} ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def test_the_demo_proves_its_result_and_fails_loudly_on_a_wrong_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    assert demo(folder, calls=150, seed=3) == 0
    assert "equal to the truth in every column" in " ".join(capsys.readouterr().out.split())
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")
    lines = (folder / "webhooks.ndjson").read_bytes().splitlines()
    with pytest.raises(CallfoldError, match="accepted and is not in the lake"):
        compare(folder / "lake", [*lines, lines[0]])
    with pytest.raises(CallfoldError, match="never sent, or are there twice"):
        compare(folder / "lake", lines[:-1])
    damaged = next((folder / "lake" / "calls" / "hot").glob("0*-*-[1-9]*.parquet"))
    damaged.unlink()
    with pytest.raises(CallfoldError, match=r"not in the lake|should be"):
        compare(folder / "lake", lines)


def replaced(program: Any, dead: int) -> bool:
    """Whether another one stands in for a killed process, which may still be listed for a moment."""
    children = program.children()
    return dead not in children and len(children) > 1


def test_a_worker_killed_in_full_traffic_loses_and_doubles_nothing(serving: Serve) -> None:
    program = serving()
    lines = list(generate(500, 11, duplicates=0.05, shuffle=0.1))

    async def post_and_kill() -> int:
        posting = asyncio.create_task(send(lines, program.url, 8))
        for _ in range(2):
            await asyncio.sleep(0.7)
            # The collector was started first; what came after it is the worker.
            dead = program.children()[-1]
            os.kill(dead, signal.SIGKILL)
            await asyncio.to_thread(until, lambda dead=dead: replaced(program, dead), "a new worker")
        return (await posting).refused

    assert asyncio.run(post_and_kill()) == 0
    assert program.finish() == 0, program.said()
    assert "started again" in program.said()
    compare(program.lake, lines)


@on_the_embedded_broker
def test_ctrl_c_drains_what_was_accepted_and_a_second_start_goes_on(serving: Serve) -> None:
    first = serving(CALLFOLD_FLUSH_SECONDS="30")
    assert first.post("interactly", interactly("one", "ongoing", 1)) == 202
    assert first.post("interactly", interactly("two", "ongoing", 2)) == 202
    assert first.stop(signal.SIGINT) == 0, first.said()
    assert {call["state"] for call in calls_in(first.lake).values()} == {"in_progress"}
    second = serving()
    done = interactly("one", "finished", 61, endAt="2026-03-05T09:22:21Z")
    assert second.post("interactly", done) == 202
    ended = until(lambda: calls_in(second.lake, "calls").get("interactly:one"), "the call's end")
    assert (ended["outcome"], ended["event_count"], ended["revision"]) == ("completed", 2, 2)
    assert (ended["answered_at"], ended["talk_seconds"]) == ("2026-03-05T09:21:21.000000Z", 60.0)
    assert second.stop() == 0
    assert list(calls_in(second.lake, "open_calls")) == ["interactly:two"]


@on_the_embedded_broker
def test_a_quiet_call_is_closed_by_timeout_and_a_late_event_reopens_it(serving: Serve) -> None:
    program = serving(CALLFOLD_IDLE_SECONDS="2", CALLFOLD_GRACE_SECONDS="1")
    assert program.post("interactly", interactly("quiet", "ongoing", 1)) == 202
    closed = until(lambda: calls_in(program.lake, "calls").get("interactly:quiet"), "the timeout")
    assert (closed["closed_by"], closed["outcome"], closed["ended_at"]) == ("timeout", "unknown", None)
    assert closed["revision"] == 2
    # The late event is to find the call in the lake alone.
    until(lambda: "callfold_streams_in_memory 0.0" in metrics_of(program), "the call's leaving memory")
    assert program.post("interactly", interactly("quiet", "finished", 90)) == 202

    def reopened() -> Any:
        call = calls_in(program.lake, "calls").get("interactly:quiet", {})
        return call if call.get("closed_by") == "terminal" else None

    ended = until(reopened, "the end")
    assert (ended["outcome"], ended["revision"], ended["event_count"]) == ("completed", 3, 2)
    assert program.stop() == 0


def test_a_late_fact_after_the_grace_is_a_revision(serving: Serve) -> None:
    program = serving(CALLFOLD_GRACE_SECONDS="0.2")
    whippy = {"data": {"id": "w1", "delivery_status": "call_completed.user_hangup"}, "request_id": "r"}
    assert program.post("whippy", whippy | {"event": "call.ended"}) == 202
    until(lambda: calls_in(program.lake, "calls").get("whippy:w1"), "the call")
    until(lambda: "callfold_streams_in_memory 0.0" in metrics_of(program), "the call's leaving memory")
    assert program.post("whippy", whippy | {"event": "call.analyzed"}) == 202
    until(lambda: calls_in(program.lake, "calls")["whippy:w1"]["revision"] == 2, "the revision")
    assert calls_in(program.lake, "calls")["whippy:w1"]["has_analysis"] is True
    assert program.post("whippy", whippy | {"event": "call.analyzed"}) == 202
    assert program.finish() == 0
    assert count_in(program.lake, "call_revisions") == 2


def test_a_lake_that_cannot_be_written_holds_everything_until_it_can(serving: Serve) -> None:
    program = serving()
    assert program.post("interactly", interactly("before", "ongoing", 1)) == 202
    until(lambda: calls_in(program.lake), "the first call")
    until(lambda: count_in(program.lake, "webhooks") == 1, "the first webhook")
    shutil.rmtree(program.lake / "_tmp")
    (program.lake / "_tmp").write_text("in the way")
    for number in range(5):
        assert program.post("interactly", interactly(f"during-{number}", "ongoing", 2)) == 202
    program.wait_for("cannot write the lake")
    (program.lake / "_tmp").unlink()
    (program.lake / "_tmp").mkdir()
    until(lambda: len(calls_in(program.lake)) == 6, "all calls")
    assert program.finish() == 0, program.said()
    assert count_in(program.lake, "webhooks") == 6


def test_what_cannot_be_understood_is_quarantined_and_stops_nothing(serving: Serve) -> None:
    program = serving()
    bad = [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"1",
        b'{"message": {"call": {}}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ]
    for body in bad:
        for provider in PROVIDERS:
            assert program.post(provider, body) == 202, (provider, body[:20])
    assert program.post("nobody", {}) == 404
    assert program.post("recho", {"text": "x" * 1_100_000}) == 413
    assert program.post("interactly", interactly("good", "ongoing", 1)) == 202
    assert program.finish() == 0, program.said()
    assert set(calls_in(program.lake)) == {"interactly:good"}
    assert count_in(program.lake, "quarantine") == len(bad) * len(PROVIDERS)
    with connect(program.lake) as connection:
        told = connection.execute(
            "select distinct stage, code from quarantine where provider = 'recho' order by all"
        ).fetchall()
        kept = connection.execute("select body from quarantine where provider = 'whippy'").fetchall()
    assert told == [("normalise", code) for code in ("bad_shape", "empty_body", "not_json", "too_deep")]
    assert sorted(bytes(body) for (body,) in kept) == sorted(bad)


@on_the_embedded_broker
def test_the_stream_and_a_backfill_of_its_webhooks_give_the_same_lake(serving: Serve, tmp_path: Path) -> None:
    program = serving()
    lines = list(generate(200, 5, duplicates=0.05, shuffle=0.1))
    assert asyncio.run(send(lines, program.url, 8)).refused == 0
    assert program.stop() == 0, program.said()
    archive, lake = tmp_path / "export.ndjson", tmp_path / "again"
    with connect(program.lake) as connection, archive.open("w", encoding="utf-8") as out:
        rows = connection.execute(
            "select provider, strftime(received_at, '%Y-%m-%dT%H:%M:%S.%fZ'), headers, query, body from webhooks"
        ).fetchall()
        for provider, received_at, headers, query, body in rows:
            out.write(
                f'{{"provider": {json.dumps(provider)}, "received_at": {json.dumps(received_at)}, '
                f'"headers": {headers}, "query": {query}, "body": {body}}}\n'
            )
    assert main(["backfill", str(archive), "--lake", str(lake)]) == 0
    assert calls_in(lake) == calls_in(program.lake)
    assert main(["rebuild", "--from", "2026-01-01", "--to", "2026-12-31", "--lake", str(lake)]) == 0
    assert calls_in(lake) == calls_in(program.lake)


def test_unknown_events_and_other_webhooks_are_counted(serving: Serve) -> None:
    program = serving()
    assert program.post("interactly", interactly("odd", "teleported", 1)) == 202
    assert program.post("whippy", {"event": "message.received", "data": {"id": "m1"}}) == 202
    assert program.post("recho", b"{") == 202

    # Of one webhook each. One that Kafka took after it had been put into the spool is there, and counted, twice.
    for series in (
        'callfold_unknown_events_total{provider="interactly"}',
        'callfold_other_webhooks_total{provider="whippy"}',
        'callfold_quarantined_webhooks_total{code="not_json",provider="recho"}',
        'callfold_webhooks_received_total{answer="202",provider="recho"}',
    ):
        until(lambda series=series: metric(program, series) in (1.0, 2.0), series)
    assert program.finish() == 0
    odd = calls_in(program.lake, "open_calls")["interactly:odd"]
    assert (odd["raw_status"], odd["state"], odd["event_count"]) == ("teleported", "queued", 1)


@on_the_embedded_broker
@pytest.mark.parametrize("after_seconds", [0.0, 0.5, 1.5])
def test_told_to_stop_while_it_is_still_starting_it_stops_in_peace(
    serving: Serve, after_seconds: float
) -> None:
    program = serving()
    time.sleep(after_seconds)
    assert program.stop() == 0, program.said()
    assert "Traceback" not in program.said()

"""A provider is one module and one folder of cases: nothing else of the program, and no setting, has to change."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import Serving, calls_in, until

ROOT = Path(__file__).parent.parent
MODULE = '''
"""Acme Voice, which there is not: one webhook for each change of a call."""

import hmac
from collections.abc import Mapping
from typing import Any, Final, Literal

from pipeline.model import CallEvent, Rejection, Webhook, call_key
from pipeline.providers._payload import decode_any, event_id, instant, mapping, missing, text
from pipeline.providers._redacted import Redacted

KEYED_BY: Final[Literal["call", "agent"]] = "call"
REDACTED: Final = Redacted(secrets=frozenset({"apiKey"}), numbers=frozenset({"caller"}))
KEPT_HEADERS: Final[tuple[str, ...]] = ()


def is_signed(secret: bytes, headers: Mapping[str, str], body: bytes, now_us: int) -> bool:
    return hmac.compare_digest(headers.get("x-acme-token", "").encode(), secret)


def _call_id(payload: Any) -> str | None:
    return text(mapping(payload).get("call"))


def stream_key(body: bytes, query: Mapping[str, str]) -> str | None:
    call_id = _call_id(decode_any(body))
    return None if call_id is None else call_key("acme_voice", call_id)


def events(webhook: Webhook) -> list[CallEvent] | Rejection:
    payload = decode_any(webhook.body)
    if isinstance(payload, Rejection):
        return payload
    call_id, what = _call_id(payload), text(mapping(payload).get("what"))
    if call_id is None:
        return missing("call", "no call id")
    at_us = instant(payload.get("when")) or webhook.received_us
    event = CallEvent(
        event_id=event_id("acme_voice", call_id, what, at_us),
        provider="acme_voice",
        stream_key=call_key("acme_voice", call_id),
        call_id=call_id,
        event_type=what or "unknown",
        at_us=at_us,
        received_us=webhook.received_us,
        raw_status=what,
        channel="phone",
        direction="inbound",
        start_is_first_event=True,
        from_number=text(payload.get("caller")),
    )
    if what == "talking":
        event.state, event.answered_us, event.answer_evidence = "in_progress", at_us, True
    elif what == "over":
        event.state, event.outcome, event.ended_us, event.hangup_us = "ended", "completed", at_us, at_us
    return [event]
'''


def webhook(call: str, what: str, second: int) -> dict[str, Any]:
    when = f"2026-05-12T09:00:{second:02}Z"
    return {"call": call, "what": what, "when": when, "caller": "+15551234567", "apiKey": "s3cr3t-of-acme"}


def row_facts(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        row[name] for name in ("provider", "state", "outcome", "talk_seconds", "from_number", "raw_status")
    )


DONE = ("acme_voice", "ended", "completed", 20.0, "+15551234567", "over")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the program in the working directory, where Python looks first."""
    for part in ("pipeline", "sql"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "target"))
    return tmp_path


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    return subprocess.run(line, cwd=folder, env=kept, capture_output=True, text=True, timeout=60, check=False)


def test_one_module_and_one_folder_of_cases_make_a_provider(folder: Path) -> None:
    (folder / "pipeline" / "providers" / "acme_voice.py").write_text(MODULE, encoding="utf-8")
    archive = folder / "webhooks.ndjson"
    lines = [
        {"provider": "acme_voice", "received_at": "2026-05-12T09:05:00Z", "body": webhook("A1", what, second)}
        for what, second in (("over", 25), ("ringing", 0), ("talking", 5))
    ]
    archive.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    done = run(folder, "-m", "pipeline.cli", "backfill", str(archive), "--lake", "lake")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    (row,) = calls_in(folder / "lake").values()
    assert row_facts(row) == DONE
    assert (
        calls_in(folder / "lake", "(select provider as call_key, calls from kpi_daily)")["acme_voice"][
            "calls"
        ]
        == 1
    )
    assert all(b"s3cr3t-of-acme" not in file.read_bytes() for file in (folder / "lake").rglob("*.parquet"))

    cases = folder / "tests" / "fixtures" / "acme_voice" / "one_call"
    shutil.copytree(ROOT / "tests" / "providers", folder / "tests" / "providers")
    cases.mkdir(parents=True)
    shutil.move(archive, cases / "webhooks.ndjson")
    shutil.copy(ROOT / "pyproject.toml", folder)
    pytest_of = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/providers/test_golden.py")
    updated = run(folder, *pytest_of, "--update-golden")
    assert updated.returncode == 1
    assert "is updated" in updated.stdout
    checked = run(folder, *pytest_of)
    assert (checked.returncode, "4 passed" in checked.stdout) == (0, True), checked.stdout
    (kept,) = json.loads((cases / "calls.json").read_text(encoding="utf-8"))
    assert row_facts(kept) == DONE


def test_collector_topics_settings_and_views_take_a_new_provider(folder: Path) -> None:
    module = folder / "pipeline" / "providers" / "acme_voice.py"
    serving = Serving(folder)
    try:
        assert serving.post("acme_voice", webhook("A1", "ringing", 0)) == 404
        serving.kill_all()
        module.write_text(MODULE, encoding="utf-8")
        serving = Serving(folder, CALLFOLD_ACME_VOICE_AUTH="none")
        for what, second in (("ringing", 0), ("talking", 5), ("over", 25)):
            assert serving.post("acme_voice", webhook("A1", what, second)) == 202
        rows = until(lambda: calls_in(folder / "lake", "calls"), "the call in the lake")
        assert row_facts(rows["acme_voice:A1"]) == DONE
        assert serving.stop() == 0
    finally:
        serving.kill_all()


def test_settings_name_a_new_provider_as_soon_as_it_is_there(folder: Path) -> None:
    module = folder / "pipeline" / "providers" / "acme_voice.py"
    told = "from pipeline.settings import load_settings\nfrom pipeline.providers import provider_names\nimport os\n"
    told += "s = load_settings({}, {'CALLFOLD_ACME_VOICE_SECRET': 'a,b'}, None, provider_names())\n"
    told += "print(s.providers['acme_voice'].auth, *s.providers['acme_voice'].secrets)"
    before = run(folder, "-c", told)
    assert before.returncode == 1
    assert "CALLFOLD_ACME_VOICE_SECRET: no such provider" in before.stderr
    module.write_text(MODULE, encoding="utf-8")
    after = run(folder, "-c", told)
    assert after.stdout == "signature a b\n", after.stderr

"""Late events may cut an agent's stream otherwise: calls that never were leave the lake."""

import json
from pathlib import Path
from typing import Any

from running import calls_in

from pipeline.backfill import Summary, backfill
from pipeline.providers import providers
from pipeline.settings import Settings, load_settings


def said(seq: int, second: int, event: dict[str, Any], received: str) -> dict[str, Any]:
    body = {
        "agent_id": 7,
        "session_id": "s",
        "seq": seq,
        "sent_at": f"2026-05-12T09:00:{second:02}Z",
        "event": event,
    }
    return {"provider": "aircall_bus", "received_at": f"2026-05-12T{received}Z", "body": body}


def status(seq: int, second: int, word: str, received: str) -> dict[str, Any]:
    return said(
        seq, second, {"type": "DIALER.CALL_STATUS", "payload": {"status": word, "flow": "regular"}}, received
    )


def incoming(seq: int, second: int, uuid: str, received: str) -> dict[str, Any]:
    return said(
        seq, second, {"type": "DIALER.INCOMING", "payload": {"callUuid": uuid, "type": "external"}}, received
    )


def filled(settings: Settings, folder: Path, *lines: dict[str, Any]) -> Summary:
    archive = folder / "a.ndjson"
    archive.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return backfill(settings, [archive])


def lake_in(folder: Path) -> Settings:
    return load_settings({"lake": folder / "lake"}, {}, None, providers())


def facts(folder: Path, *names: str) -> dict[str, tuple[Any, ...]]:
    return {key: tuple(row[name] for name in names) for key, row in calls_in(folder / "lake").items()}


def test_a_begin_that_came_late_takes_the_call_that_never_was_away(tmp_path: Path) -> None:
    settings = lake_in(tmp_path)
    # Without its INCOMING the call seems to begin with `accepting`, and has an id of its own making.
    filled(
        settings,
        tmp_path,
        status(2, 5, "accepting", "09:00:05"),
        status(3, 6, "connected", "09:00:06"),
        status(4, 30, "ended", "09:00:30"),
    )
    ((derived, row),) = facts(tmp_path, "outcome", "direction", "revision").items()
    assert derived.startswith("aircall_bus:bus-")
    assert row == ("completed", "inbound", 3)
    late = filled(settings, tmp_path, incoming(1, 0, "CS1", "09:20:00"))
    assert late.retracted == 1
    assert facts(tmp_path, "outcome", "talk_seconds", "ring_seconds", "revision") == {
        "aircall_bus:CS1": ("completed", 24.0, 6.0, 4)
    }


def test_a_late_end_and_begin_make_two_calls_of_one_and_the_revision_rises(tmp_path: Path) -> None:
    settings = lake_in(tmp_path)
    filled(
        settings,
        tmp_path,
        incoming(1, 0, "CS1", "09:00:00"),
        status(2, 5, "connected", "09:00:05"),
        status(5, 25, "connected", "09:00:25"),
        status(6, 40, "ended", "09:00:40"),
    )
    assert facts(tmp_path, "talk_seconds", "event_count", "revision") == {"aircall_bus:CS1": (35.0, 4, 4)}
    filled(settings, tmp_path, incoming(4, 20, "CS2", "09:30:01"), status(3, 15, "ended", "09:30:00"))
    assert facts(tmp_path, "talk_seconds", "event_count", "revision") == {
        "aircall_bus:CS1": (10.0, 3, 5),
        "aircall_bus:CS2": (15.0, 3, 3),
    }


def test_the_same_events_at_once_give_the_same_calls_and_revisions(tmp_path: Path) -> None:
    lines = [
        incoming(1, 0, "CS1", "09:00:00"),
        status(2, 5, "connected", "09:00:05"),
        status(5, 25, "connected", "09:00:25"),
    ]
    lines += [
        status(6, 40, "ended", "09:00:40"),
        status(3, 15, "ended", "09:30:00"),
        incoming(4, 20, "CS2", "09:30:01"),
    ]
    found = []
    for name, batches in (
        ("at-once", [lines]),
        ("one-by-one", [[line] for line in lines]),
        ("backwards", [[line] for line in reversed(lines)]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for batch in batches:
            filled(lake_in(folder), folder, *batch)
        found.append(calls_in(folder / "lake"))
    assert found[0].keys() == {"aircall_bus:CS1", "aircall_bus:CS2"}
    assert found[1] == found[0]
    assert found[2] == found[0]

"""The oracle, tried against the written meaning of each provider's events."""

from typing import Any

import pytest

from pipeline.simulate import truth


def hook(provider: str, body: Any, at: str = "2026-03-05T09:21:20Z", **more: Any) -> dict[str, Any]:
    return {"provider": provider, "received_at": at, "body": body, **more}


def recho(*events: str, side: str = "OUTBOUND") -> dict[str, Any]:
    """Events a second apart, each `TYPE[/callStatus][@callSid][!errorCode]`."""
    hooks = []
    for second, event in enumerate(events):
        rest, _, code = event.partition("!")
        rest, _, sid = rest.partition("@")
        kind, _, status = rest.partition("/")
        data = {"callId": "r-1", "callStatus": status or kind, "callSid": sid or None}
        errors = [{"code": code, "timestamp": "2026-05-12T10:23:45.000Z"}] if code else []
        body = {"data": data, "errors": errors, "text": f"Time: {second}"}
        payload = {"projectId": "p", "eventType": f"{side}_CALL_{kind}", "body": body}
        hooks.append(hook("recho", payload, f"2026-05-12T10:24:{second:02d}Z"))
    (record,) = truth(hooks)
    return record


@pytest.mark.parametrize(
    ("events", "outcome", "answered", "attempts", "reason"),
    [
        (["PENDING", "REQUESTED@a", "CALLING@a", "CLOSING@a", "COMPLETED@a!LLM"], "completed", True, 1, None),
        (["REQUESTED@a", "CALLING@a", "ERROR/CALLING@a!NETWORK_ERROR"], "failed", False, 1, "NETWORK_ERROR"),
        (["ERROR/VOICEMAIL_REACHED"], "voicemail", True, 1, "VOICEMAIL_REACHED"),
        (["ERROR/LIMIT_REACHED"], "limit_reached", False, 1, "LIMIT_REACHED"),
        (["REQUESTED@a", "NO_RESPONSE@a", "REQUESTED@b", "BUSY@b"], "busy", False, 2, "BUSY"),
        (["REQUESTED@a", "BUSY@a", "REQUESTED@b"], None, None, 2, None),
        (["REQUESTED", "NO_RESPONSE", "REQUESTED", "CALLING"], None, None, 2, None),
        (["REQUESTED@a", "CLOSING@a"], None, True, 1, None),
        (["PENDING", "EXPIRED"], "expired", False, 1, "EXPIRED"),
        (["SOMETHING_NEW"], None, None, 1, None),
    ],
)
def test_recho_outbound(events: list[str], outcome: str, answered: bool, attempts: int, reason: str) -> None:
    record = recho(*events)
    assert [record[key] for key in ("outcome", "is_answered", "attempts", "failure_reason")] == [
        outcome,
        answered,
        attempts,
        reason,
    ]
    assert record["time_source"] == "received"


def test_recho_inbound_talks_from_calling_to_closing() -> None:
    record = recho("CONNECTING", "CALLING", "CLOSING", "COMPLETED", side="INBOUND")
    times = [record[f"{name}_seconds"] for name in ("ring", "talk", "wrap_up", "total")]
    assert (record["outcome"], times) == ("completed", [1.0, 1.0, 1.0, 3.0])


def test_recho_tells_one_event_to_two_endpoints() -> None:
    payload = {"projectId": "p", "eventType": "INBOUND_CALL_CALLING", "body": {"data": {"callId": "r"}}}
    hooks = [hook("recho", payload | {"webhookEndpoint": {"id": name}}) for name in "ab"]
    assert truth(hooks)[0]["event_count"] == 1


@pytest.mark.parametrize(
    ("status", "outcome", "answered", "trigger"),
    [
        ("call_completed.user_hangup", "completed", True, "customer"),
        ("call_completed.agent_hangup", "completed", True, "agent"),
        ("call_completed.inactivity", "completed", True, "system"),
        ("call_completed", "completed", True, "unknown"),
        ("call_completed.never_heard_of", "completed", True, "unknown"),
        ("call_completed.call_transfer", "forwarded", True, "unknown"),
        ("call_completed.dial_failed", "failed", False, "unknown"),
        ("call_completed.error_asr", "failed", True, "unknown"),
        ("call_completed.user_declined", "rejected", False, "unknown"),
        ("call_completed.voicemail_reached", "voicemail", True, "unknown"),
    ],
)
def test_whippy_reasons(status: str, outcome: str, answered: bool, trigger: str) -> None:
    data = {
        "id": "w",
        "created_at": "2024-10-31T12:54:40.379085Z",
        "updated_at": "2024-10-31T12:54:40.379085Z",
    }
    start = {"data": data, "event": "call.started", "created_at": "2024-10-31T12:54:45.500770Z"}
    end_data = data | {"delivery_status": status, "updated_at": "2024-10-31T12:55:15.500770Z"}
    end = {"data": end_data, "event": "call.ended", "created_at": "2024-10-31T12:55:16Z"}
    other = {"data": {"id": "m"}, "event": "message.sent"}
    (record,) = truth([hook("whippy", body) for body in (other, end, start)])
    assert (record["outcome"], record["is_answered"], record["end_trigger"]) == (outcome, answered, trigger)
    assert record["talk_seconds"] == (30.0 if answered else None)
    assert record["total_seconds"] == pytest.approx(35.121685)


def test_freeclimb_derives_its_times_from_the_signature() -> None:
    body = {"callId": "CA1", "requestType": "callStatus", "callStatus": "completed", "callDuration": "61"}
    body |= {
        "direction": "outboundDial",
        "parentCallId": "CA0",
        "recordingUrl": "",
        "callEndedReason": "farEndHangup",
    }
    (record,) = truth([hook("freeclimb", body, headers={"FreeClimb-Signature": "t=1772702480,v1=00"})])
    assert (record["started_at"], record["ended_at"]) == (
        "2026-03-05T09:20:19.000000Z",
        "2026-03-05T09:21:20.000000Z",
    )
    assert (record["parent_call_id"], record["is_root"], record["recording_url"]) == ("CA0", False, None)
    assert (record["end_trigger"], record["talk_seconds"], record["total_seconds"]) == (
        "customer",
        None,
        61.0,
    )
    (machine,) = truth([hook("freeclimb", body | {"callEndedReason": "machineDetected"})])
    assert (machine["outcome"], machine["answered_by"], machine["time_source"]) == (
        "voicemail",
        "machine",
        "received",
    )


def bus(*events: str) -> list[dict[str, Any]]:
    """One agent's session, a second between events: `INCOMING[=uuid]`, `SYNC[=uuid]`, or `status[/flow]`."""
    hooks = []
    for seq, event in enumerate(events):
        rest, _, uuid = event.partition("=")
        status, _, flow = rest.partition("/")
        payload: dict[str, Any] = {"status": status, "flow": flow or "regular"}
        kind = "DIALER.CALL_STATUS"
        if status in ("DIALING", "INCOMING", "SYNC"):
            kind, payload = f"DIALER.{status}", {"callUuid": uuid} if uuid else {}
            payload = {"metadata": payload} if status == "SYNC" else payload
        at = f"2026-03-05T09:{seq // 60:02d}:{seq % 60:02d}Z"
        body = {"agent_id": 7, "session_id": "s", "seq": seq, "sent_at": at}
        hooks.append(hook("aircall_bus", body | {"event": {"type": kind, "payload": payload}}, at))
    return sorted(truth(hooks), key=lambda record: record["started_at"])


@pytest.mark.parametrize(
    ("events", "outcome", "talk", "wrap_up"),
    [
        ("DIALING connecting ringing connected hanging mandatoryTagging ended", "completed", 1.0, 2.0),
        ("DIALING connecting ringing ended", "no_answer", None, None),
        ("INCOMING=u accepting connected idle", "completed", 1.0, None),
        ("accepting connected merging/warmTransfer ended", "forwarded", 2.0, None),
        ("accepting connected merging/warmTransfer connected hanging ended", "completed", 3.0, 1.0),
        ("connecting ringing/warmTransfer ended", "no_answer", None, None),
    ],
)
def test_bus_endings(events: str, outcome: str, talk: float | None, wrap_up: float | None) -> None:
    (record,) = bus(*events.split())
    assert (record["outcome"], record["talk_seconds"], record["wrap_up_seconds"]) == (outcome, talk, wrap_up)
    assert record["revision"] == record["event_count"] == len(events.split())


def test_the_bus_learns_ids_from_syncs_even_of_the_call_before() -> None:
    first, second = bus(
        *[
            "DIALING",
            "connected",
            "ended",
            "SYNC=a",
            "INCOMING=b",
            "accepting",
            "SYNC=a",
            "ended",
            "idle",
            "hanging",
        ]
    )
    assert first["call_id"].startswith("bus-")
    assert (first["provider_call_id"], first["event_count"], first["revision"]) == ("a", 5, 7)
    assert (second["call_id"], second["event_count"], second["outcome"]) == ("b", 3, "no_answer")


def test_the_derived_call_id_is_that_of_the_first_event() -> None:
    from hashlib import blake2b

    event_id = blake2b(b"aircall_bus\x1f7\x1fs\x1f0", digest_size=16).hexdigest()
    (record,) = bus("connecting", "ended")
    assert record["call_id"] == "bus-" + blake2b(event_id.encode(), digest_size=16).hexdigest()


def test_a_new_call_after_a_long_silence_closes_the_one_that_never_ended() -> None:
    def at(seq: int, sent_at: str, kind: str) -> dict[str, Any]:
        event = {"type": kind, "payload": {}}
        return hook(
            "aircall_bus",
            {"agent_id": 7, "session_id": "s", "seq": seq, "sent_at": sent_at, "event": event},
            sent_at,
        )

    hooks = [at(1, "2026-03-05T09:00:00Z", "DIALER.DIALING"), at(2, "2026-03-05T14:00:00Z", "DIALER.DIALING")]
    first, second = sorted(truth(hooks), key=lambda record: record["started_at"])
    assert (first["closed_by"], first["revision"], second["state"]) == ("timeout", 2, "queued")

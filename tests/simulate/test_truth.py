"""The oracle, tried against payloads whose meaning is written down."""

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.simulate import generate, truth

CALL = {
    "id": "WC-82015760-c3bd-427d-a23b-ba9b07e4ab85",
    "teamId": "67c0231ae6880fe48ef929ee",
    "assistantId": "697769ef5e6d94d5ad83e01e",
    "callType": "web",
    "direction": "inbound",
    "userNumber": "web-Ramesh Naik",
    "assistantNumber": "697769ef5e6d94d5ad83e01e",
}
QUEUED = CALL | {
    "startAt": "2026-03-05T09:21:19.627Z",
    "status": "queued",
    "phoneCallStatus": "in-progress",
    "callEndTriggerBy": "",
    "assistantCallDuration": 0,
    "recording": {"s3Bucket": "", "path": ""},
}
ONGOING = {
    "id": CALL["id"],
    "startAt": "2026-03-05T09:21:20.063Z",
    "status": "ongoing",
    "phoneCallStatus": "in-progress",
    "callEndTriggerBy": "",
    "assistantCallDuration": 0,
}
FINISHED = CALL | {
    "startAt": "2026-03-05T09:21:20.063Z",
    "endAt": "2026-03-05T09:22:01.739Z",
    "status": "finished",
    "phoneCallStatus": "completed",
    "callEndTriggerBy": "bot",
    "assistantCallDuration": 41683,
    "analysis": {"summary": "", "successEvaluation": "", "guardrails": "DISABLED"},
    "recording": {
        "s3Bucket": "interactly-qa-us-recordings",
        "path": "67c0231ae6880fe48ef929ee/WC-82015760-c3bd-427d-a23b-ba9b07e4ab85.mp3",
    },
    "cost": {"callDuration": 41.676, "totalCost": 0.0397529186108},
}
ANALYSIS = {"summary": "A user contacted Apollo clinic.", "successEvaluation": "Poor", "outcome": ""}


def hook(provider: str, body: Any, at: str = "2026-03-05T09:21:20Z", **more: Any) -> dict[str, Any]:
    return {"provider": provider, "received_at": at, "body": body, **more}


def message(kind: str, timestamp: int, call: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"message": {"timestamp": timestamp, "type": kind, "call": call, "assistant": {}, **more}}


TRIO = [
    hook("interactly", message("status-update", 1772702480032, QUEUED), "2026-03-05T09:21:20.1Z"),
    hook("interactly", message("conversation-update", 1772702480281, ONGOING), "2026-03-05T09:21:36Z"),
    hook(
        "interactly",
        message("end-of-call-report", 1772702523935, FINISHED, analysis=ANALYSIS),
        "2026-03-05T09:22:04Z",
    ),
]


def test_the_published_trio_of_interactly_gives_the_whole_record() -> None:
    assert truth(TRIO) == [
        {
            "call_key": "interactly:WC-82015760-c3bd-427d-a23b-ba9b07e4ab85",
            "provider": "interactly",
            "call_id": "WC-82015760-c3bd-427d-a23b-ba9b07e4ab85",
            "provider_call_id": "WC-82015760-c3bd-427d-a23b-ba9b07e4ab85",
            "parent_call_id": None,
            "is_root": True,
            "account_id": "67c0231ae6880fe48ef929ee",
            "agent_id": "697769ef5e6d94d5ad83e01e",
            "direction": "inbound",
            "channel": "web",
            "from_number": None,
            "to_number": None,
            "state": "ended",
            "outcome": "completed",
            "failure_class": None,
            "failure_reason": None,
            "raw_status": "finished",
            "end_trigger": "agent",
            "is_answered": True,
            "answered_by": "unknown",
            "is_transferred": False,
            "attempts": 1,
            "error_count": 0,
            "queued_at": "2026-03-05T09:21:20.032000Z",
            "ringing_at": None,
            "started_at": "2026-03-05T09:21:20.063000Z",
            "answered_at": None,
            "ended_at": "2026-03-05T09:22:01.739000Z",
            "ring_seconds": None,
            "talk_seconds": 41.683,
            "wrap_up_seconds": None,
            "total_seconds": 41.676,
            "reported_seconds": 41.683,
            "time_source": "provider",
            "recording_url": "s3://interactly-qa-us-recordings/67c0231ae6880fe48ef929ee/"
            "WC-82015760-c3bd-427d-a23b-ba9b07e4ab85.mp3",
            "has_analysis": True,
            "success_evaluation": "Poor",
            "cost_total": 0.0397529186108,
            "first_event_at": "2026-03-05T09:21:20.032000Z",
            "last_event_at": "2026-03-05T09:22:03.935000Z",
            "event_count": 3,
            "revision": 3,
            "closed_by": "terminal",
            "date": "2026-03-05",
        }
    ]


def test_a_report_alone_is_a_complete_record() -> None:
    (record,) = truth(TRIO[2:])
    assert (record["outcome"], record["talk_seconds"], record["queued_at"]) == ("completed", 41.683, None)


def test_an_open_call_has_no_outcome_until_it_is_silent_for_too_long() -> None:
    (record,) = truth(TRIO[:2])
    assert (record["state"], record["outcome"], record["is_answered"]) == ("in_progress", None, True)
    (late,) = truth(TRIO[:2], idle_seconds=60, as_of_us=1772702496000000 + 60_000_000)
    assert (late["state"], late["outcome"], late["closed_by"], late["revision"]) == (
        "ended",
        "unknown",
        "timeout",
        3,
    )
    (closed,) = truth(TRIO[:1], close_open=True)
    assert (closed["outcome"], closed["is_answered"], closed["ended_at"]) == ("unknown", None, None)


def test_the_same_event_by_two_deliveries_counts_once_and_a_gap_in_receipt_counts_as_a_revision() -> None:
    again = TRIO[0] | {"received_at": "2026-03-05T09:50:00Z"}
    assert truth([*TRIO, again])[0]["revision"] == 3
    report = TRIO[2] | {"received_at": "2026-03-05T17:00:00Z"}
    assert truth([*TRIO[:2], report])[0]["revision"] == 4


def test_what_cannot_be_processed_contributes_nothing() -> None:
    bodies: list[Any] = [{}, [], "not json", {"message": {"call": {"id": ""}}}, {"message": 1}, "{}", None]
    hooks = [
        hook(name, body)
        for name in ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")
        for body in bodies
    ]
    assert (
        truth([*hooks, hook("other", {"callId": "x"}), hook("freeclimb", {"callId": "x"}, at="noon")]) == []
    )


def test_a_body_may_be_its_raw_text() -> None:
    raw = [webhook | {"body": msgspec.json.encode(webhook["body"]).decode()} for webhook in TRIO]
    assert truth(raw) == truth(TRIO)


WEBHOOKS = [
    msgspec.json.decode(line)
    for line in generate(25, seed=8, days=0.1, duplicates=0.2, shuffle=0.2, late=0.1, lose=0.05)
]


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False).map(lambda random: random.sample))
def test_the_truth_does_not_depend_on_the_order_of_lines(
    sample: Callable[[list[Any], int], list[Any]],
) -> None:
    assert truth(sample(WEBHOOKS, len(WEBHOOKS)) + WEBHOOKS[:5]) == truth(WEBHOOKS)

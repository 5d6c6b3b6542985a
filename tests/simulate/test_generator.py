"""The generator keeps its promises: same seed same bytes, every outcome, and a truth that is its own plan."""

import hashlib
import itertools
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pipeline.simulate import Disturbance, Plan, generate, traffic, truth
from pipeline.simulate.traffic.chance import iso_us

OUTCOMES = {
    "interactly": {"completed", "forwarded", "no_answer", "busy", "failed", "canceled", "unknown"},
    "recho": {
        "completed", "no_answer", "busy", "unreachable", "expired", "canceled", "max_attempts", "voicemail",
        "limit_reached", "failed",
    },
    "whippy": {
        "completed", "forwarded", "busy", "no_answer", "failed", "voicemail", "rejected", "limit_reached",
    },
    "aircall_bus": {"completed", "forwarded", "no_answer"},
    "freeclimb": {"completed", "busy", "failed", "no_answer", "canceled", "voicemail"},
}  # fmt: skip

SAME = ("outcome", "is_answered", "direction", "attempts", "is_transferred")


def simulate(calls: int, seed: int, *disturbance: float) -> tuple[list[Plan], list[dict[str, Any]]]:
    plans: list[Plan] = []
    lines = traffic(calls, seed, disturbance=Disturbance(*disturbance), on_plan=plans.append)
    return plans, [msgspec.json.decode(line) for line in lines]


def disagreements(plans: Iterable[Plan], webhooks: Iterable[dict[str, Any]]) -> list[str]:
    records = truth(webhooks)
    by_key = {record["call_key"]: record for record in records}
    by_start = {(record["agent_id"], record["started_at"]): record for record in records}
    found = []
    for plan in plans:
        if plan.call_id is None:
            record = by_start.get((plan.agent_id, iso_us(plan.first_us)))
        else:
            record = by_key.get(f"{plan.provider}:{plan.call_id}")
        found += _differences(plan, record)
    return found


def _differences(plan: Plan, record: dict[str, Any] | None) -> list[str]:
    name = f"{plan.provider} {plan.call_id or plan.first_us}"
    if record is None:
        return [f"{name} is missing"]
    if plan.is_cut:
        return []
    found = [
        f"{name}: {key} {getattr(plan, key)} != {record[key]}"
        for key in SAME
        if getattr(plan, key) != record[key]
    ]
    talk = record["talk_seconds"]
    if plan.talk_seconds is not None and (talk is None or abs(plan.talk_seconds - talk) > 0.002):
        found.append(f"{name}: talked {plan.talk_seconds} != {talk}")
    if record["state"] != "ended" or record["closed_by"] != "terminal":
        found.append(f"{name}: did not end")
    return found


@pytest.fixture(scope="module")
def webhooks() -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in generate(3000, seed=1)]


@pytest.fixture(scope="module")
def records(webhooks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return truth(webhooks)


def test_the_same_seed_gives_the_same_bytes_whatever_the_hash_seed() -> None:
    program = (
        "import hashlib; from pipeline.simulate import generate;"
        "lines = generate(300, 5, duplicates=.1, shuffle=.1, late=.05, lose=.05);"
        "print(hashlib.sha256(b'\\n'.join(lines)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


def test_another_seed_gives_other_bytes() -> None:
    digests = {hashlib.sha256(b"".join(generate(20, seed))).hexdigest() for seed in range(4)}
    assert len(digests) == 4


def test_every_call_asked_for_is_there_and_a_few_still_go_on(records: list[dict[str, Any]]) -> None:
    assert len(records) == 3000
    assert 1 <= sum(record["state"] != "ended" for record in records) <= 60


def test_every_outcome_that_a_provider_can_give_occurs(records: list[dict[str, Any]]) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record["outcome"]:
            seen[record["provider"]].add(record["outcome"])
    assert seen == OUTCOMES


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_truth_is_the_plan(seed: int) -> None:
    assert disagreements(*simulate(1500, seed)) == []


@pytest.mark.parametrize("seed", [5, 6])
def test_the_truth_is_the_plan_under_repeats_and_disorder(seed: int) -> None:
    assert disagreements(*simulate(1500, seed, 0.15, 0.2, 0.03)) == []


def test_repeats_and_disorder_change_only_what_hangs_on_receipt() -> None:
    def facts(*disturbance: float) -> set[tuple[Any, ...]]:
        _, webhooks = simulate(600, 9, *disturbance)
        columns = (
            "call_key",
            "outcome",
            "failure_reason",
            "attempts",
            "error_count",
            "event_count",
            "cost_total",
        )
        return {tuple(record[column] for column in columns) for record in truth(webhooks)}

    assert facts() == facts(0.2, 0.2)


def test_lines_come_in_the_order_of_receipt() -> None:
    lines = generate(800, 3, duplicates=0.1, shuffle=0.1, late=0.1)
    times = [msgspec.json.decode(line)["received_at"] for line in lines]
    assert times == sorted(times)


def test_an_agent_has_one_call_at_a_time(records: list[dict[str, Any]]) -> None:
    by_agent = defaultdict(list)
    for record in records:
        if record["provider"] == "aircall_bus":
            by_agent[record["agent_id"]].append((record["started_at"], record["last_event_at"]))
    for spans in by_agent.values():
        for (_, until), (begin, _) in itertools.pairwise(sorted(spans)):
            assert until < begin


def test_shares_of_repeats_and_losses_are_as_asked() -> None:
    count = sum(1 for _ in generate(2000, 4))
    lost = sum(1 for _ in generate(2000, 4, lose=0.2))
    repeated = sum(1 for _ in generate(2000, 4, duplicates=0.2))
    assert lost / count == pytest.approx(0.8, abs=0.02)
    assert repeated / count == pytest.approx(1.2, abs=0.04)


def test_calls_follow_the_day_and_the_week(webhooks: list[dict[str, Any]]) -> None:
    hours = Counter(datetime.fromisoformat(webhook["received_at"]).hour for webhook in webhooks)
    assert hours[10] > 5 * hours[3]
    week = [msgspec.json.decode(line)["received_at"][:10] for line in generate(1400, 2, days=7)]
    days = Counter(week)
    assert days["2026-03-02"] > 2 * days["2026-03-08"]


def test_payloads_have_the_quirks_of_their_providers(webhooks: list[dict[str, Any]]) -> None:
    texts = Counter(
        word
        for webhook in webhooks
        for word in ("assistantSystemPrompt", "Authorization", '"assistant":{}', "USER.AVAILABILITY_CHANGED")
        if word in msgspec.json.encode(webhook["body"]).decode()
    )
    assert all(texts[word] for word in ("assistantSystemPrompt", "Authorization", '"assistant":{}'))
    assert texts["USER.AVAILABILITY_CHANGED"]
    signed = ["headers" in webhook for webhook in webhooks if webhook["provider"] == "freeclimb"]
    assert 0.8 < sum(signed) / len(signed) < 1
    bare = [webhook for webhook in webhooks if webhook.get("query")]
    assert bare
    assert all("agent_id" in webhook["query"] for webhook in bare)
    legs = [webhook for webhook in webhooks if webhook["body"].get("parentCallId")]
    assert legs
    events = {webhook["body"].get("event") for webhook in webhooks if webhook["provider"] == "whippy"}
    assert {"call.started", "call.ended", "call.analyzed", "message.sent"} <= events


def test_no_calls_are_no_lines() -> None:
    assert list(generate(0, 1)) == []


def test_a_period_of_ones_own_is_kept_to() -> None:
    start = datetime(2025, 12, 31, 12, tzinfo=UTC)
    times = sorted(
        msgspec.json.decode(line)["received_at"] for line in generate(50, 1, start=start, days=0.25)
    )
    assert times[0] >= "2025-12-31T12:00"
    assert times[-1] < "2025-12-31T20:00"

"""What a competent user would write to fold webhooks into calls: a state per stream, and a file for what changed.

Shared by all peers, so that only the framework around it differs. Webhooks of a stream (a call; on the Aircall Bus an
agent) are taken in the order of its partition, once each: nothing here recognises repeats or mends the order, and no
state is ever dropped. A stream's state is a plain dict of JSON values, as the frameworks' stores want it.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from bodies import PROVIDERS
from webhooks import Event

State = dict[str, Any]
RANK = {None: 0, "queued": 1, "ringing": 2, "in_progress": 3, "wrap_up": 4, "ended": 5}
PICKED_UP = frozenset({"completed", "forwarded", "voicemail"})
FLUSH_SECONDS = 2.0
PARTITIONS = 8
SCHEMA = pa.schema(
    [
        ("call_key", pa.string()),
        ("provider", pa.string()),
        ("direction", pa.string()),
        ("state", pa.string()),
        ("outcome", pa.string()),
        ("started_at", pa.timestamp("us", "UTC")),
        ("answered_at", pa.timestamp("us", "UTC")),
        ("ended_at", pa.timestamp("us", "UTC")),
        ("talk_seconds", pa.float64()),
        ("event_count", pa.int32()),
    ]
)


class Job:
    """What the harness asks for on the command line, and the times that it is told at the end."""

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--servers", required=True)
        parser.add_argument("--prefix", required=True, help="of the topics")
        parser.add_argument("--group", required=True, help="a consumer group that has read nothing yet")
        parser.add_argument("--count", required=True, type=int, help="webhooks on the topics")
        parser.add_argument("--out", required=True, type=Path, help="folder of the call records")
        options = parser.parse_args()
        self.servers, self.group, self.count, self.out = (
            options.servers,
            options.group,
            options.count,
            options.out,
        )
        self.topics = [f"{options.prefix}.webhooks.{name}" for name in PROVIDERS]
        self.times: dict[str, float] = {}

    def begins(self) -> None:
        """It has its partitions, and has read nothing yet."""
        self.times = {"began": time.time(), "cpu_began": time.process_time()}

    def ends(self) -> None:
        """All is written, and its offsets are committed."""
        # Faust sends what is printed to its log.
        print(json.dumps(self.times | {"ended": time.time()}), file=sys.__stdout__, flush=True)


class CallFiles:
    """The calls that changed since the last flush, written as one Parquet file of the newest row of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed: dict[str, State] = {}
        self.number = 0
        self.due = time.monotonic() + FLUSH_SECONDS

    def add(self, calls: list[State]) -> None:
        for call in calls:
            self.changed[call["call_key"]] = call

    def is_due(self) -> bool:
        return time.monotonic() >= self.due

    def flush(self) -> None:
        self.due = time.monotonic() + FLUSH_SECONDS
        if not self.changed:
            return
        rows = list(self.changed.values())
        table = pa.Table.from_pydict(
            {name: [row[name] for row in rows] for name in SCHEMA.names}, schema=SCHEMA
        )
        pq.write_table(table, self.folder / f"calls-{self.number:05}.parquet")
        self.number += 1
        self.changed.clear()


def apply(state: State, event: Event) -> list[State]:
    """Takes the event into its stream's state; the calls that it changed, which are parts of the state."""
    if event.provider == "aircall_bus":
        return _apply_to_agent(state, event)
    if not state:
        state |= _new_call(event, event.stream)
    _apply_to_call(state, event)
    return [state]


def _new_call(event: Event, call_id: str) -> State:
    return {
        "call_key": f"{event.provider}:{call_id}",
        "provider": event.provider,
        "direction": None,
        "state": None,
        "outcome": None,
        "started_at": None,
        "answered_at": None,
        "ended_at": None,
        "talk_seconds": None,
        "event_count": 0,
        # what the columns are worked out from
        "wrap_up": None,
        "hangup": None,
        "end": None,
        "if_unanswered": None,
        "has_answer": False,
        "is_refuted": False,
        "reported": None,
    }


def _apply_to_call(call: State, event: Event) -> None:
    call["event_count"] += 1
    if event.is_redial and call["state"] == "ended":
        call["state"] = call["end"] = call["answered_at"] = call["ended_at"] = None
        call["wrap_up"] = call["hangup"] = None
        call["has_answer"] = call["is_refuted"] = False
    if call["direction"] is None:
        call["direction"] = event.direction
    if event.started is not None and (call["started_at"] is None or event.provider == "interactly"):
        call["started_at"] = event.started
    if event.answered is not None and call["answered_at"] is None:
        call["answered_at"] = event.answered
    if event.is_answer:
        call["has_answer"] = True
    if event.talk_seconds is not None:
        call["reported"] = event.talk_seconds
    if event.state == "ended":
        call["state"], call["end"] = "ended", event.outcome or call["end"]
        call["ended_at"] = event.ended or call["ended_at"]
        call["if_unanswered"] = event.if_unanswered
        call["is_refuted"] = event.is_answer is False
        call["hangup"] = event.hangup or call["hangup"]
    elif RANK[event.state] > RANK[call["state"]]:
        call["state"] = event.state
    if event.state == "wrap_up" and call["wrap_up"] is None:
        call["wrap_up"] = event.hangup
    _conclude(call)


def _conclude(call: State) -> None:
    if call["state"] == "ended":
        call["outcome"] = call["end"] or ("completed" if call["has_answer"] else call["if_unanswered"])
    else:
        call["outcome"] = None
    is_answered = call["outcome"] in PICKED_UP or (
        call["outcome"] in (None, "unknown", "failed") and call["has_answer"] and not call["is_refuted"]
    )
    call["talk_seconds"] = None
    if is_answered and call["reported"] is not None:
        call["talk_seconds"] = call["reported"]
    elif is_answered and call["answered_at"] is not None and (call["wrap_up"] or call["hangup"]):
        call["talk_seconds"] = ((call["wrap_up"] or call["hangup"]) - call["answered_at"]) / 1_000_000


def _apply_to_agent(agent: State, event: Event) -> list[State]:
    """An agent's state: the call that is on or was the last, the one before it, and whether the last is on."""
    call, before = agent.get("call"), agent.get("before")
    if event.step == "begin" and not agent.get("is_on"):
        uuid = event.call_id
        is_taken = call is not None and call["uuid"] == uuid
        call_id = uuid if uuid and not is_taken else f"{event.stream}-{event.at}"
        begun = _new_call(event, call_id) | {"uuid": uuid, "started_at": event.at, "is_merging": False}
        agent |= {"before": call, "call": begun, "is_on": True}
        _apply_to_call(begun, event)
        return [begun]
    if event.step == "sync" and call is not None:
        uuid = event.call_id
        is_late = before is not None and uuid is not None and before["uuid"] == uuid != call["uuid"]
        told = before if is_late else call
        told["event_count"] += 1
        told["uuid"] = told["uuid"] or uuid
        return [told]
    if not agent.get("is_on"):
        return []
    _go_on(call, event)
    agent["is_on"] = event.step != "end"
    return [call]


def _go_on(call: State, event: Event) -> None:
    if event.step == "connected":
        # Connected again after a transfer's second leg: neither that hang-up nor the merge was the call's.
        call["wrap_up"], call["is_merging"] = None, False
        if RANK[call["state"]] > RANK["in_progress"]:
            call["state"] = "in_progress"
    elif event.step == "merging":
        call["is_merging"] = True
    elif event.step == "end" and call["is_merging"]:
        event = event._replace(outcome="forwarded")
    elif event.step == "begin" and call["has_answer"]:
        event = event._replace(state=None, direction=None)
    _apply_to_call(call, event)

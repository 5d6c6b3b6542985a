"""The fold gives what the plain one gives, for every set of events."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.assemble.cut import cut, in_stream_order
from pipeline.assemble.fold import FOREVER_US, fold, in_order
from pipeline.model import OUTCOMES, STATE_RANK, CallEvent

HERE = Path(__file__).parent
world = SimpleNamespace(**runpy.run_path(str(HERE / "world.py")))
plain = SimpleNamespace(**runpy.run_path(str(HERE / "plain_fold.py")))

IDLE_US = 30
the_same_each_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

instants = st.none() | st.integers(0, 60)
outcomes = st.none() | st.sampled_from(OUTCOMES)
names = st.sampled_from([None, None, "a", "b", ""])
numbers = st.sampled_from([None, 0.0, 1.5, 60.0])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "at_us": st.integers(0, 40),
    "received_us": st.integers(0, 99),
    "call_id": names,
    "at_source": st.sampled_from(["provider", "received"]),
    "raw_status": names,
    "state": st.sampled_from([None, *STATE_RANK, "ended"]),
    "queued_us": instants,
    "ringing_us": instants,
    "started_us": instants,
    "answered_us": instants,
    "hangup_us": instants,
    "ended_us": instants,
    "start_is_first_event": st.booleans(),
    "end_rank": st.integers(0, 2),
    "outcome": outcomes,
    "unanswered_outcome": outcomes,
    "failure_reason": names,
    "end_trigger": st.sampled_from([None, "agent", "customer", ""]),
    "answer_evidence": st.sampled_from([None, True, False]),
    "transferred": st.booleans(),
    "attempt_id": names,
    "leg": names,
    "errors": st.lists(st.sampled_from("xyz"), max_size=3).map(tuple),
    "reported_seconds": numbers,
    "fact_rank": st.sampled_from([0, 0, 0, 1, 2, -1, -2]),
    "talk_is_reported": st.booleans(),
    "total_is_reported": st.booleans(),
    "provider_call_id": names,
    "parent_call_id": names,
    "account_id": names,
    "agent_id": names,
    "direction": st.sampled_from([None, "inbound", "outbound"]),
    "channel": st.sampled_from([None, "phone", "web"]),
    "from_number": names,
    "to_number": names,
    "recording_url": names,
    "has_analysis": st.booleans(),
    "success_evaluation": names,
    "cost_total": numbers,
}


@st.composite
def calls(draw: Any) -> list[CallEvent]:
    """Events that say a few things each, of a call that says only some kinds of things."""
    kinds = draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=12, unique=True))
    told = {"at_us": FIELDS["at_us"], "received_us": FIELDS["received_us"], "state": FIELDS["state"]}
    told |= {kind: FIELDS[kind] for kind in kinds}
    events = draw(st.lists(st.fixed_dictionaries(told), min_size=1, max_size=7))
    ids = draw(st.permutations(range(len(events))))
    return [
        CallEvent(event_id=f"{number:02d}", provider="p", stream_key="p:1", event_type="t", **event)
        for number, event in zip(ids, events, strict=True)
    ]


@settings(the_same_each_time, max_examples=400)
@given(calls(), st.sampled_from([0, 50, FOREVER_US]), st.sampled_from([0, 1, IDLE_US, 500]))
def test_whatever_the_events_say(events: list[CallEvent], as_of_us: int, idle_us: int) -> None:
    told = {"as_of_us": as_of_us, "idle_us": idle_us}
    assert fold(events, **told) == plain.fold(events, **told)
    assert in_order(events) == plain.in_order(events)
    # As calls that are cut from a stream are folded: in the order given, under another's name.
    told |= {"call_id": "cut", "shaped_by": len(events) + 2}
    assert fold(events, **told) == plain.fold(events, **told)


@pytest.mark.parametrize("shares", [(), (0.3, 0.3, 0.2, 0.2)])
def test_over_simulated_traffic_whole_and_in_part(shares: tuple[float, ...]) -> None:
    streams: dict[str, dict[str, CallEvent]] = {}
    for line in world.simulated(150, 7, *shares):
        for event in world.events_of(line):
            streams.setdefault(event.stream_key, {})[event.event_id] = event
    folded = 0
    for events in (list(own.values()) for own in streams.values()):
        of_calls = [(events, {})]
        if events[0].provider in world.AGENT_PROVIDERS:
            found = cut(in_stream_order(events), world.IDLE_US)
            of_calls = [(call.events, {"call_id": call.call_id}) for call in found]
        for own, told in of_calls:
            for count in range(1, len(own) + 1):
                for as_of_us in (0, FOREVER_US):
                    told_now = {"as_of_us": as_of_us, "idle_us": world.IDLE_US, **told}
                    assert fold(own[:count], **told_now) == plain.fold(own[:count], **told_now)
                    folded += 1
    assert folded > 500

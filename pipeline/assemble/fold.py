"""The fold: a call record as a pure function of the set of the call's events.

Rule 1: nothing here reads a clock, and nothing depends on the order in which events are given.
Rule 2: nothing here knows a provider; what a provider means is in the fields of its events.

Events are put in order by (time, how far the call has come, id). A fact that is stated more than once is believed
from the event of the highest `fact_rank`, then from the newest (names and numbers: the oldest, because later
events of a transfer tell of other parties).
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final

from pipeline.assemble.facts import Believed, Counted, Times, between
from pipeline.assemble.redial import last_attempt
from pipeline.model import FAILURE_CLASS, STATE_RANK, CallEvent, CallRecord, call_key
from pipeline.model.vocabulary import PICKED_UP, EndTrigger, State

FOREVER_US: Final = 2**62
"""An `as_of` by which every call that has not ended is closed by timeout."""
DAY_US: Final = 86_400_000_000

_AT: Final = attrgetter("at_us")
_NOTHING: Final[dict[str, Any]] = dict.fromkeys(CallRecord.__struct_fields__)
_BLANK: Final[Any] = CallRecord(**_NOTHING)
"""What each record begins as a copy of, to have all its fields filled in: 1.0 us for the 44 of them. With more than 15
keywords CPython builds a dict first, and `CallRecord(...)` takes 2.6."""


def in_order(events: Iterable[CallEvent]) -> list[CallEvent]:
    """The events as they happened; the same list whatever order they are given in."""
    ordered = sorted(events, key=_AT)
    if len(set(map(_AT, ordered))) < len(ordered):
        # Rare, and the whole key takes three times as long.
        ordered.sort(key=lambda e: (e.at_us, STATE_RANK.get(e.state or "", 0), e.event_id))
    return ordered


def idle_gaps(received: Sequence[int], newest_us: int, idle_us: int) -> int:
    """How many times the call had been closed by timeout before an event, received at one of these, reopened it."""
    if newest_us - min(received) < idle_us:
        return 0
    return sum(1 for before, after in pairwise(sorted(received)) if after - before >= idle_us)


def fold(
    events: Sequence[CallEvent],
    *,
    as_of_us: int,
    idle_us: int,
    call_id: str | None = None,
    shaped_by: int | None = None,
) -> CallRecord:
    """The record of one call from its distinct events (at least one), seen at `as_of_us`.

    `call_id` names a call that was cut from a stream, whose events are then given in their order; `shaped_by`
    is the number of events that shaped it, where that is more than its own. Without an end a call is closed by
    timeout once `idle_us` have passed since an event was last received.
    """
    is_cut = call_id is not None
    ordered = events if is_cut else in_order(events)
    first = ordered[0]
    call_id = call_id or first.call_id or ""
    received = [event.received_us for event in ordered]
    newest_us = max(received)
    attempt, end = last_attempt(ordered)
    ends = [event for event in attempt if event.state == "ended"] if end else []
    is_over = end is not None
    is_timeout = not is_over and as_of_us - newest_us >= idle_us
    has_evidence = _has_evidence(attempt)

    outcome = _outcome(end, is_timeout, has_evidence)
    is_answered = _is_answered(outcome, end, has_evidence)
    believed, counted = Believed(ordered), Counted(ordered)
    times = Times(ordered, attempt, ends, is_answered)
    failed = outcome is not None and FAILURE_CLASS[outcome] is not None
    state: State = "ended" if is_over or is_timeout else _open_state(attempt)
    start_us = first.at_us if counted.starts_with_first else believed.started_us
    first_us, last_us = first.at_us, ordered[-1].at_us
    if is_cut:
        # Events cut from a stream stand in its order, in which a clock may go back.
        at = [event.at_us for event in ordered]
        first_us, last_us = min(at), max(at)
    record: CallRecord = _BLANK.__copy__()
    believed.tell(record)
    counted.tell(record)
    times.tell(record, is_over)
    record.call_key = call_key(first.provider, call_id)
    record.provider = first.provider
    record.call_id = call_id
    record.provider_call_id = first.call_id or believed.provider_call_id
    record.state = state
    record.outcome = outcome
    record.failure_class = FAILURE_CLASS[outcome] if outcome else None
    record.failure_reason = end.failure_reason if end and failed else None
    record.raw_status = _last_status(ends if end else ordered)
    record.end_trigger = _end_trigger(ends, end, is_timeout)
    record.is_answered = is_answered
    record.answered_by = ("machine" if outcome == "voicemail" else "unknown") if is_answered else None
    record.started_us = start_us
    record.talk_seconds = _talk_seconds(
        times, is_answered, believed.reported_seconds, counted.talk_is_reported
    )
    record.total_seconds = _total_seconds(end, start_us, times.ended_us, believed.reported_seconds)
    record.time_source = _time_source(ordered) if counted.is_from_receipt else "provider"
    record.first_event_us = first_us
    record.last_event_us = last_us
    record.event_count = len(ordered)
    record.revision = (shaped_by or len(ordered)) + idle_gaps(received, newest_us, idle_us) + is_timeout
    record.closed_by = "terminal" if is_over else "timeout" if is_timeout else None
    record.date_day = (first_us if start_us is None else start_us) // DAY_US
    return record


def _has_evidence(attempt: Sequence[CallEvent]) -> bool:
    for event in attempt:  # noqa: SIM110 (a generator for `any` takes twice as long)
        if event.answer_evidence:
            return True
    return False


def _outcome(end: CallEvent | None, is_timeout: bool, has_evidence: bool) -> Any:
    if end is None:
        return "unknown" if is_timeout else None
    if end.outcome is not None:
        return end.outcome
    return "completed" if has_evidence else end.unanswered_outcome or "unknown"


def _is_answered(outcome: str | None, end: CallEvent | None, has_evidence: bool) -> bool | None:
    if outcome in PICKED_UP:
        return True
    if outcome is None or outcome == "unknown":
        return True if has_evidence else None
    if outcome == "failed":
        return has_evidence and not (end is not None and end.answer_evidence is False)
    return False


def _open_state(attempt: Sequence[CallEvent]) -> State:
    known = [e.state for e in attempt if e.state is not None and e.state != "ended"]
    return max(known, key=STATE_RANK.__getitem__, default="queued")


def _end_trigger(ends: Sequence[CallEvent], end: CallEvent | None, is_timeout: bool) -> EndTrigger | None:
    if end is None:
        return "unknown" if is_timeout else None
    if end.end_trigger:
        return end.end_trigger
    told = [event.end_trigger for event in ends if event.end_trigger is not None]
    return told[-1] if told else "unknown"


def _last_status(ordered: Sequence[CallEvent]) -> str | None:
    for event in reversed(ordered):
        if event.raw_status is not None:
            return event.raw_status
    return None


def _talk_seconds(
    times: Times, is_answered: bool | None, reported: float | None, talk_is_reported: bool
) -> float | None:
    if not is_answered:
        return None
    if reported is not None and talk_is_reported:
        return reported
    return between(times.answered_us, times.hangup_us)


def _total_seconds(
    end: CallEvent | None, start_us: int | None, ended_us: int | None, reported: float | None
) -> float | None:
    if end is not None and end.total_is_reported and reported is not None:
        return reported
    return between(start_us, ended_us)


def _time_source(ordered: Sequence[CallEvent]) -> Any:
    timed = [e for e in ordered if e.start_is_first_event or _states_a_time(e)]
    if not timed and any(event.started_us is not None for event in ordered):
        return "provider"
    return "received" if any(event.at_source == "received" for event in timed or ordered) else "provider"


def _states_a_time(e: CallEvent) -> bool:
    stated = (e.queued_us, e.ringing_us, e.answered_us, e.hangup_us, e.ended_us)
    return any(us is not None for us in stated)

"""The fold as it reads most plainly: a pass over the events for each fact. The oracle of `pipeline.assemble.fold`."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

from pipeline.assemble.redial import _is_redialling, _of_last_end
from pipeline.model import FAILURE_CLASS, STATE_RANK, CallEvent, CallRecord, call_key
from pipeline.model.vocabulary import PICKED_UP, EndTrigger, State

FOREVER_US: Final = 2**62
"""An `as_of` by which every call that has not ended is closed by timeout."""
DAY_US: Final = 86_400_000_000


def in_order(events: Iterable[CallEvent]) -> list[CallEvent]:
    """The events as they happened; the same list whatever order they are given in."""
    return sorted(events, key=lambda e: (e.at_us, STATE_RANK.get(e.state or "", 0), e.event_id))


def idle_gaps(events: Iterable[CallEvent], idle_us: int) -> int:
    """How many times the call had been closed by timeout before one of its events reopened it."""
    received = sorted(event.received_us for event in events)
    return sum(1 for before, after in pairwise(received) if after - before >= idle_us)


def last_attempt(ordered: Sequence[CallEvent]) -> tuple[Sequence[CallEvent], CallEvent | None]:
    """The events of the last attempt, and the end that decides; no end while the call is going on."""
    ends = [event for event in ordered if event.state == "ended"]
    if not ends:
        return ordered, None
    if not any(event.attempt_id is not None for event in ordered) and all(e.leg is None for e in ordered):
        place = {event.event_id: index for index, event in enumerate(ordered)}
        return ordered, max(ends, key=lambda e: (e.end_rank, e.fact_rank, place[e.event_id]))
    if _is_redialling(ordered, ends):
        return [e for e in ordered if e.at_us >= ends[-1].at_us and e.state != "ended"], None
    return _of_last_end(ordered, ends), ends[-1]


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
    ordered = in_order(events) if call_id is None else list(events)
    first = ordered[0]
    call_id = call_id or first.call_id or ""
    attempt, end = last_attempt(ordered)
    is_over = end is not None
    is_timeout = not is_over and as_of_us - max(e.received_us for e in ordered) >= idle_us
    has_evidence = any(event.answer_evidence for event in attempt)

    outcome = _outcome(end, is_timeout, has_evidence)
    is_answered = _is_answered(outcome, end, has_evidence)
    reported = _newest(ordered, "reported_seconds")
    times = _Times(ordered, attempt, end, is_answered)
    failed = outcome is not None and FAILURE_CLASS[outcome] is not None
    state: State = "ended" if is_over or is_timeout else _open_state(attempt)
    start_us = times.started_us
    first_us, last_us = min(e.at_us for e in ordered), max(e.at_us for e in ordered)
    revision = (shaped_by or len(ordered)) + idle_gaps(ordered, idle_us) + is_timeout
    parent = _oldest(ordered, "parent_call_id")
    return CallRecord(
        call_key=call_key(first.provider, call_id),
        provider=first.provider,
        call_id=call_id,
        provider_call_id=first.call_id or _oldest(ordered, "provider_call_id"),
        parent_call_id=parent,
        is_root=parent is None,
        account_id=_oldest(ordered, "account_id"),
        agent_id=_oldest(ordered, "agent_id"),
        direction=_oldest(ordered, "direction") or "unknown",
        channel=_oldest(ordered, "channel") or "unknown",
        from_number=_oldest(ordered, "from_number"),
        to_number=_oldest(ordered, "to_number"),
        state=state,
        outcome=outcome,
        failure_class=FAILURE_CLASS[outcome] if outcome else None,
        failure_reason=end.failure_reason if end and failed else None,
        raw_status=_last_status([e for e in attempt if e.state == "ended"] if end else ordered),
        end_trigger=_end_trigger(attempt, end, is_timeout),
        is_answered=is_answered,
        answered_by=("machine" if outcome == "voicemail" else "unknown") if is_answered else None,
        is_transferred=any(event.transferred for event in ordered),
        attempts=max(1, len({e.attempt_id for e in ordered if e.attempt_id is not None})),
        error_count=len({error for e in ordered for error in e.errors}),
        queued_us=times.queued_us,
        ringing_us=times.ringing_us,
        started_us=start_us,
        answered_us=times.answered_us,
        ended_us=times.ended_us,
        ring_seconds=times.ring_seconds(is_over),
        talk_seconds=_talk_seconds(ordered, times, is_answered, reported),
        wrap_up_seconds=times.wrap_up_seconds(),
        total_seconds=_total_seconds(end, times, reported),
        reported_seconds=reported,
        time_source=_time_source(ordered),
        recording_url=_newest(ordered, "recording_url"),
        has_analysis=any(event.has_analysis for event in ordered),
        success_evaluation=_newest(ordered, "success_evaluation"),
        cost_total=_newest(ordered, "cost_total"),
        first_event_us=first_us,
        last_event_us=last_us,
        event_count=len(ordered),
        revision=revision,
        closed_by="terminal" if is_over else "timeout" if is_timeout else None,
        date_day=(first_us if start_us is None else start_us) // DAY_US,
    )


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


def _end_trigger(attempt: Sequence[CallEvent], end: CallEvent | None, is_timeout: bool) -> EndTrigger | None:
    if end is None:
        return "unknown" if is_timeout else None
    told = [e.end_trigger for e in attempt if e.state == "ended" and e.end_trigger is not None]
    return end.end_trigger or (told[-1] if told else "unknown")


def _last_status(ordered: Sequence[CallEvent]) -> str | None:
    return next((e.raw_status for e in reversed(ordered) if e.raw_status is not None), None)


def _newest(ordered: Sequence[CallEvent], name: str) -> Any:
    """The fact from the event of the highest rank, of several the newest."""
    best, best_rank = None, -1
    for event in ordered:
        value = getattr(event, name)
        if value is not None and event.fact_rank >= best_rank:
            best, best_rank = value, event.fact_rank
    return best


def _oldest(ordered: Sequence[CallEvent], name: str) -> Any:
    """The fact from the event of the highest rank, of several the oldest."""
    best, best_rank = None, -1
    for event in ordered:
        value = getattr(event, name)
        if value is not None and event.fact_rank > best_rank:
            best, best_rank = value, event.fact_rank
    return best


class _Times:
    """The call's instants, each from the events that may tell it, and the lengths between them."""

    def __init__(
        self,
        ordered: Sequence[CallEvent],
        attempt: Sequence[CallEvent],
        end: CallEvent | None,
        is_answered: bool | None,
    ) -> None:
        self.queued_us: int | None = min(
            (e.queued_us for e in ordered if e.queued_us is not None), default=None
        )
        rings = sorted(e.ringing_us for e in ordered if e.ringing_us is not None)
        self.ringing_us: int | None = rings[0] if rings else None
        if any(event.start_is_first_event for event in ordered):
            self.started_us: int | None = ordered[0].at_us
        else:
            self.started_us = _newest(ordered, "started_us")
        self.ended_us: int | None = (
            None if end is None else _newest([e for e in attempt if e.state == "ended"], "ended_us")
        )
        answers = [e.answered_us for e in attempt if e.answered_us is not None]
        self.answered_us: int | None = min(answers) if answers and is_answered else None
        self._is_answered = is_answered
        self._wrap_up_us = min(
            (e.hangup_us for e in attempt if e.state == "wrap_up" and e.hangup_us is not None), default=None
        )
        at_end = _newest([e for e in attempt if e.state == "ended"], "hangup_us") if end else None
        self.hangup_us: int | None = at_end if self._wrap_up_us is None else self._wrap_up_us
        if self.hangup_us is not None and self.ended_us is not None and self.hangup_us > self.ended_us:
            # A hang-up told of after the end came late: when it was is not known.
            self.hangup_us = self._wrap_up_us = None
        until = self.answered_us if is_answered else self.ended_us
        before = [ring for ring in rings if until is not None and ring <= until]
        self._ring_from = before[-1] if before else None

    def ring_seconds(self, is_over: bool) -> float | None:
        """How long it rang, the last time: until the answer, or until the end of an unanswered call."""
        if self._is_answered is None or not (self._is_answered or is_over):
            return None
        return _between(self._ring_from, self.answered_us if self._is_answered else self.ended_us)

    def wrap_up_seconds(self) -> float | None:
        """From the hang-up to the end, where the provider tells the two apart."""
        return _between(self._wrap_up_us, self.ended_us)


def _between(from_us: int | None, to_us: int | None) -> float | None:
    """Seconds from one instant to a later one; None if either is unknown or they contradict each other."""
    if from_us is None or to_us is None or to_us < from_us:
        return None
    return (to_us - from_us) / 1_000_000


def _talk_seconds(
    ordered: Sequence[CallEvent], times: _Times, is_answered: bool | None, reported: float | None
) -> float | None:
    if not is_answered:
        return None
    if reported is not None and any(event.talk_is_reported for event in ordered):
        return reported
    return _between(times.answered_us, times.hangup_us)


def _total_seconds(end: CallEvent | None, times: _Times, reported: float | None) -> float | None:
    if end is not None and end.total_is_reported and reported is not None:
        return reported
    return _between(times.started_us, times.ended_us)


def _time_source(ordered: Sequence[CallEvent]) -> Any:
    timed = [e for e in ordered if e.start_is_first_event or _states_a_time(e)]
    if not timed and any(event.started_us is not None for event in ordered):
        return "provider"
    return "received" if any(event.at_source == "received" for event in timed or ordered) else "provider"


def _states_a_time(e: CallEvent) -> bool:
    stated = (e.queued_us, e.ringing_us, e.answered_us, e.hangup_us, e.ended_us)
    return any(us is not None for us in stated)

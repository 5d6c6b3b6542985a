"""What the events of a call state, gathered in passes over them: names and numbers, counted things, instants.

Each pass is one loop over the events with one look at each field, since the fold is what a worker spends most of its
time on: a function for each fact, each with a loop of its own, takes three times as long.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from pipeline.model import CallEvent, CallRecord, Channel, Direction

_RANK: Final = attrgetter("fact_rank")


class Believed:
    """A fact that is stated more than once, believed from the event of the highest `fact_rank`."""

    __slots__ = (
        "account_id", "agent_id", "channel", "cost_total", "direction", "from_number", "parent_call_id",
        "provider_call_id", "recording_url", "reported_seconds", "started_us", "success_evaluation", "to_number",
    )  # fmt: skip

    def __init__(self, ordered: Sequence[CallEvent]) -> None:
        ranks = set(map(_RANK, ordered))
        if len(ranks) == 1 and min(ranks) >= 0:
            self._take_oldest(ordered[::-1])
            self._take_newest(ordered)
        else:
            # Sorting keeps the order of those of one rank. What a rank below zero states is believed by accident.
            self._take_oldest(sorted((e for e in reversed(ordered) if e.fact_rank > -1), key=_RANK))
            self._take_newest(sorted((e for e in ordered if e.fact_rank >= -1), key=_RANK))

    def _take_oldest(self, oldest_last: Sequence[CallEvent]) -> None:
        """Names and numbers: of several the oldest, because later events of a transfer tell of other parties."""
        provider_call_id: str | None = None
        parent_call_id: str | None = None
        account_id: str | None = None
        agent_id: str | None = None
        direction: Direction | None = None
        channel: Channel | None = None
        from_number: str | None = None
        to_number: str | None = None
        for event in oldest_last:
            if event.provider_call_id is not None:
                provider_call_id = event.provider_call_id
            if event.parent_call_id is not None:
                parent_call_id = event.parent_call_id
            if event.account_id is not None:
                account_id = event.account_id
            if event.agent_id is not None:
                agent_id = event.agent_id
            if event.direction is not None:
                direction = event.direction
            if event.channel is not None:
                channel = event.channel
            if event.from_number is not None:
                from_number = event.from_number
            if event.to_number is not None:
                to_number = event.to_number
        self.provider_call_id, self.parent_call_id = provider_call_id, parent_call_id
        self.account_id, self.agent_id = account_id, agent_id
        self.direction, self.channel = direction, channel
        self.from_number, self.to_number = from_number, to_number

    def _take_newest(self, newest_last: Sequence[CallEvent]) -> None:
        """Everything else: of several the newest."""
        reported_seconds: float | None = None
        started_us: int | None = None
        recording_url: str | None = None
        success_evaluation: str | None = None
        cost_total: float | None = None
        for event in newest_last:
            if event.reported_seconds is not None:
                reported_seconds = event.reported_seconds
            if event.started_us is not None:
                started_us = event.started_us
            if event.recording_url is not None:
                recording_url = event.recording_url
            if event.success_evaluation is not None:
                success_evaluation = event.success_evaluation
            if event.cost_total is not None:
                cost_total = event.cost_total
        self.reported_seconds, self.started_us, self.recording_url = (
            reported_seconds,
            started_us,
            recording_url,
        )
        self.success_evaluation, self.cost_total = success_evaluation, cost_total

    def tell(self, record: CallRecord) -> None:
        """Fills in what is nothing but believed."""
        record.parent_call_id = self.parent_call_id
        record.is_root = self.parent_call_id is None
        record.account_id, record.agent_id = self.account_id, self.agent_id
        record.direction, record.channel = self.direction or "unknown", self.channel or "unknown"
        record.from_number, record.to_number = self.from_number, self.to_number
        record.reported_seconds, record.cost_total = self.reported_seconds, self.cost_total
        record.recording_url, record.success_evaluation = self.recording_url, self.success_evaluation


class Counted:
    """What any of the events may say, and what is counted over all of them."""

    __slots__ = (
        "attempts", "errors", "has_analysis", "is_from_receipt", "queued_us", "starts_with_first",
        "talk_is_reported", "transferred",
    )  # fmt: skip

    def __init__(self, ordered: Sequence[CallEvent]) -> None:
        transferred = has_analysis = talk_is_reported = starts_with_first = is_from_receipt = False
        attempts: set[str] | None = None
        errors: set[str] | None = None
        queued_us: int | None = None
        for event in ordered:
            if event.transferred:
                transferred = True
            if event.has_analysis:
                has_analysis = True
            if event.talk_is_reported:
                talk_is_reported = True
            if event.start_is_first_event:
                starts_with_first = True
            if event.at_source == "received":
                is_from_receipt = True
            if event.attempt_id is not None:
                attempts = {event.attempt_id} if attempts is None else attempts | {event.attempt_id}
            if event.errors:
                errors = {*event.errors} if errors is None else errors.union(event.errors)
            if event.queued_us is not None and (queued_us is None or event.queued_us < queued_us):
                queued_us = event.queued_us
        self.transferred, self.has_analysis = transferred, has_analysis
        self.talk_is_reported, self.starts_with_first = talk_is_reported, starts_with_first
        self.is_from_receipt = is_from_receipt
        """Whether the time of any event is only that of its receipt."""
        self.attempts, self.errors = len(attempts or ()), len(errors or ())
        self.queued_us = queued_us

    def tell(self, record: CallRecord) -> None:
        """Fills in what is nothing but counted, or said by any."""
        record.is_transferred, record.has_analysis = self.transferred, self.has_analysis
        record.attempts, record.error_count = self.attempts or 1, self.errors
        record.queued_us = self.queued_us


class Times:
    """The call's instants, each from the events that may tell it, and the lengths between them."""

    __slots__ = (
        "_is_answered",
        "_ring_from",
        "_wrap_up_us",
        "answered_us",
        "ended_us",
        "hangup_us",
        "ringing_us",
    )

    def __init__(
        self,
        ordered: Sequence[CallEvent],
        attempt: Sequence[CallEvent],
        ends: Sequence[CallEvent],
        is_answered: bool | None,
    ) -> None:
        """`ends` are the ended ones of `attempt`; none while the call is going on."""
        self._is_answered = is_answered
        answered_us: int | None = None
        wrap_up_us: int | None = None
        for event in attempt:
            if event.answered_us is not None and (answered_us is None or event.answered_us < answered_us):
                answered_us = event.answered_us
            if (
                event.state == "wrap_up"
                and event.hangup_us is not None
                and (wrap_up_us is None or event.hangup_us < wrap_up_us)
            ):
                wrap_up_us = event.hangup_us
        self.answered_us = answered_us if is_answered else None
        ended_us, hangup_us = _of_ends(ends)
        self.ended_us, self._wrap_up_us = ended_us, wrap_up_us
        self.hangup_us = hangup_us if wrap_up_us is None else wrap_up_us
        if self.hangup_us is not None and ended_us is not None and self.hangup_us > ended_us:
            # A hang-up told of after the end came late: when it was is not known.
            self.hangup_us = self._wrap_up_us = None
        self._take_rings(ordered, self.answered_us if is_answered else ended_us)

    def _take_rings(self, ordered: Sequence[CallEvent], until_us: int | None) -> None:
        ringing_us: int | None = None
        ring_from: int | None = None
        for event in ordered:
            ring = event.ringing_us
            if ring is not None:
                if ringing_us is None or ring < ringing_us:
                    ringing_us = ring
                if until_us is not None and ring <= until_us and (ring_from is None or ring > ring_from):
                    ring_from = ring
        self.ringing_us, self._ring_from = ringing_us, ring_from

    def tell(self, record: CallRecord, is_over: bool) -> None:
        """Fills in the instants, and the lengths that hang on nothing else."""
        record.ringing_us, record.answered_us, record.ended_us = (
            self.ringing_us,
            self.answered_us,
            self.ended_us,
        )
        record.ring_seconds, record.wrap_up_seconds = self.ring_seconds(is_over), self.wrap_up_seconds()

    def ring_seconds(self, is_over: bool) -> float | None:
        """How long it rang, the last time: until the answer, or until the end of an unanswered call."""
        if self._is_answered is None or not (self._is_answered or is_over):
            return None
        return between(self._ring_from, self.answered_us if self._is_answered else self.ended_us)

    def wrap_up_seconds(self) -> float | None:
        """From the hang-up to the end, where the provider tells the two apart."""
        return between(self._wrap_up_us, self.ended_us)


def _of_ends(ends: Sequence[CallEvent]) -> tuple[int | None, int | None]:
    """The ends' `ended_us` and `hangup_us`, from the event of the highest rank, of several the newest."""
    ended_us = hangup_us = None
    ended_rank = hangup_rank = -1
    for event in ends:
        rank = event.fact_rank
        if event.ended_us is not None and rank >= ended_rank:
            ended_us, ended_rank = event.ended_us, rank
        if event.hangup_us is not None and rank >= hangup_rank:
            hangup_us, hangup_rank = event.hangup_us, rank
    return ended_us, hangup_us


def between(from_us: int | None, to_us: int | None) -> float | None:
    """Seconds from one instant to a later one; None if either is unknown or they contradict each other."""
    if from_us is None or to_us is None or to_us < from_us:
        return None
    return (to_us - from_us) / 1_000_000

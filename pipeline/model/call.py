"""The call record: one row of `calls`, in the order of its columns."""

import msgspec

from pipeline.model.vocabulary import (
    AnsweredBy,
    Channel,
    ClosedBy,
    Direction,
    EndTrigger,
    Outcome,
    State,
    TimeSource,
)


def call_key(provider: str, call_id: str) -> str:
    """`provider:call_id`, the key everywhere: a call id is unique only within its provider."""
    return f"{provider}:{call_id}"


class CallRecord(msgspec.Struct, kw_only=True, gc=False):
    """What is known of one call. A pure function of the set of its events and of the time it is looked at."""

    call_key: str
    provider: str
    call_id: str
    provider_call_id: str | None
    """The id in the provider's own books, which the bus may learn late or never."""
    parent_call_id: str | None
    is_root: bool
    account_id: str | None
    agent_id: str | None
    direction: Direction
    channel: Channel
    from_number: str | None
    to_number: str | None
    state: State
    outcome: Outcome | None
    failure_class: str | None
    failure_reason: str | None
    """The provider's own word, untouched and not comparable between providers."""
    raw_status: str | None
    end_trigger: EndTrigger | None
    is_answered: bool | None
    answered_by: AnsweredBy | None
    is_transferred: bool
    attempts: int
    error_count: int
    queued_us: int | None
    ringing_us: int | None
    started_us: int | None
    answered_us: int | None
    ended_us: int | None
    ring_seconds: float | None
    talk_seconds: float | None
    wrap_up_seconds: float | None
    total_seconds: float | None
    reported_seconds: float | None
    time_source: TimeSource
    recording_url: str | None
    has_analysis: bool
    success_evaluation: str | None
    cost_total: float | None
    first_event_us: int
    last_event_us: int
    event_count: int
    revision: int
    closed_by: ClosedBy | None
    date_day: int
    """UTC date of the start, in days since the epoch."""

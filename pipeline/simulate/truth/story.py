"""What a provider's module says about one call before the common columns are worked out."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.simulate.truth.hook import Event


class Moment(NamedTuple):
    """An instant, and whose clock it is (`provider` or `received`)."""

    us: int
    source: str


def moment_of(event: Event) -> Moment:
    """When the event happened."""
    return Moment(event.at_us, event.at_source)


def first_of(events: list[Event]) -> Moment | None:
    """When the first of these events happened, if there is one."""
    return min(map(moment_of, events), default=None)


@dataclass(slots=True)
class Story:
    """One call as its provider's events tell it."""

    provider: str
    call_id: str
    events: list[Event]
    provider_call_id: str | None = None
    parent_call_id: str | None = None
    account_id: str | None = None
    agent_id: str | None = None
    direction: str = "unknown"
    channel: str = "phone"
    from_number: str | None = None
    to_number: str | None = None
    state: str = "queued"
    outcome: str | None = None
    """None while the call is open, or was until it timed out."""
    failure_reason: str | None = None
    raw_status: str | None = None
    end_trigger: str = "unknown"
    answer_evidence: bool = False
    is_transferred: bool = False
    attempts: int = 1
    error_count: int = 0
    queued: Moment | None = None
    ringings: list[Moment] = field(default_factory=list)
    started: Moment | None = None
    answered: Moment | None = None
    ended: Moment | None = None
    hangup_us: int | None = None
    """When the parties stopped talking, where wrap-up follows; only then is there a wrap-up time."""
    talk_until_us: int | None = None
    stated_talk_seconds: float | None = None
    stated_total_seconds: float | None = None
    reported_seconds: float | None = None
    recording_url: str | None = None
    has_analysis: bool = False
    success_evaluation: str | None = None
    cost_total: float | None = None
    revised_by: int | None = None
    """How many events could have changed the record, where that is not the number of its own events."""
    is_timed_out: bool = False
    """The stream itself shows that the call was given up, whatever the time is now."""

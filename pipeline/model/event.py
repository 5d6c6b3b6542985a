"""One normalised event: what a single webhook says about a call, in Callfold's words.

A `CallEvent` is what is left of a webhook once the provider's vocabulary is translated. It decides nothing by
itself: the record is `fold(set of events)`. Every field after the first block is optional, and None means "this
event does not say", which is why a new field never needs a migration.
"""

from typing import Annotated, Final

import msgspec

from pipeline.model.vocabulary import Channel, Direction, EndTrigger, Outcome, State, TimeSource

Instant = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""Microseconds since the epoch, of years that every calendar has. Kept to where a message is decoded."""
Rank = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

FORGOTTEN: Final = "callfold.forgotten"
"""The type of what is left of an event that was erased from a stream that calls are cut out of: its place in it."""


class CallEvent(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A distinct thing that happened to a call: JSON on the topic `call-events`, a row of `call_events`."""

    event_id: str
    """The same for every delivery of this event, and for no other (128 bits, hexadecimal)."""
    provider: str
    stream_key: str
    """What the event is keyed by in Kafka: the call key, or, where calls are cut from it, the agent's stream."""
    event_type: str
    """The provider's own name for the kind of event."""
    at_us: Instant
    """When it happened by the best clock there is: the provider's, else the receipt."""
    received_us: Instant
    """The earliest receipt of this event; deliveries that repeat it do not move it back."""

    call_id: str | None = None
    """The provider's call id; None where the calls are cut from a stream."""
    at_source: TimeSource = "provider"
    raw_status: str | None = None
    """The provider's own status word, untouched."""
    is_unknown: bool = False
    """Of a type or status that is on no list: kept and counted, and it decides nothing."""
    state: State | None = None
    """How far the call has come; None for an event that decides nothing."""

    # Facts with a time of their own.
    queued_us: Instant | None = None
    ringing_us: Instant | None = None
    started_us: Instant | None = None
    answered_us: Instant | None = None
    hangup_us: Instant | None = None
    ended_us: Instant | None = None
    start_is_first_event: bool = False
    """The provider states no start: the call starts with the first of its events."""

    # How it ended: only on events whose state is `ended`.
    end_rank: Rank = 0
    """Which end decides when there are several: the highest rank, then the newest."""
    outcome: Outcome | None = None
    """The outcome, where the end says so by itself."""
    unanswered_outcome: Outcome | None = None
    """The outcome if nothing shows that the call was answered; with evidence of an answer it is `completed`."""
    failure_reason: str | None = None
    end_trigger: EndTrigger | None = None

    answer_evidence: bool | None = None
    """True: this event shows that the call was picked up. False: it shows that it was not."""
    transferred: bool = False
    attempt_id: str | None = None
    """Names the dial attempt that this event asks for; distinct ones are counted."""
    leg: str | None = None
    """The telephony leg that the event is about, where a call can be dialled again."""
    errors: tuple[str, ...] = ()
    """Identities of the errors that this event reports; distinct ones are counted."""

    reported_seconds: float | None = None
    fact_rank: Rank = 0
    """Of two events that state the same fact, the higher rank is believed, then the newer one."""
    talk_is_reported: bool = False
    """The provider's stated duration is the talk time."""
    total_is_reported: bool = False
    """The provider's stated duration is the whole length of the call."""

    provider_call_id: str | None = None
    parent_call_id: str | None = None
    account_id: str | None = None
    agent_id: str | None = None
    direction: Direction | None = None
    channel: Channel | None = None
    from_number: str | None = None
    to_number: str | None = None
    recording_url: str | None = None
    has_analysis: bool = False
    success_evaluation: str | None = None
    cost_total: float | None = None

    # Place in a stream that calls are cut from.
    cut: str | None = None
    """What the event does to the cut: `begin`, `end`, `connected`, `merging`, `sync` or None."""
    session_id: str | None = None
    seq: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None

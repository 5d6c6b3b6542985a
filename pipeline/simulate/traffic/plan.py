"""What the generator means to happen: the calls it planned and the webhooks that tell of them."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Sending(NamedTuple):
    """One webhook on its way."""

    at_us: int
    """When the provider sends it."""
    body: bytes
    signed_at: int | None = None
    """FreeClimb only: the `t` of the signature header, in seconds."""
    is_movable: bool = True
    """Whether it may be overtaken: not where the order of receipt is the only clock."""
    is_instant: bool = False
    """Received the moment it is sent: a bare bus event, whose time of receipt is its only identity."""


@dataclass(slots=True)
class Plan:
    """One planned call: what a record of it must say if nothing is lost."""

    provider: str
    call_id: str | None
    """None where the id is derived from the first event; then `agent_id` and `first_us` find the call."""
    outcome: str
    is_answered: bool | None
    direction: str
    agent_id: str | None = None
    first_us: int = 0
    attempts: int = 1
    talk_seconds: float | None = None
    """None where the talk time is not knowable, or hangs on times of receipt."""
    is_transferred: bool = False
    is_cut: bool = False
    """The period ended before the call did: some of its webhooks were never sent."""
    sendings: list[Sending] = field(default_factory=list)
    stream: str = ""
    """Webhooks of one stream are received in the order in which they are sent, unless disturbed."""
    query: bytes = b""
    """The query object of its webhooks as JSON, if any."""

"""The closed lists of words. They are the same in Python, on the topics, in Parquet and in SQL."""

from typing import Final, Literal

State = Literal["queued", "ringing", "in_progress", "wrap_up", "ended"]
Direction = Literal["inbound", "outbound", "internal", "unknown"]
Channel = Literal["phone", "web", "unknown"]
EndTrigger = Literal["agent", "customer", "system", "unknown"]
AnsweredBy = Literal["human", "machine", "unknown"]
ClosedBy = Literal["terminal", "timeout"]
TimeSource = Literal["provider", "received"]
Outcome = Literal[
    "completed",
    "forwarded",
    "no_answer",
    "busy",
    "rejected",
    "unreachable",
    "voicemail",
    "max_attempts",
    "canceled",
    "expired",
    "abandoned",
    "limit_reached",
    "failed",
    "unknown",
]

STATE_RANK: Final[dict[str, int]] = {"queued": 1, "ringing": 2, "in_progress": 3, "wrap_up": 4, "ended": 5}
"""How far a call has come: of two events at the same instant the one further on is the later one."""

FAILURE_CLASS: Final[dict[str, str | None]] = {
    "completed": None,
    "forwarded": None,
    "no_answer": "recipient",
    "busy": "recipient",
    "rejected": "recipient",
    "unreachable": "recipient",
    "voicemail": "recipient",
    "max_attempts": "recipient",
    "canceled": "caller",
    "expired": "caller",
    "abandoned": "caller",
    "limit_reached": "capacity",
    "failed": "technical",
    "unknown": "unknown",
}
"""Every outcome, and whose side the call failed on; None where it did not fail."""

OUTCOMES: Final = tuple(FAILURE_CLASS)
PICKED_UP: Final = frozenset({"completed", "forwarded", "voicemail"})
"""Outcomes that say by themselves that somebody, or a machine, picked up."""

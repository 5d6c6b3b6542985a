"""One line of a webhook archive, and the distinct event it tells of."""

import hashlib
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.simulate.truth import instant


@dataclass(slots=True)
class Hook:
    """An archive object whose body has been read as JSON."""

    provider: str
    received_us: int
    headers: dict[str, str]
    query: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class Event:
    """One distinct event. `facts` holds only what the telling of the call needs."""

    identity: str
    """The same for every delivery of the event."""
    at_us: int
    at_source: str
    """`provider` or `received`: whose clock `at_us` is."""
    received_us: int
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)

    def earlier_than(self, other: "Event") -> bool:
        """Whether this delivery of the same event stands; at the same receipt any fixed choice will do."""
        return (self.received_us, repr(self.facts)) < (other.received_us, repr(other.facts))


def read_hook(webhook: dict[str, Any]) -> Hook | None:
    """The archive object as a `Hook`, or None if there is no telling what it is."""
    received_us = instant.from_text(webhook.get("received_at"))
    body = webhook.get("body")
    if isinstance(body, str):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    if received_us is None or not isinstance(body, dict):
        return None
    headers = {str(k).lower(): str(v) for k, v in (webhook.get("headers") or {}).items()}
    query = {str(k): str(v) for k, v in (webhook.get("query") or {}).items()}
    return Hook(str(webhook.get("provider")), received_us, headers, query, body)


def canonical(value: Any) -> str:
    """A text that is equal for equal JSON values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def fingerprint(value: Any) -> str:
    """A short text that is equal for equal JSON values, and for no others."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=16).hexdigest()


def text(value: Any) -> str | None:
    """A text that says something, else None. Kept once, however many events repeat it."""
    return sys.intern(value) if isinstance(value, str) and value else None


def number(value: Any) -> float | None:
    """A number, not negative, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value >= 0 else None


def section(value: Any) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none."""
    return value if isinstance(value, dict) else {}

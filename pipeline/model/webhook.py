"""One webhook as it was received: the provider's untouched bytes and what the collector saw around them."""

import msgspec


class Webhook(msgspec.Struct, frozen=True):
    """A delivery by a provider. Two deliveries of the same event are two webhooks."""

    provider: str
    received_us: int
    """When the collector took it, in microseconds since the epoch."""
    body: bytes
    headers: dict[str, str] = {}
    """The request headers that matter, names in lower case; never credentials."""
    query: dict[str, str] = {}

"""What a backfill, a rebuild or a replay did."""

from dataclasses import dataclass


@dataclass
class Summary:
    """What a run did, told in one line."""

    webhooks: int = 0
    calls: int = 0
    events: int = 0
    records: int = 0
    retracted: int = 0
    quarantined: int = 0
    unreadable: int = 0
    open_calls: int = 0
    seconds: float = 0.0

    def add(self, share: "Summary") -> None:
        """What one of several processes did; webhooks, lines and time are told by the one that reads."""
        self.events += share.events
        self.records += share.records
        self.retracted += share.retracted
        self.quarantined += share.quarantined
        self.open_calls += share.open_calls

    def __str__(self) -> str:
        taken = f"{self.calls:,} calls" if self.calls else f"{self.webhooks:,} webhooks"
        told = f"{taken}, {self.events:,} events, {self.records:,} call records written"
        for count, what in (
            (self.open_calls, "calls still open"),
            (self.retracted, "calls retracted"),
            (self.quarantined, "webhooks quarantined"),
            (self.unreadable, "lines unreadable"),
        ):
            told += f", {count:,} {what}" if count else ""
        return f"{told}, {self.seconds:.1f} s"

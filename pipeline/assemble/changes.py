"""What an assembler takes besides events, and what comes out: the past of its streams, and the changes of a flush."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from pipeline.model import CallEvent, CallRecord, Remembered


class History(Protocol):
    """Where events and records are found again that are no longer in memory."""

    def knows(self, stream_key: str) -> bool:
        """False only if nothing of this stream was ever made durable."""
        ...

    def remember(self, stream_keys: Collection[str]) -> Mapping[str, Remembered]:
        """Everything durable of these streams."""
        ...


class NoHistory:
    """A history of nothing, for streams that are whole in memory."""

    def knows(self, stream_key: str) -> bool:
        """Never."""
        return False

    def remember(self, stream_keys: Collection[str]) -> Mapping[str, Remembered]:
        """Nothing."""
        return {}


class PlacedEvent(NamedTuple):
    """An event to be made durable, with the call that it belongs to (none between an agent's calls)."""

    event: CallEvent
    call_key: str | None


class Changes(NamedTuple):
    """What a flush has to make durable. Nothing in it is lost if it is written twice."""

    events: list[PlacedEvent]
    records: list[tuple[str, CallRecord]]
    """Stream key and record, of every record that is new or changed."""
    retracted: list[tuple[str, CallRecord]]
    """Records of calls that, by a late event, never were."""
    uncertain: set[str]
    """Keys of calls, cut out of an agent's stream by new events, that may yet turn out never to have been."""
    repeated: list[tuple[str, CallRecord | None]]
    """Call keys with the records (None: retracted) that are durable, but may not have been told to everybody: the
    worker before us did not commit the events that they came of."""

    @classmethod
    def none(cls) -> "Changes":
        """Nothing yet."""
        return cls([], [], [], set(), [])

    def __bool__(self) -> bool:
        return bool(self.events or self.records or self.retracted)

    def counts(self) -> tuple[int, int, int]:
        """How many events, records and retracted records there are."""
        return len(self.events), len(self.records), len(self.retracted)

    def repeats(self) -> int:
        """How many records are to be told again."""
        return len(self.repeated)


def is_change(record: CallRecord, before: CallRecord | None) -> bool:
    """Whether the record says something new; then its revision is made to say so as well."""
    if before is not None and record.revision < before.revision:
        # Only when receipts contradict the order of arrival: the number never goes down, and readers must see
        # the newer state all the same.
        record.revision = before.revision
        if record != before:
            record.revision += 1
            return True
    return record != before


def let_show(record: CallRecord, retracted: CallRecord) -> None:
    """Sees to it that a call which comes back is newer than the row that says that it never was.

    Readers take the highest revision, of two alike the later row. Its revision is lower only when receipts
    contradict the order of arrival: what was cut off then may have been received before what is left.
    """
    if record.revision < retracted.revision:
        record.revision = retracted.revision
        if record != retracted:
            record.revision += 1

"""Records as they are handed over: those of an ordinary fetch answer stay in its bytes, and are no objects at all.

aiokafka makes of each record an object in C, its name and value of each header, and around it another object, a frozen
dataclass with topic and partition in it. A consumer whose values are deserialised by `as_decoded` does without: what
it fetches is a `native.Records`, which makes objects of the records that somebody asks for, or (compressed, of
a transaction, broken, or with nothing compiled) a list of the objects in C. All other consumers are as they were.

aiokafka, pinned exactly, offers no public way to that. Three classes of its fetcher are replaced, each by a subclass:
one keeps the bytes, one reads them, one hands over what was read. What is not read here is aiokafka's to read, or to
complain of.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher

from pipeline import native


class Record(Protocol):
    """What is read of a record."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int | None: ...  # noqa: D102
    @property
    def timestamp_type(self) -> int | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


Records = list[Record] | native.Records
"""What one fetch brought for one partition."""


def as_decoded(value: bytes) -> bytes:
    """The value as it is: the deserialiser that says that records are to be handed over as they are too."""
    return value


class _KeptBytes(fetcher.MemoryRecords):
    """The bytes of a fetch answer for one partition."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


class _PartitionRecords(fetcher.PartitionRecords):
    """What is still to be handed over of a fetch answer: `unread`, if it is for us, else aiokafka's own."""

    def __init__(self, tp: TopicPartition, records: _KeptBytes, *args: Any) -> None:
        super().__init__(tp, records, *args)
        self.unread: native.Records | None = None
        if native.IS_COMPILED and self._value_deserializer is as_decoded:
            self.unread = native.Records.of(records.raw, self.next_fetch_offset)

    def _consumer_record(self, tp: TopicPartition, record: Record) -> Any:
        return record if self._value_deserializer is as_decoded else super()._consumer_record(tp, record)


class _FetchResult(fetcher.FetchResult):
    _partition_records: _PartitionRecords | None

    def getone(self) -> Any:
        """The next one, as ever; the rest goes aiokafka's way too."""
        if self._partition_records is not None:
            self._partition_records.unread = None
        return super().getone()

    def getall(self, max_records: int | None = None) -> Any:
        """All at once, or the first so many; the position moves as in aiokafka's own."""
        fetched = self._partition_records
        if fetched is None or fetched.unread is None:
            return super().getall(max_records)
        if not self.check_assignment(self._topic_partition):
            return []
        taken, rest = fetched.unread.split(len(fetched.unread) if max_records is None else max_records)
        fetched.next_fetch_offset, fetched.unread = taken.next_offset, rest
        self._update_position()
        if not len(rest):
            # Its generator holds it and all the bytes, and would do so until Python looks for cyclic garbage.
            fetched._records_iterator = None  # noqa: SLF001
            self._partition_records = None
        return taken


fetcher.MemoryRecords = _KeptBytes
fetcher.PartitionRecords = _PartitionRecords
fetcher.FetchResult = _FetchResult

# ruff: noqa: SLF001  aiokafka offers no public way to what is replaced here; it is pinned exactly
"""A Kafka record as it is handed over: the one that aiokafka's C code has decoded.

aiokafka makes another object of each, a frozen dataclass with topic and partition in it: together with the method
around it, a fifth of what fetching costs. A consumer whose values are deserialised by `as_decoded` does without; there
topic and partition stand once, in the batch. All other consumers are as they were.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher


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


def as_decoded(value: bytes) -> bytes:
    """The value as it is: the deserialiser that says that records are to be handed over as they are too."""
    return value


_made_by_aiokafka = fetcher.PartitionRecords._consumer_record


def _made(self: Any, tp: TopicPartition, record: Record) -> Any:
    return record if self._value_deserializer is as_decoded else _made_by_aiokafka(self, tp, record)


fetcher.PartitionRecords._consumer_record = _made

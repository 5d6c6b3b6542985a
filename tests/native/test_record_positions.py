"""Where aiokafka's consumer stands after records that were read here is where it stands after its own."""

import gc
import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecord
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord
from record_batches import ONE, TP, Content, Told, batch_of, told

from pipeline.stream.records import as_decoded

native = pytest.importorskip("pipeline.native._native")


class Position:
    """What aiokafka keeps of a partition."""

    def __init__(self, position: int) -> None:
        self.position, self.paused, self.active = position, False, True

    def state_value(self, tp: TopicPartition) -> "Position":
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def fetched(raw: bytes, position: Position, deserializer: Any) -> Any:
    records = fetcher.PartitionRecords(
        TP, fetcher.MemoryRecords(raw), None, position.position, None, deserializer, True, 0
    )
    return fetcher.FetchResult(TP, assignment=position, partition_records=records, backoff=0)


def taken(
    raw: bytes, deserializer: Any, steps: Sequence[int | None], start: int = 0
) -> tuple[list[tuple[list[Told], int]], int]:
    """What each step hands over (0: a single one, by `getone`) with the position then, and the last position."""
    position, found = Position(start), []
    result = fetched(raw, position, deserializer)
    for step in steps:
        if not result.has_more():
            break
        got = [result.getone()] if step == 0 else result.getall(step)
        records = told(record for record in got if record is not None)
        if records:
            found.append((records, position.position))
    return found, position.position


def other(value: bytes) -> bytes:
    return value


STEPS: list[list[int | None]] = [
    [None],
    [3, None],
    [1, 1, 1, 1, None],
    [4, 4, 4],
    [0, None],
    [2, 0, None],
    [0, 0, 3, 0, None],
    [100],
    [2, 9],
    [1, None, None],
    [0, 3, 3, 0, 0],
]


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("gzip", [False, True])
def test_positions_are_those_of_aiokafka(steps: list[int | None], gzip: bool) -> None:
    content: list[Content] = [(n, b"k", b"v" * 100, []) for n in range(3)]
    raw = batch_of(content, 5, gzip=gzip) + batch_of(content, 8, step=2)
    for start in (5, 6, 9):
        assert taken(raw, as_decoded, steps, start) == taken(raw, other, steps, start)


def test_the_end_of_a_batch_is_the_position_after_it() -> None:
    raw = batch_of([(1, None, b"v", [])], 5, more=10) + batch_of([], 16, more=3)
    assert taken(raw, as_decoded, [None], 5) == taken(raw, other, [None], 5)
    assert taken(raw, as_decoded, [None], 5)[1] == 20
    assert taken(raw, as_decoded, [None], 12) == taken(raw, other, [None], 12) == ([], 20)


def test_who_asks_for_them_gets_records_and_nobody_else() -> None:
    raw = batch_of(ONE)
    assert type(fetched(raw, Position(0), as_decoded).getall()) is native.Records
    (record,) = fetched(raw, Position(0), None).getall()
    assert type(record) is ConsumerRecord
    (record,) = fetched(batch_of(ONE, gzip=True), Position(0), as_decoded).getall()
    assert type(record) is DefaultRecord
    assert type(fetched(raw, Position(0), as_decoded).getone()) is DefaultRecord


def test_what_is_corrupt_ends_as_aiokafkas_does() -> None:
    broken = bytearray(batch_of(ONE, 1))
    broken[-1] ^= 1
    for deserializer in (as_decoded, other):
        position = Position(0)
        result = fetched(batch_of(ONE) + bytes(broken), position, deserializer)
        with pytest.raises(CorruptRecordException):
            result.getall()
        # Nothing was handed over, and all of it is fetched again.
        assert (result.getall(), result.has_more(), position.position) == ([], False, 0)


def test_what_was_handed_over_is_held_by_nobody() -> None:
    """Bytes are no garbage that Python would look for: they would pile up by the hundred megabytes."""
    result = fetched(batch_of(ONE), Position(0), as_decoded)
    held = weakref.ref(result._partition_records)
    gc.disable()
    try:
        assert len(result.getall()) == 1
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("change", ["position", "paused", "active"])
def test_what_is_fetched_no_more_is_not_handed_over(change: str) -> None:
    position = Position(0)
    result = fetched(batch_of(ONE), position, as_decoded)
    setattr(position, change, {"position": 4, "paused": True, "active": False}[change])
    assert (result.getall(), result.has_more()) == ([], False)


def test_this_aiokafka_has_what_is_replaced() -> None:
    """Another one may call it by other names, and then would go its own way without a word."""
    used = fetcher.Fetcher._proc_fetch_request.__code__.co_names
    assert {"MemoryRecords", "PartitionRecords", "FetchResult"} <= set(used)
    assert "FetchResult" in fetcher.Fetcher.fetched_records.__code__.co_names
    kept, made, result = fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult
    assert kept.__base__ is MemoryRecords
    assert [klass.__module__ for klass in (kept, made, result)] == ["pipeline.stream.records"] * 3
    assert list(inspect.signature(made.__base__).parameters) == [
        *("tp", "records", "aborted_transactions", "fetch_offset", "key_deserializer"),
        *("value_deserializer", "check_crcs", "isolation_level"),
    ]
    names = made.__base__._unpack_records.__code__.co_names
    assert {"_consumer_record", "next_fetch_offset", "validate_crc", "next_offset"} <= set(names)
    assert "_records_iterator" in made.__base__.__next__.__code__.co_names
    names = result.__base__.getall.__code__.co_names
    assert {"check_assignment", "has_more", "_update_position", "_partition_records"} <= set(names)

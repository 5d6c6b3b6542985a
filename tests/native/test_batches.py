"""Records that become batches of Kafka here are, byte for byte, what aiokafka makes of their messages one by one."""

import asyncio
import random
import runpy
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.assemble.assembler import Assembler
from pipeline.model import CallRecord
from pipeline.stream import producer
from pipeline.stream.messages import messages_after_files, messages_before_files, record_message

native = pytest.importorskip("pipeline.native._native")
HERE = Path(__file__).parent
columns = SimpleNamespace(**runpy.run_path(str(HERE / "test_columns.py")))
sparing = SimpleNamespace(**runpy.run_path(str(HERE.parent / "assemble" / "test_collect_is_plain.py")))

the_same_each_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
TOPIC, NOW_MS = "call-records", 1_790_000_000_123
Keyed = list[tuple[str, CallRecord | None]]
Sent = tuple[int, int, int, bytes]
"""Partition, number of records, size and bytes of a batch."""


class AtOnce(BatchBuilder):
    """aiokafka's own, in a world where no time passes."""

    def append(self, *, timestamp: None, **told: Any) -> Any:
        assert timestamp is None
        return super().append(timestamp=NOW_MS, **told)


class Kafka:
    """What `BulkProducer` asks of aiokafka's producer; keeps the batches in the order in which they are stored."""

    def __init__(self, partitions: int, most_bytes: int) -> None:
        self._partitions, self._most_bytes = partitions, most_bytes
        self._ends: dict[int, int] = defaultdict(int)
        self._under_way: set[int] = set()
        self.sent: list[Sent] = []

    async def partitions_for(self, topic: str) -> set[int]:
        assert topic == TOPIC
        return set(range(self._partitions))

    def create_batch(self) -> AtOnce:
        return AtOnce(self._most_bytes, 0)

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Any:
        assert topic == TOPIC
        assert partition not in self._under_way, "a batch is sent once the one before it is stored"
        self._under_way.add(partition)
        return self._store(batch, partition)

    async def _store(self, batch: Any, partition: int) -> Any:
        size, count = batch.size(), batch.record_count()
        batch.close()
        assert batch.closed()
        await asyncio.sleep(0)
        self.sent.append((partition, count, size, bytes(batch._build())))
        self._under_way.remove(partition)
        self._ends[partition] += count
        return SimpleNamespace(offset=self._ends[partition] - count)


def sent(messages: Any, partitions: int, most_bytes: int) -> tuple[dict[int, list[Sent]], Any]:
    """The batches of each partition, and the backlog that was noted."""
    bulk = producer.BulkProducer("kafka://nowhere")
    kafka = bulk._producer = Kafka(partitions, most_bytes)  # type: ignore[assignment]
    bulk.backlogs[TOPIC] = producer.Backlog()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: NOW_MS / 1000)
        patch.setattr(producer, "BATCH_BYTES", most_bytes)
        asyncio.run(bulk.send(TOPIC, messages))
    found: dict[int, list[Sent]] = defaultdict(list)
    for batch in kafka.sent:
        found[batch[0]].append(batch)
    return dict(found), vars(bulk.backlogs[TOPIC])


def read_back(raw: bytes) -> list[tuple[bytes | None, bytes | None]]:
    """The messages of a batch, by aiokafka."""
    records = MemoryRecords(raw)
    batch = records.next_batch()
    assert batch.validate_crc()
    assert (batch.compression_type, batch.is_transactional, batch.is_control_batch) == (0, False, False)
    found = list(batch)
    assert [record.offset for record in found] == list(range(len(found)))
    assert {record.timestamp for record in found} == {NOW_MS}
    assert not records.has_next()
    return [(record.key, record.value) for record in found]


def assert_same_batches(told: Keyed, partitions: int, most_bytes: int) -> int:
    """That both ways send the same, and that it is what was to be sent; how many batches that were."""
    messages = native.messages(told)
    plain = [(key, None if record is None else record_message(record)) for key, record in told]
    assert list(messages) == plain
    assert len(messages) == len(plain)
    ours, noted = sent(messages, partitions, most_bytes)
    assert (ours, noted) == sent(plain, partitions, most_bytes)
    wanted: dict[int, Any] = defaultdict(list)
    for key, value in plain:
        raw_key = key.encode()
        wanted[(murmur2(raw_key) & 0x7FFFFFFF) % partitions].append((raw_key, value))
    for partition in wanted.keys() | ours.keys():
        batches = ours[partition]
        assert [message for *_, raw in batches for message in read_back(raw)] == wanted[partition]
        for _, count, size, raw in batches:
            assert size == len(raw)
            assert size < most_bytes or count == 1
            assert native.Records.of(raw, 0).next_offset == count
    return sum(map(len, ours.values()))


records = [record for _, record in columns.simulated()[1]]


@settings(the_same_each_time, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=70),
            st.none() | st.sampled_from(records),
        ),
        max_size=40,
    ),
    st.integers(1, 50),
    st.sampled_from([0, 1, 61, 1_500, 2_000, 4_000, 2**40]) | st.integers(1_400, 12_000),
)
def test_any_keys_partitions_and_sizes(told: Keyed, partitions: int, most_bytes: int) -> None:
    assert_same_batches(told, partitions, most_bytes)


@pytest.mark.parametrize("seed", range(6))
def test_many_of_few_calls_in_their_order(seed: int) -> None:
    chance = random.Random(seed)
    keys = [f"recho:Anruf-{'ü' * chance.randrange(60)}{number}" for number in range(40)]
    told: Keyed = [
        (
            chance.choice(keys),
            replace(chance.choice(records), revision=place) if chance.random() < 0.9 else None,
        )
        for place in range(3_000)
    ]
    count = assert_same_batches(told, chance.randrange(1, 9), chance.choice([20_000, 70_000, 300_000]))
    assert count > 10


@pytest.mark.parametrize("length", [0, 40, 63, 64, 8_000, 8_191, 8_192, 600_000, 1_100_000, 2_200_000])
def test_records_larger_than_a_batch_go_alone(length: int) -> None:
    # Beyond that the lengths of a record, of its key or of its value take a byte more.
    large = replace(records[0], failure_reason="x" * length)
    told: Keyed = [("a", records[1]), ("a", large), ("a", records[2]), ("x" * length, None), ("a", None)]
    for most_bytes in (4_000, 9_500, 512 * 1024):
        assert_same_batches(told, 1, most_bytes)


def test_each_size_around_the_end_of_a_batch() -> None:
    told: Keyed = [("a", records[0]), ("b", records[1]), ("c", None)]
    ((_, _, whole, _),) = sent(native.messages(told), 1, 10**6)[0][0]
    batches = [assert_same_batches(told, 1, whole + more) for more in range(-40, 3)]
    assert set(batches) == {1, 2}
    assert assert_same_batches([("k", None)] * 20_000, 1, 100_000) == 2


def test_what_cannot_be_told_is_an_error_as_in_python() -> None:
    wrong = replace(records[0], last_event_us=2**62)
    messages = native.messages([("a", wrong)])
    for make in (lambda: record_message(wrong), lambda: messages[0], lambda: sent(messages, 3, 1_000)):
        with pytest.raises(OverflowError, match="date value out of range"):
            make()
    with pytest.raises(ValueError, match="no partition"):
        messages.by_partition(0)
    with pytest.raises(IndexError):
        messages[1]


@pytest.mark.parametrize("first", range(20_000, 20_150, 50))
def test_the_messages_of_a_flush_are_those_of_python(first: int) -> None:
    kinds = set()
    for seed in range(first, first + 50):
        grace_us, idle_us, _, steps = sparing.lives.life(seed)
        ours, pythons = (sparing.Worker(kind, grace_us, idle_us) for kind in (native.Assembler, Assembler))
        for step in steps:
            ours.step(*step)
            pythons.step(*step)
        for (our, _), (python, _) in zip(ours.handed_out, pythons.handed_out, strict=True):
            for make in (messages_before_files, messages_after_files):
                plain = make(python)
                assert sorted(make(our)) == sorted(plain)
                kinds |= {(make.__name__, value is None) for _, value in plain}
    assert len(kinds) == 3

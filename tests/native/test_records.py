"""Kafka's record batches: read here and by aiokafka, to the same records, the same offset after them, or not here."""

import random
import runpy
import struct
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecord
from bent_webhooks import archived
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_batches import (
    CONTROL,
    LOG_APPEND_TIME,
    ONE,
    TP,
    TRANSACTIONAL,
    Content,
    Told,
    batch_of,
    sealed,
    told,
)

from pipeline.providers import provider_names

native = pytest.importorskip("pipeline.native._native")
reading = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_reader.py"))))

the_same_each_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
some_bytes = st.none() | st.binary(max_size=40) | st.integers(60, 9_000).map(bytes)
contents: st.SearchStrategy[Content] = st.tuples(
    st.integers(0, 2**45),
    some_bytes,
    some_bytes,
    st.lists(st.tuples(st.text(max_size=12), some_bytes), max_size=5),
)


def by_aiokafka(raw: bytes, fetch_offset: int = 0) -> tuple[list[Told], int]:
    """Its records and the offset after them."""
    read = fetcher.PartitionRecords(TP, fetcher.MemoryRecords(raw), None, fetch_offset, None, None, True, 0)
    return told(read), read.next_fetch_offset


def here(raw: bytes, fetch_offset: int = 0) -> tuple[list[Told], int] | None:
    read = native.Records.of(raw, fetch_offset)
    return None if read is None else (told(read), read.next_offset)


def is_read(raw: bytes, fetch_offset: int = 0) -> bool:
    """Whether it is read here; if so, as by aiokafka."""
    found = here(raw, fetch_offset)
    if found is not None:
        assert found == by_aiokafka(raw, fetch_offset)
    return found is not None


@settings(the_same_each_time, max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.lists(contents, max_size=6),
            st.sampled_from([0, LOG_APPEND_TIME]),
            st.integers(1, 3),
            st.integers(0, 5),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 2**60),
    st.integers(0, 12),
    st.integers(0, 200),
)
def test_ordinary_batches_are_read(
    batches: list[tuple[list[Content], int, int, int]], base: int, skipped: int, cut: int
) -> None:
    raw, next_offset = b"", base
    for records, attributes, step, more in batches:
        raw += batch_of(records, next_offset, attributes=attributes, step=step, more=more)
        next_offset += max(0, len(records) - 1) * step + more + 1
    fetch_offset = base + min(skipped, next_offset - base - 1)
    # Of a batch that is not the first one aiokafka goes by its end, even if that was read long ago.
    first_end = base + max(0, len(batches[0][0]) - 1) * batches[0][2] + batches[0][3] + 1
    assert is_read(raw, fetch_offset) or fetch_offset > first_end
    again = batch_of([(1, None, b"cut off", [])], next_offset)
    assert is_read(raw + again[: min(cut, len(again) - 1)], fetch_offset) or fetch_offset > first_end


def test_as_a_sequence() -> None:
    raw = batch_of([(n, b"k", b"%d" % n, [("a", None)]) for n in range(5)], 7)
    records = native.Records.of(raw, 8)
    assert [record.value for record in records] == [b"1", b"2", b"3", b"4"]
    assert (len(records), records.next_offset) == (4, 12)
    assert [records[place].offset for place in (0, 3, -1, -4)] == [8, 11, 11, 8]
    for place in (4, -5, 2**62, -(2**62)):
        with pytest.raises(IndexError):
            records[place]
    assert bool(records)
    first, rest = records.split(3)
    assert ([r.offset for r in first], first.next_offset) == ([8, 9, 10], 11)
    assert ([r.offset for r in rest], rest.next_offset, rest[-1].value) == ([11], 12, b"4")
    with pytest.raises(IndexError):
        first[3]
    for count in (4, 5, 2**60):
        everything, nothing = records.split(count)
        assert (len(everything), everything.next_offset, len(nothing), bool(nothing)) == (4, 12, 0, False)
    assert len(records.split(0)[0]) == 1


def test_a_record_outlives_what_it_was_fetched_with() -> None:
    record = native.Records.of(batch_of([(5, None, b"v" * 100, [("é", b"1"), ("é", b"")])], 3), 0)[0]
    assert told([record]) == [(3, 5, 0, None, b"v" * 100, [("é", b"1"), ("é", b"")])]
    with pytest.raises(AttributeError):
        record.value = b""


NOT_ORDINARY = (
    [
        *(b"", b"\0" * 11, b"\0" * 200, b"\xff" * 200, batch_of(ONE)[:-1]),
        *(batch_of(ONE, gzip=True), batch_of(ONE, attributes=TRANSACTIONAL), batch_of(ONE, attributes=CONTROL)),
        *(batch_of(ONE) + batch_of(ONE, 1, attributes=CONTROL), batch_of(ONE) + batch_of(ONE, 1, gzip=True)),
        *(batch_of(ONE, attributes=1 << bit) for bit in (0, 1, 2, 6, 14)),
        *(batch_of(ONE, -1), batch_of(ONE, 2**63 - 1), batch_of(ONE, more=-1), batch_of(ONE, 5) + batch_of(ONE, 4)),
        *(bytearray(batch_of(ONE)), memoryview(batch_of(ONE)), None, "x"),
    ]
)  # fmt: skip


# By their places: what is compressed holds the time of its making.
@pytest.mark.parametrize("raw", NOT_ORDINARY, ids=map(str, range(len(NOT_ORDINARY))))
def test_what_is_not_ordinary_is_left(raw: Any) -> None:
    assert native.Records.of(raw, 0) is None


@pytest.mark.parametrize("magic", [0, 1, 3, 127, 255])
def test_other_formats_are_left(magic: int) -> None:
    batch = bytearray(batch_of(ONE))
    batch[16] = magic
    assert native.Records.of(sealed(batch), 0) is None


@pytest.mark.parametrize("count", [-(2**31), -1, 0, 1, 3, 2**31 - 1])
def test_a_count_that_is_not_true_is_left(count: int) -> None:
    batch = bytearray(batch_of(ONE * 2))
    struct.pack_into(">i", batch, 57, count)
    assert native.Records.of(sealed(batch), 0) is None


def test_each_wrong_bit_is_noticed() -> None:
    raw = batch_of([(1, b"k", b"v" * 20, [("a", b"1")])] * 2)
    for bit in range(21 * 8, len(raw) * 8):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        assert native.Records.of(bytes(broken), 0) is None
    with pytest.raises(CorruptRecordException):
        by_aiokafka(bytes(broken))


def random_batches(dice: random.Random) -> bytes:
    raw, base = b"", dice.randrange(1_000)
    for _ in range(dice.choice([1, 1, 2, 3])):
        records: list[Content] = [
            (
                dice.randrange(2**41),
                dice.choice([None, b"", b"key"]),
                dice.choice([None, b"", b"value" * dice.randrange(30)]),
                [(dice.choice(["", "a", "é", "n" * 70]), dice.choice([None, b"", b"x" * 9]))]
                * dice.randrange(3),
            )
            for _ in range(dice.randrange(4))
        ]
        raw += batch_of(
            records, base, attributes=dice.choice([0, 0, LOG_APPEND_TIME]), step=dice.choice([1, 2])
        )
        base += 10
    return raw


def mutated(raw: bytes, dice: random.Random) -> bytearray:
    found = bytearray(raw)
    for _ in range(dice.choice([1, 1, 2, 5])):
        place = dice.randrange(len(found))
        match dice.randrange(5):
            case 0:
                found[place] ^= 1 << dice.randrange(8)
            case 1:
                found[place] = dice.choice([0, 1, 2, 0x7F, 0x80, 0x81, 0xFE, 0xFF, dice.randrange(256)])
            case 2:
                del found[place : place + dice.choice([1, 2, 9])]
            case 3:
                found[place:place] = dice.randbytes(dice.choice([1, 2, 9]))
            case 4:
                found[place : place + 8] = dice.choice([b"\xff", b"\x80", b"\0"]) * dice.choice([8, 9, 10])
        found = found or bytearray(b"\0")
    return found


def sealed_all(raw: bytearray, dice: random.Random) -> bytes:
    """With true lengths (mostly) and checksums, so that what is wrong is wrong behind them."""
    if len(raw) >= 61 and dice.random() < 0.7:
        struct.pack_into(">i", raw, 8, len(raw) - 12)
    at = 0
    while at + 61 <= len(raw):
        end = at + 12 + struct.unpack_from(">i", raw, at + 8)[0]
        if not at + 61 <= end <= len(raw):
            break
        raw[at:end] = sealed(raw[at:end])
        at = end
    return bytes(raw)


def test_broken_batches_give_no_other_records() -> None:
    dice, read = random.Random("broken"), 0
    for number in range(20_000):
        raw = mutated(random_batches(dice), dice)
        found = bytes(raw) if number % 5 == 0 else sealed_all(raw, dice)
        read += is_read(found, dice.choice([0, 0, dice.randrange(1_020)]))
    assert read > 2_000


def test_any_bytes_give_no_other_records() -> None:
    dice = random.Random("bytes")
    for _ in range(5_000):
        raw = bytearray(dice.randbytes(dice.randrange(200)))
        if len(raw) > 61:
            raw[16], raw[21:23] = 2, b"\0\0"
        is_read(sealed_all(raw, dice), 0)


def in_c(records: Iterable[Any]) -> list[Any]:
    return [
        DefaultRecord(*(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, r.headers)) for r in records
    ]


@pytest.mark.parametrize("provider", provider_names())
def test_a_reader_reads_them_as_it_reads_a_list(provider: str) -> None:
    dice, read = random.Random(f"records {provider}"), 0
    reader = native.Reader(provider, reading.clean, reading.OWN)
    for number in range(60):
        webhooks = [dice.choice(archived(provider)) for _ in range(12)]
        odd = [
            reading.odd_record(w, dice) if number % 3 else reading.record_of(w)
            for w in webhooks
            if 0 <= w.received_us < 2**53
        ]
        raw = batch_of([(r.timestamp or 0, None, r.value, list(r.headers or ())) for r in odd])
        records = native.Records.of(raw, 0)
        read += reading.check_records(reader, provider, records)
        events, left = reader.read(records)
        events_of_list, left_of_list = reader.read(in_c(records))
        assert reading.told(events.to_python()) == reading.told(events_of_list.to_python())
        assert (left, events.others) == (left_of_list, events_of_list.others)
        part, rest = records.split(5)
        assert reading.told(reader.read(part)[0].to_python()) == reading.told(
            reader.read(in_c(part))[0].to_python()
        )
        assert reader.read(rest)[1] == reader.read(in_c(rest))[1]
    assert provider not in reading.COMPILED or read > 200


def test_a_reader_of_nothing_else() -> None:
    reader = native.Reader("freeclimb", reading.clean)
    odd: list[Any] = [(), None, b"", {}]
    for wrong in odd:
        with pytest.raises(TypeError):
            reader.read(wrong)

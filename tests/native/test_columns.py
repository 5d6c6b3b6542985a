"""The compiled columns and messages are those that Python makes, value for value and byte for byte."""

import random
import runpy
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.lake import Lake, LakeSink, schemas
from pipeline.lake.rows import calls_table, events_table, key_hash, table_of_buffers
from pipeline.model import CallEvent, CallRecord
from pipeline.stream.messages import record_message

native = pytest.importorskip("pipeline.native._native")
TESTS = Path(__file__).parents[1]
rows = SimpleNamespace(**runpy.run_path(str(TESTS / "lake" / "test_rows.py")))
world = SimpleNamespace(**runpy.run_path(str(TESTS / "assemble" / "world.py")))

the_same_each_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
NOW_US = 1_790_000_000_000_000
WORDS = ["recho", "", "Straße", "a\0b", None]
Placed = list[tuple[CallEvent, str | None]]
Told = list[tuple[str, CallRecord]]


def native_events(placed: Placed, published_us: int) -> pa.Table:
    columns = native.event_columns(placed, published_us)
    return table_of_buffers(schemas.CALL_EVENTS, len(placed), columns)


def native_calls(records: Told, retracted: Told, published_us: int) -> pa.Table:
    every = [(*told, False) for told in records] + [(*told, True) for told in retracted]
    return table_of_buffers(schemas.CALLS, len(every), native.record_columns(every, published_us))


def assert_same(ours: pa.Table, pythons: pa.Table) -> None:
    ours.validate(full=True)
    assert ours.equals(pythons, check_metadata=True)
    for name in pythons.schema.names:
        assert ours[name].null_count == pythons[name].null_count


def few_words(row: Any) -> Any:
    """The row with words of a short list: every new one is remembered for good."""
    words = {"provider": WORDS[len(row.provider) % 4]}
    for name in {"cut", "failure_class"} & set(row.__struct_fields__):
        words[name] = WORDS[len(getattr(row, name) or "....") % 5]
    return replace(row, **words)


events = rows.of_struct(CallEvent).map(few_words)
records = rows.of_struct(CallRecord).map(few_words)
placed_events = st.lists(st.tuples(events, st.none() | rows.texts), max_size=9)
told_records = st.lists(st.tuples(rows.texts, records), max_size=5)
longs = st.sampled_from([-(2**63), 2**63 - 1, 0]) | rows.instants


@settings(the_same_each_time, max_examples=150)
@given(placed_events, longs)
def test_events_of_all_kinds(placed: Placed, published_us: int) -> None:
    assert_same(native_events(placed, published_us), events_table(placed, published_us))


@settings(the_same_each_time, max_examples=150)
@given(told_records, told_records, longs)
def test_records_of_all_kinds(records: Told, retracted: Told, published_us: int) -> None:
    ours = native_calls(records, retracted, published_us)
    assert_same(ours, calls_table(records, retracted, published_us))


@cache
def simulated() -> tuple[Placed, Told]:
    """The events of traffic with their calls, as they came, and their records."""
    worker = world.assembler(world.MemoryLake())
    placed = []
    for line in world.simulated(400, 3):
        found = world.events_of(line)
        worker.add(0, found)
        placed += [(event, event.call_id and f"{event.provider}:{event.call_id}") for event in found]
    records = [(record.call_key, record) for _, record in worker.collect(lambda _: 2**60).records]
    assert len(placed) > 1_900
    assert len(records) > 300
    return placed, records


def odd(row: Any, chance: random.Random) -> Any:
    """The row with some fields emptied, and some at the end of what they can hold."""
    changes: dict[str, Any] = {}
    for name in row.__struct_fields__:
        value, drawn = getattr(row, name), chance.random()
        if name.endswith("_us") and drawn < 0.2:
            changes[name] = chance.choice([-(2**63), 2**63 - 1, 0, -1])
        elif name.endswith("_seconds") and drawn < 0.2:
            changes[name] = chance.choice([5e-324, -1e308, float("inf"), -0.0, 1e16, None])
        elif name == "errors":
            changes[name] = tuple(chance.choices(["", "é", "x" * 40], k=chance.randrange(4)))
        elif isinstance(value, str) and name not in {"provider", "failure_class", "cut"} and drawn < 0.2:
            changes[name] = chance.choice(["", "\N{TELEPHONE RECEIVER}", "Ünü" * 30, value + "\0"])
    return replace(row, **changes)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 127, 128, 129, 4_096, 9_001])
@pytest.mark.parametrize("is_odd", [False, True])
def test_tables_of_every_size(count: int, is_odd: bool, tmp_path: Path) -> None:
    chance = random.Random(count)
    placed, records = ((found * (count // len(found) + 1))[:count] for found in simulated())
    if is_odd:
        placed = [(odd(event, chance), chance.choice([None, "", call])) for event, call in placed]
        records = [(chance.choice(["", key]), odd(record, chance)) for key, record in records]
    half = count // 2
    ours = native_events(placed, NOW_US), native_calls(records[half:], records[:half], NOW_US)
    pythons = events_table(placed, NOW_US), calls_table(records[half:], records[:half], NOW_US)
    lake = Lake(tmp_path)
    lake.lay_out()
    for our, python in zip(ours, pythons, strict=True):
        assert our.num_rows == count
        assert_same(our, python)
        written = []
        for table in (our, python):
            lake.write(table, tmp_path / "one.parquet")
            written.append((tmp_path / "one.parquet").read_bytes())
        assert written[0] == written[1]


EVENT = CallEvent(event_id="1", provider="recho", stream_key="p:1", event_type="t", at_us=0, received_us=0)


@pytest.mark.parametrize("wrong", [{"fact_rank": 2**31}, {"end_rank": -(2**31) - 1}, {"seq": 2**63}])
def test_what_no_column_holds_is_left_to_python(wrong: dict[str, int]) -> None:
    with pytest.raises(OverflowError):
        native_events([(replace(EVENT, **wrong), None)], 0)


def test_a_text_without_utf_8_is_refused_as_in_python() -> None:
    for make in (native_events, events_table):
        with pytest.raises(UnicodeEncodeError):
            make([(replace(EVENT, from_number="\ud800"), None)], 0)


@given(st.text())
@settings(the_same_each_time, max_examples=300)
def test_hashes_of_keys(key: str) -> None:
    assert native.key_hash(key) == key_hash(key)


def test_hashes_of_keys_that_have_no_utf_8() -> None:
    for key in ("\ud800", "a\udfffb", "recho:\udc00\ud800é"):
        assert native.key_hash(key) == key_hash(key)


def raised(action: Callable[[], Any]) -> type[Exception] | None:
    try:
        action()
    except Exception as error:  # noqa: BLE001  whichever it is
        return type(error)
    return None


def assert_same_messages(records: Sequence[CallRecord]) -> None:
    for record in records:
        failed = raised(lambda record=record: record_message(record))  # type: ignore[misc]
        if failed:
            assert raised(lambda record=record: native.record_message(record)) is failed  # type: ignore[misc]
        else:
            assert native.record_message(record) == record_message(record)


@settings(the_same_each_time, max_examples=400)
@given(records, st.lists(st.none() | longs, min_size=7, max_size=7), st.integers(-800_000, 3_000_000))
def test_messages_of_all_kinds(record: CallRecord, instants: list[int | None], day: int) -> None:
    names = [name for name in CallRecord.__struct_fields__ if name.endswith("_us")]
    told = {name: us or 0 if "event" in name else us for name, us in zip(names, instants, strict=True)}
    assert_same_messages([replace(record, **told, date_day=day)])


def test_messages_over_simulated_traffic() -> None:
    chance = random.Random(1)
    _, records = simulated()
    assert_same_messages([record for _, record in records])
    assert_same_messages([odd(record, chance) for _, record in records])


def test_every_day_that_there_is() -> None:
    ((_, record), *_) = simulated()[1]
    ends = [-719_163, -719_162, 2_932_896, 2_932_897, -(2**63), 2**63 - 1]
    days = [*ends, *range(-719_162, 2_932_896, 997), *range(-800, 50_000, 29)]
    assert_same_messages([replace(record, date_day=day) for day in days])


def test_floats_are_written_as_by_msgspec() -> None:
    chance, ((_, record), *_) = random.Random(2), simulated()[1]
    floats = [float(f"{digits}e{power}") for digits in (1, 1.5, -9.25, 123456789) for power in range(-30, 30)]
    floats += [float("nan"), float("-inf"), 0.1 + 0.2, 2.0**53, 2.0**53 + 2, 123456789012345680.0]
    floats += [struct.unpack("d", chance.randbytes(8))[0] for _ in range(3_000)]
    floats += [round(chance.uniform(0, 10_000), chance.randrange(7)) for _ in range(3_000)]
    assert_same_messages([replace(record, cost_total=number) for number in floats])
    assert msgspec.json.encode(1e-5) == b"0.00001"


class TooMuch:
    """Changes whose texts fill more than one array."""

    def __init__(self, changes: Any) -> None:
        self._changes = changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._changes, name)

    def event_columns(self, published_us: int) -> Any:
        raise OverflowError

    record_columns = event_columns


def test_what_no_array_can_hold_is_written_by_rows(tmp_path: Path) -> None:
    found = []
    for name, seen in (("columns", lambda changes: changes), ("rows", TooMuch)):
        worker = native.Assembler(idle_us=2**50, grace_us=0, agent_providers=["aircall_bus"])
        for line in world.simulated(40, 3):
            worker.add(0, world.events_of(line))
        lake = Lake(tmp_path / name)
        lake.lay_out()
        LakeSink(lake).write_changes(seen(worker.collect(lambda _: 2**51)), 1)
        files = [
            file for name in ("call_events", "calls") for file in sorted(lake.hot(name).glob("0*1-*.parquet"))
        ]
        assert len(files) == 2
        found.append([lake.read(file) for file in files])
    assert found[0] == found[1]

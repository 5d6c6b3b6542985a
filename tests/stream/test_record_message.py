"""The message of a call record, byte for byte as the plainest encoder writes it."""

import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.lake.rows import column_of
from pipeline.model import CallRecord
from pipeline.stream.messages import record_message

rows = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "lake" / "test_rows.py")))
world = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "assemble" / "world.py")))

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
the_same_each_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def plain_message(record: CallRecord) -> bytes:
    """Field after field, with the library's own words for instants and dates."""
    told: dict[str, Any] = {}
    for name in CallRecord.__struct_fields__:
        value = getattr(record, name)
        if name == "date_day":
            value = (EPOCH + timedelta(days=value)).date().isoformat()
        elif name.endswith("_us") and value is not None:
            at = EPOCH + timedelta(microseconds=value)
            value = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        told[column_of(name)] = value
    return msgspec.json.encode(told)


of_all_years = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


@settings(the_same_each_time, max_examples=200)
@given(
    rows.of_struct(CallRecord),
    st.lists(st.none() | of_all_years, min_size=7, max_size=7),
    st.integers(-719_162, 2_932_896),
)
def test_whatever_the_record_holds(record: CallRecord, instants: list[int | None], day: int) -> None:
    names = [name for name in CallRecord.__struct_fields__ if name.endswith("_us")]
    told = dict(zip(names, instants, strict=True)) | {"date_day": day}
    record = msgspec.structs.replace(record, **told)
    assert record_message(record) == plain_message(record)


def test_over_simulated_traffic() -> None:
    worker = world.assembler(world.MemoryLake())
    for line in world.simulated(150, 3):
        worker.add(0, world.events_of(line))
    records = [record for _, record in worker.collect(lambda _: 2**60).records]
    assert len(records) > 100
    for record in records:
        assert record_message(record) == plain_message(record)


@pytest.mark.parametrize("wrong", [{"last_event_us": 2**62}, {"date_day": 10**9}])
def test_an_instant_of_no_year_is_an_error_as_before(wrong: dict[str, int]) -> None:
    worker = world.assembler(world.MemoryLake())
    worker.add(0, world.events_of(world.simulated(5, 3)[0]))
    ((_, record),) = worker.collect(lambda _: 0).records
    record = msgspec.structs.replace(record, **wrong)
    for make in (record_message, plain_message):
        with pytest.raises(OverflowError):
            make(record)

"""Tables of calls and events hold, value for value, what Arrow makes of each field by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.lake import Lake, rows, schemas
from pipeline.lake.rows import calls_table, column_of, events_from, events_table, key_hash, records_from
from pipeline.model import CallEvent, CallRecord

DAY_US = 86_400_000_000
the_same_each_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

# Of every length and script, with signs that JSON or SQL would have to escape; halves of a pair have no UTF-8.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\0", "a\0b", "'\"\\", "\u2028", "é", "\N{TELEPHONE RECEIVER}", "NULL", "x" * 300]
)
instants = st.integers(-(10**17), 10**17)
OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(-(2**31), 2**31 - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    tuple[str, ...]: st.lists(texts, max_size=3).map(tuple),
    type(None): st.none(),
}


def of_struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any values that the fields may have by their declared types."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: _of_field(name, hints[name]) for name in kind.__struct_fields__})


def _of_field(name: str, hint: Any) -> st.SearchStrategy[Any]:
    if name == "date_day":
        return st.integers(-1_000_000, 1_000_000)
    if hint in OF_TYPE:
        return instants if name.endswith("_us") else OF_TYPE[hint]
    choices = [
        _of_field(name, choice) if not isinstance(choice, str) else st.just(choice)
        for choice in get_args(hint)
    ]
    return st.one_of(choices)


def plain_table(schema: pa.Schema, told: list[tuple[msgspec.Struct, dict[str, Any]]]) -> pa.Table:
    """One field of one row after the other."""
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for record, besides in told:
        values = {column_of(name): getattr(record, name) for name in record.__struct_fields__}
        for name, value in (values | besides).items():
            columns[name].append(value)
    return pa.table([pa.array(columns[field.name], type=field.type) for field in schema], schema=schema)


def plain_events(placed: list[tuple[CallEvent, str | None]], published_us: int) -> pa.Table:
    return plain_table(
        schemas.CALL_EVENTS,
        [
            (
                event,
                {
                    "call_key": call,
                    "date": event.at_us // DAY_US,
                    "key_hash": key_hash(call or event.stream_key),
                    "published_at": published_us,
                },
            )
            for event, call in placed
        ],
    )


def plain_calls(records: list[Any], retracted: list[Any], published_us: int) -> pa.Table:
    every = [(*told, False) for told in records] + [(*told, True) for told in retracted]
    return plain_table(
        schemas.CALLS,
        [
            (
                record,
                {
                    "key_hash": key_hash(record.call_key),
                    "published_at": published_us,
                    "is_retracted": is_retracted,
                    "stream_key": stream_key,
                },
            )
            for stream_key, record, is_retracted in every
        ],
    )


@pytest.fixture(autouse=True)
def few_rows_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tables are of several parts."""
    monkeypatch.setattr(rows, "_ROWS_TURNED", 3)


placed_events = st.lists(st.tuples(of_struct(CallEvent), st.none() | texts), max_size=8)
told_records = st.lists(st.tuples(texts, of_struct(CallRecord)), max_size=5)


@settings(the_same_each_time, max_examples=60)
@given(placed_events, instants)
def test_events(placed: list[tuple[CallEvent, str | None]], published_us: int) -> None:
    table = events_table(placed, published_us)
    assert table.schema.equals(schemas.CALL_EVENTS, check_metadata=True)
    assert table.equals(plain_events(placed, published_us))
    assert list(events_from(table)) == [event for event, _ in placed]


@settings(the_same_each_time, max_examples=60)
@given(told_records, told_records, instants)
def test_calls(records: list[Any], retracted: list[Any], published_us: int) -> None:
    table = calls_table(records, retracted, published_us)
    assert table.schema.equals(schemas.CALLS, check_metadata=True)
    assert table.equals(plain_calls(records, retracted, published_us))
    assert list(records_from(table)) == [*records, *retracted]


@settings(the_same_each_time, max_examples=20)
@given(placed_events, told_records)
def test_files_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, placed: list[Any], records: list[Any]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    lake.lay_out()
    for table in (events_table(placed, 1), calls_table(records, [], 1)):
        path = lake.root / "some.parquet"
        lake.write(table, path)
        assert pq.read_table(path).equals(table)
        assert pq.read_schema(path).metadata == table.schema.metadata
        with duckdb.connect() as engine:
            seen = engine.sql(f"select * from read_parquet('{path}')").to_arrow_table()
        assert seen.cast(table.schema).equals(table)


@pytest.mark.parametrize(
    "wrong", [{"from_number": "\ud800"}, {"fact_rank": 2**40}, {"seq": 2**70}, {"errors": ("\udfff",)}]
)
def test_what_no_column_can_hold_is_refused_as_before(wrong: dict[str, Any]) -> None:
    event = CallEvent(
        event_id="1", provider="p", stream_key="p:1", event_type="t", at_us=0, received_us=0, **wrong
    )
    raised = [_raised(lambda make=make: make([(event, None)], 0)) for make in (plain_events, events_table)]  # type: ignore[misc]
    assert raised[0] is not None
    assert raised[0] is raised[1]


def _raised(action: Callable[[], Any]) -> type[Exception] | None:
    try:
        action()
    except (ValueError, OverflowError) as error:
        return type(error)
    return None


def test_a_file_says_for_each_instant_what_it_lies_between(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.lay_out()
    event = CallEvent(
        event_id="1", provider="p", stream_key="p:1", event_type="t", at_us=DAY_US, received_us=0
    )
    lake.write(events_table([(event, None)], 0), tmp_path / "one.parquet")
    group = pq.read_metadata(tmp_path / "one.parquet").row_group(0)
    by_name = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    assert by_name["event_at"].statistics.min.timestamp() == 86_400
    assert by_name["event_at"].has_dictionary_page is False
    assert by_name["provider"].has_dictionary_page is True

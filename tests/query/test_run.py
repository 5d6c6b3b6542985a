"""`callfold query`: what its four forms print, and what it says when it cannot."""

import csv
import json
import runpy
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.errors import CallfoldError, UserError
from pipeline.query.run import run_query
from pipeline.query.tables import cell_text, print_table
from pipeline.query.views import connect, models, views_sql

_BUILDER = runpy.run_path(str(Path(__file__).parents[1] / "sql" / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]

EVERY_KIND = """
    select
        timestamptz '2026-03-05 10:21:19.627+01' as at,
        date '2026-03-05' as day,
        timestamp '2026-03-05 09:21:19' as naive,
        null as nothing,
        'nan'::double as not_a_number,
        'infinity'::double as endless,
        'infinity'::timestamptz as never,
        9007199254740993 as big,
        sum(3) as huge,
        1.50::decimal(4, 2) as money,
        true as yes,
        {'a': [1, 2], 'at': timestamptz '2026-03-05 09:00:00+00'} as nested,
        map {'k': 'v'} as pairs,
        []::integer[] as none,
        encode('café') as bytes,
        'x'::enum ('x', 'y') as word,
        time '09:21:19' as clock
"""


def output(lake: Any, sql: str, form: Any) -> bytes:
    stream = BytesIO()
    run_query(lake.root, sql, form, stream)
    return stream.getvalue()


def parsed(lake: Any, sql: str) -> Any:
    return json.loads(output(lake, sql, "json"))


def test_json_is_one_array_of_plain_values(lake: Any) -> None:
    assert parsed(lake, EVERY_KIND) == [
        {
            "at": "2026-03-05T09:21:19.627000Z",
            "day": "2026-03-05",
            "naive": "2026-03-05T09:21:19.000000",
            "nothing": None,
            "not_a_number": None,
            "endless": None,
            "never": None,
            "big": 9007199254740993,
            "huge": 3,
            "money": 1.5,
            "yes": True,
            "nested": {"a": [1, 2], "at": "2026-03-05T09:00:00.000000Z"},
            "pairs": {"k": "v"},
            "none": [],
            "bytes": "café",
            "word": "x",
            "clock": "09:21:19",
        }
    ]


def test_json_of_no_rows_is_an_empty_array(lake: Any) -> None:
    assert output(lake, "select * from calls", "json") == b"[]\n"


def test_json_of_a_call_has_every_column_with_its_type(lake: Any) -> None:
    lake.hot(call("1", talk_seconds=42.5, cost_total=None))
    (row,) = parsed(lake, "select * from calls")
    assert row["started_at"] == "2026-03-05T09:00:00.000000Z"
    assert (row["talk_seconds"], row["cost_total"], row["is_root"], row["date"]) == (
        42.5,
        None,
        True,
        "2026-03-05",
    )


def test_rows_of_many_batches_are_all_there_in_order(lake: Any) -> None:
    rows = parsed(lake, "select i from range(25000) t(i) order by i")
    assert [row["i"] for row in rows] == list(range(25000))


def test_a_name_given_twice_is_numbered(lake: Any) -> None:
    assert parsed(lake, "select 1 as a, 2 as a, 3 as a") == [{"a": 1, "a_1": 2, "a_2": 3}]


def test_the_last_of_several_statements_gives_the_rows(lake: Any) -> None:
    assert parsed(lake, "create temp table t as select 7 as x; select * from t") == [{"x": 7}]


def test_csv_has_a_header_and_empty_nulls(lake: Any) -> None:
    text = output(
        lake,
        "select 'a,b' as x, null as y, true as z, [1] as l, timestamptz '2026-03-05 09:00:00+00' as t",
        "csv",
    )
    assert list(csv.reader(StringIO(text.decode()))) == [
        ["x", "y", "z", "l", "t"],
        ["a,b", "", "true", "[1]", "2026-03-05T09:00:00.000000Z"],
    ]


def test_a_table_off_a_terminal_is_neither_cut_nor_wrapped(lake: Any) -> None:
    text = output(
        lake, "select repeat('x', 300) as long, '[bold]' as markup, null as nothing", "table"
    ).decode()
    assert "x" * 300 in text
    assert "[bold]" in text
    assert len(text.splitlines()) == 5


def test_a_table_too_wide_for_the_terminal_is_shown_record_by_record() -> None:
    stream = StringIO()
    console = Console(file=stream, force_terminal=True, width=60, color_system=None)
    print_table(console, [f"column_{number}" for number in range(20)], [tuple(range(20))])
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("row 1")
    assert lines[1].split() == ["column_0", "0"]
    assert max(map(len, lines)) <= 60


def test_a_long_table_is_cut_and_says_so(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(lake, "select i from range(10001) t(i)", "table").decode()
    assert len(text.splitlines()) == 10_000 + 4
    assert "--format csv" in capsys.readouterr().err


def test_parquet_goes_to_a_file_or_a_stream(lake: Any, tmp_path: Path) -> None:
    lake.hot(call("1"))
    run_query(lake.root, "select call_key, started_at from calls", "parquet", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.to_pylist() == [{"call_key": "whippy:1", "started_at": at("09:00:00")}]
    assert pq.read_table(BytesIO(output(lake, "select call_key from calls", "parquet"))).num_rows == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("selec 1", 'SQL: Parser Error: syntax error at or near "selec"'),
        (
            "select * from callz",
            'SQL: Catalog Error: Table with name callz does not exist! Did you mean "calls"?',
        ),
        ("", "the SQL holds no statement that returns rows"),
        ("select 'x'::integer", "SQL: Conversion Error"),
    ],
)
def test_sql_that_does_not_run_is_said_in_one_line(lake: Any, sql: str, said: str) -> None:
    with pytest.raises(UserError) as failure:
        output(lake, sql, "json")
    assert str(failure.value).startswith(said)
    assert "\n" not in str(failure.value)


def test_a_failed_query_leaves_no_file(lake: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run_query(lake.root, "select error('no') from range(3)", "csv", tmp_path / "out.csv")
    assert list(tmp_path.glob("*out.csv*")) == []


def test_a_file_that_cannot_be_written_is_said(lake: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        run_query(lake.root, "select 1", "csv", tmp_path / "nowhere" / "out.csv")


def test_a_connection_has_the_views_of_views_sql_and_no_others(lake: Any) -> None:
    lake.hot(call("1"))
    lake.sealed(call("2"))
    columns = """
        select view_name, list((column_name, data_type) order by column_index), duckdb_views.sql
        from duckdb_views() join duckdb_columns() on table_name = view_name
        where not duckdb_views.internal group by all order by view_name
    """
    with duckdb.connect() as plain, connect(lake.root) as connection:
        plain.execute(views_sql(str(lake.root)))
        wanted = plain.execute(columns).fetchall()
        assert {name for name, _, _ in wanted} == set(models())
        assert connection.execute(columns).fetchall() == wanted
        for name in models():
            # Rows have no order of their own.
            meant = sorted(map(repr, plain.execute(f"from {name}").fetchall()))
            assert sorted(map(repr, connection.execute(f"from {name}").fetchall())) == meant


def test_a_folder_that_is_no_lake_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        connect(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no calls"):
        connect(tmp_path)


def test_a_broken_lake_is_said_in_one_line(lake: Any) -> None:
    (lake.root / "calls" / "hot" / "1.parquet").write_bytes(b"not parquet")
    with pytest.raises(CallfoldError, match=r"cannot be read.*calls/hot/1\.parquet") as failure:
        run_query(lake.root, "select count(*) from calls", "json", BytesIO())
    assert not isinstance(failure.value, UserError)
    assert "\n" not in str(failure.value)


def test_a_lake_with_an_odd_name_is_read(make_lake: Callable[..., Any]) -> None:
    lake = make_lake("a lake's [odd] *folder?")
    lake.hot(call("1"))
    assert parsed(lake, "select count(*) as calls from calls") == [{"calls": 1}]


def test_a_lake_is_read_by_a_relative_path(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.hot(call("1"))
    monkeypatch.chdir(lake.root.parent)
    connection = connect(Path(lake.root.name))
    monkeypatch.chdir("/")
    assert connection.execute("select count(*) from calls").fetchone() == (1,)
    connection.close()


def test_times_are_utc_in_the_session(lake: Any) -> None:
    assert parsed(lake, "select current_setting('TimeZone') as zone") == [{"zone": "UTC"}]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2026-03-05T09:21:19.627000Z", "2026-03-05T09:21:19.627Z"),
        ("2026-03-05T09:21:10.000000Z", "2026-03-05T09:21:10Z"),
        ("2026-03-05T09:21:19.000001Z", "2026-03-05T09:21:19.000001Z"),
        ("1.500Z", "1.500Z"),
        (None, ""),
        (True, "true"),
        (0.25, "0.25"),
        (1234567.5, "1234567.500"),
        ({"a": [1]}, '{"a": [1]}'),
    ],
)
def test_cells_of_a_table_are_short(value: Any, shown: str) -> None:
    assert cell_text(value) == shown

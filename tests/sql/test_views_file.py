"""The lake's `views.sql` works in the DuckDB command line, without anything of ours."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.query.views import models, views_sql

_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]
DUCKDB = Path(sys.executable).parent / "duckdb"
"""Of the package `duckdb-cli`, which the development environment holds."""


def _duckdb(folder: Path, sql: str) -> Any:
    done = subprocess.run(
        [DUCKDB, "-init", "views.sql", "-json", "-c", sql],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    return json.loads(done.stdout or "[]")


def test_every_view_works_from_inside_the_lake(make_lake: Callable[..., Any]) -> None:
    lake = make_lake("a lake's [odd] *folder?")
    lake.hot(call("1", ended_at=at("09:01:30"), talk_seconds=42.0))
    lake.sealed(call("2", outcome="busy", failure_class="recipient", is_answered=False, answered_by=None))
    (lake.root / "views.sql").write_text(views_sql(), encoding="utf-8")
    assert _duckdb(lake.root, "select call_key from calls order by 1") == [
        {"call_key": "whippy:1"},
        {"call_key": "whippy:2"},
    ]
    assert _duckdb(lake.root, "select current_setting('TimeZone') as zone") == [{"zone": "UTC"}]
    counted = _duckdb(
        lake.root, " union all ".join(f"select '{n}' as name, count(*) as n from {n}" for n in models())
    )
    assert {row["name"] for row in counted} == set(models())
    assert {row["name"]: row["n"] for row in counted}["kpi_concurrency"] == 2


def test_every_view_works_in_an_empty_lake(make_lake: Callable[..., Any]) -> None:
    lake = make_lake("empty")
    (lake.root / "views.sql").write_text(views_sql(), encoding="utf-8")
    views = ("calls", "kpi_daily", "data_quality", "kpi_concurrency")
    counted = _duckdb(lake.root, " union all ".join(f"select count(*) as n from {name}" for name in views))
    assert counted == [{"n": 0}] * len(views)

"""Every model is a SELECT with a .yml beside it that states its grain and its columns, and follows the house style."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.lake.schemas import SCHEMAS
from pipeline.query.views import models, sql_folder, views_sql

SQL_FILES = sorted(sql_folder().glob("*/*.sql"))
VIEWS = [path for path in SQL_FILES if path.parent.name != "checks"]
CHECKS = [path for path in SQL_FILES if path.parent.name == "checks"]
KPIS = [path for path in VIEWS if path.parent.name == "marts" and not path.stem.startswith("int_")]
STATES_ITS_SHARE = re.compile(
    r"(_rate|_share|_ratio|_avg|_level|_minute|_call)$|^(share|asr|ner|abr|erlangs)$"
)
"""Columns so named are one number over another."""
Described = dict[str, list[tuple[str, str]]]
_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))

CALL_COLUMNS = """
call_key VARCHAR, provider VARCHAR, call_id VARCHAR, provider_call_id VARCHAR, parent_call_id VARCHAR, is_root BOOLEAN,
account_id VARCHAR, agent_id VARCHAR, direction VARCHAR, channel VARCHAR, from_number VARCHAR, to_number VARCHAR,
state VARCHAR, outcome VARCHAR, failure_class VARCHAR, failure_reason VARCHAR, raw_status VARCHAR, end_trigger VARCHAR,
is_answered BOOLEAN, answered_by VARCHAR, is_transferred BOOLEAN, attempts INTEGER, error_count INTEGER,
queued_at TIMESTAMPTZ, ringing_at TIMESTAMPTZ, started_at TIMESTAMPTZ, answered_at TIMESTAMPTZ, ended_at TIMESTAMPTZ,
ring_seconds DOUBLE, talk_seconds DOUBLE, wrap_up_seconds DOUBLE, total_seconds DOUBLE, reported_seconds DOUBLE,
time_source VARCHAR, recording_url VARCHAR, has_analysis BOOLEAN, success_evaluation VARCHAR, cost_total DOUBLE,
first_event_at TIMESTAMPTZ, last_event_at TIMESTAMPTZ, event_count INTEGER, revision INTEGER, closed_by VARCHAR,
date DATE
"""

KPI_COLUMNS = {
    "kpi_daily": "date provider direction calls answered answer_rate completed forwarded failed_calls "
    "talk_seconds_total talk_seconds_avg",
    "kpi_answer_rate": "date provider direction calls seizures answered answered_human answer_rate asr ner "
    "asr_low asr_high ner_low ner_high",
    "kpi_duration": "date provider direction answered talk_p50 talk_p90 talk_p95 talk_avg ring_p50 ring_p95 "
    "short_calls short_call_rate",
    "kpi_end_trigger": "date provider direction end_trigger calls share",
    "kpi_failure": "date provider direction failure_class outcome failure_reason calls share",
    "kpi_hourly": "date provider direction weekday hour calls answered answer_rate",
    "kpi_concurrency": "date minute peak_calls erlangs",
    "kpi_funnel": "date provider direction step stage calls all_calls share calls_before step_rate",
    "kpi_repeat_callers": "date provider direction calls repeat_calls repeat_call_rate",
    "kpi_redial": "date provider direction redialled_calls redialled_answered redial_success_rate retries "
    "retries_answered retry_success_rate",
    "kpi_transfer": "date provider direction conversations transferred transfer_rate contained containment_rate",
    "kpi_cost": "date provider direction cost_total costed_answered cost_per_answered_call",
    "kpi_agent": "date provider direction agent_id calls answered answer_rate completion_rate place",
    "kpi_week_over_week": "week provider direction calls calls_before answer_rate answer_rate_before "
    "answer_rate_change answer_rate_change_low answer_rate_change_high calls_ratio",
    "kpi_service_level": "date provider direction within_seconds answered_within offered service_level",
    "data_quality": "date provider direction calls closed_by_timeout late_revisions received_times unknown_outcome "
    "quarantined newest_event_at",
}


def _stated(name: str) -> dict[str, Any]:
    path = next(path for path in SQL_FILES if path.stem == name).with_suffix(".yml")
    stated: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return stated


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    """The columns and types of every view, over a lake without calls."""
    connection = _BUILDER["Lake"](tmp_path_factory.mktemp("models") / "lake").connect()
    try:
        views = {name: connection.sql(f"describe {name}").fetchall() for name in models()}
    finally:
        connection.close()
    short = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    return {name: [(row[0], short.get(row[1], row[1])) for row in rows] for name, rows in views.items()}


@pytest.mark.parametrize("view", ["calls", "open_calls", "call_revisions"])
def test_the_columns_of_calls_have_their_promised_types_and_order(described: Described, view: str) -> None:
    promised = [tuple(pair.split()) for pair in CALL_COLUMNS.replace("\n", " ").split(",")]
    assert described[view] == promised


@pytest.mark.parametrize("view", ["call_events", "webhooks", "quarantine"])
def test_datasets_show_all_columns_but_the_bookkeeping(described: Described, view: str) -> None:
    hidden = {"key_hash", "published_at", "is_resolved"}
    assert [name for name, _ in described[view]] == [n for n in SCHEMAS[view].names if n not in hidden]


@pytest.mark.parametrize("view", sorted(KPI_COLUMNS))
def test_kpi_views_have_at_least_the_promised_columns(described: Described, view: str) -> None:
    columns = dict(described[view])
    assert set(KPI_COLUMNS[view].split()) <= columns.keys()
    assert not {kind for kind in columns.values() if kind in ("HUGEINT", "UHUGEINT")}


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.stem)
def test_every_model_states_its_grain(path: Path) -> None:
    stated = _stated(path.stem)
    assert stated["name"] == path.stem
    assert re.match(r"One row per \w+", stated["description"])
    assert stated["source" if path.parent.name == "staging" else "reads"]


@pytest.mark.parametrize("path", KPIS, ids=lambda path: path.stem)
def test_every_kpi_states_its_definition_and_where_it_is_from(path: Path) -> None:
    stated = _stated(path.stem)
    for field in ("definition", "numerator", "denominator", "exclusions", "source"):
        assert isinstance(stated.get(field), str), field
        assert stated[field].strip(), field


@pytest.mark.parametrize("path", VIEWS, ids=lambda path: path.stem)
def test_what_a_yml_says_a_model_reads_is_what_it_reads(path: Path) -> None:
    if path.parent.name == "marts":
        sql = re.sub(r"--[^\n]*", "", path.read_text(encoding="utf-8"))
        read = set(re.findall(r"(?:from|join) (\w+)", sql)) & (set(models()) - {path.stem})
        assert {name.strip() for name in _stated(path.stem)["reads"].split(",")} == read


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_every_check_states_why_and_how_bad(path: Path) -> None:
    stated = _stated(path.stem)
    assert stated["severity"] in ("error", "warning")
    assert stated["why"]


@pytest.mark.parametrize("path", VIEWS, ids=lambda path: path.stem)
def test_the_yml_describes_exactly_the_columns_of_the_view(described: Described, path: Path) -> None:
    stated = _stated(path.stem)
    columns = stated["columns"] if "columns" in stated else _stated(stated["columns_of"])["columns"]
    assert list(columns) == [name for name, _ in described[path.stem]]
    assert stated["exclusions"]


@pytest.mark.parametrize("path", KPIS, ids=lambda path: path.stem)
def test_every_ratio_names_its_numerator_and_its_denominator(path: Path) -> None:
    columns = _stated(path.stem)["columns"]
    for name, stated in columns.items():
        if STATES_ITS_SHARE.search(name):
            assert stated["definition"], name
            assert stated["numerator"] in columns, name
            assert stated["denominator"] in columns, name


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.stem)
def test_the_last_cte_carries_the_models_name(path: Path) -> None:
    sql = path.read_text(encoding="utf-8")
    assert sql.endswith(f")\n\nselect * from {path.stem}\n")
    ctes = re.findall(r"^([a-z_0-9]+) as \($", sql, flags=re.MULTILINE)
    assert ctes[-1] == path.stem
    code = re.sub(r"--[^\n]*|'[^']*'", "", sql)
    assert code == code.lower()
    assert ";" not in code


def test_no_yml_is_without_its_model() -> None:
    assert sorted(sql_folder().glob("*/*.yml")) == [path.with_suffix(".yml") for path in SQL_FILES]


def test_a_view_comes_after_all_that_it_reads() -> None:
    seen: set[str] = set()
    for name, sql in models().items():
        read = {word for word in re.findall(r"(?:from|join) (\w+)", sql) if word in models()}
        assert read - {name} <= seen
        seen.add(name)


def test_views_sql_sets_the_time_zone_and_keeps_paths_relative() -> None:
    text = views_sql()
    assert "set timezone = 'UTC';" in text
    assert "read_parquet('calls/hot/*.parquet'" in text
    assert text.count("create or replace view ") == len(VIEWS)

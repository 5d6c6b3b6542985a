"""The documentation against the code: its tables name what there is, and what it shows runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import duckdb
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.cli import cli
from pipeline.collect.metrics import CollectorMetrics
from pipeline.lake.schemas import CALLS
from pipeline.model import FAILURE_CLASS
from pipeline.providers import provider_names
from pipeline.setting_table import SETTINGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "pipeline/README.md", "sql/README.md", "sql/analysts.md")
}

HIDDEN = {"key_hash", "published_at", "is_retracted", "stream_key"}
SQL_TYPE = {
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "double": "DOUBLE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
    "date32[day]": "DATE",
}
NEVER_END = {"serve", "collect", "work"}


def _table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, as cells without their code marks."""
    section = re.split(rf"^#+ {re.escape(heading)}$", README, flags=re.MULTILINE)[1]
    rows = [line for line in section.partition("\n#")[0].splitlines() if line.startswith("|")]
    assert rows, f"no table under {heading}"
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_table_of_commands_is_what_the_program_has() -> None:
    assert [row[0].removeprefix("callfold ") for row in _table("Commands")] == list(cli.commands)


@pytest.mark.parametrize("name", list(cli.commands))
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    command = cli.commands[name]
    assert command.help
    assert command.epilog
    words = shlex.split(command.epilog.partition("Example:")[2])
    assert words[words.index("callfold") + 1] == name
    known = {option for parameter in command.params for option in parameter.opts}
    assert {"--lake", "--config", "--debug"} <= known
    assert {word for word in words if word.startswith("-")} <= known
    silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert silent == []


def test_the_table_of_settings_is_what_the_program_reads() -> None:
    documented = {row[0]: (row[1], "" if row[2] == "–" else row[2]) for row in _table("Settings")}
    assert documented == {setting.name: (setting.env, setting.default) for setting in SETTINGS}


def test_the_table_of_columns_is_the_schema() -> None:
    schema = [[field.name, SQL_TYPE[str(field.type)]] for field in CALLS if field.name not in HIDDEN]
    assert [row[:2] for row in _table("Columns of `calls`")] == schema


def test_the_view_calls_has_the_documented_columns(small_lake: Path) -> None:
    with _analyst(small_lake) as connection:
        shown = connection.sql("describe calls").fetchall()
    types = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    assert [[row[0], types.get(row[1], row[1])] for row in shown] == [
        row[:2] for row in _table("Columns of `calls`")
    ]


def test_the_table_of_outcomes_is_the_vocabulary() -> None:
    assert {row[0]: None if row[1] == "–" else row[1] for row in _table("Outcomes")} == FAILURE_CLASS


def test_the_table_of_the_collectors_metrics_is_what_it_counts() -> None:
    rows = [
        re.findall(r"(callfold_\w+)(?:\{([^}]*)\})?", row[0]) for row in _table("Metrics of the collector")
    ]
    documented = {name: set(filter(None, labels.split(","))) for row in rows for name, labels in row}
    metrics = CollectorMetrics()
    metrics.count_answer("recho", "202", 0.1)
    metrics.count_stored("recho", "spool", 1)
    counted: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if not name.endswith("_created"):
            counted[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert documented == counted


def test_every_provider_has_its_line() -> None:
    assert sorted(row[0] for row in _table("Providers")) == sorted(provider_names())


def test_every_view_in_the_readme_is_in_the_lake(small_lake: Path) -> None:
    named = {row[0] for heading in ("The lake", "KPI views") for row in _table(heading)}
    with _analyst(small_lake) as connection:
        there = {
            row[0]
            for row in connection.sql("select view_name from duckdb_views() where not internal").fetchall()
        }
    assert named <= there


def _analyst(lake: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB as an analyst has it: views.sql and nothing of ours. Its paths are relative to the lake."""
    connection = duckdb.connect()
    connection.execute(f"set file_search_path = '{lake}'")
    connection.execute((lake / "views.sql").read_text(encoding="utf-8"))
    return connection


@pytest.mark.parametrize("sql", _blocks("sql"))
def test_every_query_in_the_readme_runs(sql: str, small_lake: Path) -> None:
    with _analyst(small_lake) as connection:
        connection.execute(sql)


@pytest.mark.parametrize("block", _blocks("sh"))
def test_every_command_in_the_readme_runs(block: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    for line in block.splitlines():
        if not line.startswith("callfold "):
            continue
        words = shlex.split(line)[1:]
        shown = [words[0], "--help"] if words[0] in NEVER_END else words
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *shown],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", list(PAGES))
def test_every_link_to_a_file_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGES[page])
    assert [link for link in links if not (folder / link).exists()] == []


def test_the_configuration_in_the_readme_is_accepted(tmp_path: Path) -> None:
    from pipeline.settings import load_settings

    (block,) = _blocks("toml")
    config = tmp_path / "callfold.toml"
    config.write_text(block)
    assert load_settings({}, {}, config, provider_names()).http_host == "0.0.0.0"

"""What the page for analysts shows runs, in order, from the folder that holds a lake; and it tells the truth."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from pipeline.lake.compact import compact
from pipeline.lake.files import SCHEMA_FILE, SEALED_ONLY
from pipeline.lake.schemas import SCHEMAS
from pipeline.query.views import connect

PAGE = (Path(__file__).parent.parent / "sql" / "analysts.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
RECIPE = next(code for language, code in EXAMPLES if "def completed_calls" in code)


@pytest.fixture(scope="module", params=["hot", "sealed", "both"])
def folder(
    request: pytest.FixtureRequest, small_lake: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder that holds the lake as `lake`: as flushed, as compacted, and compacted within the grace."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(small_lake, folder / "lake")
    if request.param != "hot":
        compact(folder / "lake", grace_seconds=3600.0)
    if request.param == "sealed":
        compact(folder / "lake", grace_seconds=0.0)
    return folder


def run(language: str, code: str, folder: Path) -> str:
    """Runs one example as its reader would; what it prints."""
    command = ["sh", "-ec", code] if language == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_here(code: str, folder: Path) -> str:
    """Runs one of Python in this process, which has imported what takes most of the time; what it prints."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {"__name__": "__main__"})
    return printed.getvalue()


def test_every_example_runs(folder: Path, request: pytest.FixtureRequest) -> None:
    assert len(EXAMPLES) >= 7
    # In a process of its own, as its reader would, over one of the lakes.
    is_apart = "[hot]" in request.node.name
    for language, code in EXAMPLES:
        if "> ../" not in code:
            told = run(language, code, folder) if is_apart or language == "sh" else run_here(code, folder)
            assert told.strip()
    for language, code in EXAMPLES:
        if "> ../" in code:
            run(language, code, folder)
    with connect(folder / "lake") as connection:
        rows = connection.sql("select * from kpi_daily").fetchall()
    assert len((folder / "kpi_daily.csv").read_text(encoding="utf-8").splitlines()) == len(rows) + 1


def test_the_recipe_without_duckdb_gives_the_view(folder: Path) -> None:
    names: dict[str, object] = {}
    exec(RECIPE.partition("\n\n\ncalls = ")[0], names)
    found: pd.DataFrame = names["completed_calls"](folder / "lake")  # type: ignore[operator]
    with connect(folder / "lake") as connection:
        columns = [row[0] for row in connection.sql("describe calls").fetchall()]
        shown = connection.sql("select * from calls").to_arrow_table().to_pandas()
    in_order = [frame[columns].sort_values("call_key").reset_index(drop=True) for frame in (found, shown)]
    pd.testing.assert_frame_equal(*in_order, check_dtype=False)


def test_the_folders_are_those_that_there_are(folder: Path) -> None:
    told = re.search(r"```text\nlake/\n(.*?)```", PAGE, flags=re.DOTALL)
    assert told is not None
    named = set(re.findall(r"(\w+)/(?=\s|$)", told[1])) - {"hot", "sealed", "manifest"}
    assert {*SCHEMAS, *SEALED_ONLY} <= named
    assert {path.name for path in (folder / "lake").iterdir() if path.is_dir()} <= named


def test_a_database_file_of_views_shows_what_came_after_it(folder: Path) -> None:
    """The BI tool's file holds no data."""
    run("sh", "cd lake && duckdb ../late.duckdb -init views.sql -c 'select 1'", folder)
    options = {"file_search_path": str(folder / "lake")}
    with duckdb.connect(str(folder / "late.duckdb"), read_only=True, config=options) as connection:
        before = connection.execute("select count(*) from calls").fetchone()
        files = [*folder.glob("lake/calls/hot/*-*.parquet"), *folder.glob("lake/calls/sealed/*/*.parquet")]
        newest = next(file for file in files if file.name != SCHEMA_FILE)
        copy = folder / "lake/calls/hot/9.parquet"
        connection.execute(
            f"copy (select * replace ('recho:later' as call_key, 1::ubigint as key_hash, 'ended' as state) "
            f"from read_parquet('{newest}', hive_partitioning = false) limit 1) to '{copy}'"
        )
        after = connection.execute("select count(*) from calls").fetchone()
    copy.unlink()
    assert before is not None
    assert after is not None
    assert after[0] == before[0] + 1

"""What `pip install .` gives: the program and its SQL, working far from the checkout."""

import ast
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def _run(*line: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in line],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation: the backend is among our own tools, so that no network is needed.
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    _run(sys.executable, "-m", "pip", "wheel", *options, ROOT, cwd=folder)
    (built,) = folder.glob("callfold-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a new environment that holds the wheel, and borrows the packages it needs."""
    folder = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    _run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder
    )
    ours = Path(
        _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    # A path in a .pth file comes last, and the .pth files over there are not read: the checkout stays out of sight.
    (ours / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_wheel_holds_every_sql_file_and_nothing_but_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sql = {path.relative_to(ROOT / "sql").as_posix() for path in (ROOT / "sql").rglob("*.sql")}
    assert sql
    assert sql <= {name.removeprefix("pipeline/_sql/") for name in names}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"pipeline"}


def test_the_installed_program_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = _run(installed / "python", "-c", "import pipeline; print(pipeline.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "Commands:" in _run(installed / "callfold", "--help", cwd=tmp_path)


def test_the_installed_program_folds_and_answers(installed: Path, tmp_path: Path) -> None:
    callfold = installed / "callfold"
    _run(callfold, "simulate", "--calls", "50", "--seed", "3", "--out", "webhooks.ndjson", cwd=tmp_path)
    _run(callfold, "backfill", "webhooks.ndjson", "--lake", "lake", cwd=tmp_path)
    answer = _run(
        callfold,
        "query",
        "select sum(calls) > 0 as ok from kpi_daily",
        "--format",
        "json",
        "--lake",
        "lake",
        cwd=tmp_path,
    )
    assert json.loads(answer) == [{"ok": True}]


def _declared() -> dict[str, str]:
    """The dependencies by name, each with the line above it."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads("\n".join(lines))["project"]
    extras = [entry for extra in project["optional-dependencies"].values() for entry in extra]
    entries = [*project["dependencies"], *(entry for entry in extras if not entry.startswith("callfold"))]
    above = {line.strip().strip(",").strip('"'): before.strip() for before, line in pairwise(lines)}
    return {entry: above[entry] for entry in entries}


def test_every_dependency_has_its_reason() -> None:
    assert [entry for entry, above in _declared().items() if not above.startswith("# ")] == []


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {Requirement(entry).name.lower() for entry in project["dependencies"]}
    distributions = packages_distributions()
    imported = set()
    for path in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - sys.stdlib_module_names - {"pipeline"}
    assert foreign
    undeclared = {
        name
        for name in foreign
        if not {d.lower().replace("_", "-") for d in distributions.get(name, [])} & declared
    }
    assert undeclared == set()

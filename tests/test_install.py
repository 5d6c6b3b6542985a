"""What `pip install .` gives: the program and its SQL, working far from the checkout."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from required import require

from pipeline.lake.rows import key_hash

ROOT = Path(__file__).parent.parent


def _done(*line: str | Path, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in line],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _run(*line: str | Path, cwd: Path) -> str:
    done = _done(*line, cwd=cwd)
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


def test_the_wheel_holds_the_scripts_that_the_collector_serves(wheel: Path) -> None:
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.js")}
    assert scripts
    assert scripts <= set(zipfile.ZipFile(wheel).namelist())


def test_the_installed_program_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = _run(installed / "python", "-c", "import pipeline; print(pipeline.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "Commands:" in _run(installed / "callfold", "--help", cwd=tmp_path)


def test_the_installed_program_folds_and_answers(installed: Path, tmp_path: Path) -> None:
    _assert_it_folds_and_answers(installed / "callfold", cwd=tmp_path)


def _assert_it_folds_and_answers(*callfold: str | Path, cwd: Path) -> None:
    _run(*callfold, "simulate", "--calls", "50", "--seed", "3", "--out", "webhooks.ndjson", cwd=cwd)
    _run(*callfold, "backfill", "webhooks.ndjson", "--lake", "lake", cwd=cwd)
    question = "select sum(calls) > 0 as ok from kpi_daily"
    answer = _run(*callfold, "query", question, "--format", "json", "--lake", "lake", cwd=cwd)
    assert json.loads(answer) == [{"ok": True}]


NATIVE = "pipeline/native/"
REQUIRED = "CALLFOLD_REQUIRE_NATIVE"


def _compiled_in(wheel: Path) -> list[str]:
    """What there is of the compiled part, beside the Python that it is put into."""
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(NATIVE)]
    return [name.removeprefix(NATIVE) for name in names if not name.endswith((".py", ".pyi"))]


def test_the_wheel_holds_the_compiled_part(wheel: Path, installed: Path, tmp_path: Path) -> None:
    require(None if _compiled_in(wheel) else "needs a compiler", REQUIRED)
    assert re.fullmatch(r"callfold-[^-]+-cp311-abi3-(?!any)\w+\.whl", wheel.name)
    assert len(_compiled_in(wheel)) == 1
    ask = "import pipeline.native._native as it; print(it.__file__, it.key_hash('recho:1'))"
    file, told = _run(installed / "python", "-c", ask, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.parent)
    assert int(told) == key_hash("recho:1")


def test_the_compiled_part_is_linked_with_no_python(wheel: Path, tmp_path: Path) -> None:
    require(None if _compiled_in(wheel) else "needs a compiler", REQUIRED)
    if not shutil.which("ldd"):
        pytest.skip("needs ldd")
    zipfile.ZipFile(wheel).extract(NATIVE + _compiled_in(wheel)[0], tmp_path)
    assert "python" not in _run("ldd", *(tmp_path / NATIVE).iterdir(), cwd=tmp_path).replace(
        str(tmp_path), ""
    )


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The sources as they are given to others, with a compiled part of other ones."""
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (packed,) = tmp_path.glob("callfold-*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = Path(str(packed).removesuffix(".tar.gz"))
    (folder / NATIVE / "_native.abi3.so").write_bytes(b"of yesterday")
    return folder


def _build(sources: Path, path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    line = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", sources / "made")
    return _done(*line, cwd=sources, PATH=str(path), **{REQUIRED: "0"} | environment)


def test_the_sources_of_the_compiled_part_are_given_to_others(unpacked: Path) -> None:
    theirs = {path.relative_to(unpacked).as_posix() for path in (unpacked / NATIVE).rglob("*")}
    crate = list((ROOT / NATIVE / "src").rglob("*.rs"))
    crate += [ROOT / NATIVE / name for name in ("Cargo.toml", "Cargo.lock", "build.py", ".cargo/config.toml")]
    assert {path.relative_to(ROOT).as_posix() for path in crate} <= theirs
    assert not any("/target" in name for name in theirs)


def _failing_cargo(folder: Path) -> None:
    (folder / "cargo").write_text("#!/bin/sh\necho 'error: linker `cc` not found' >&2\nexit 101\n")
    (folder / "cargo").chmod(0o755)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [(lambda _: None, "there is no cargo on the PATH"), (_failing_cargo, "error: linker `cc` not found")],
    ids=["no cargo", "a cargo that fails"],
)
def test_without_a_compiler_python_does_it_all(
    prepare: Callable[[Path], None], reason: str, unpacked: Path, tmp_path: Path
) -> None:
    path = tmp_path / "path"
    path.mkdir()
    prepare(path)
    refused = _build(unpacked, path, **{REQUIRED: "1"})
    assert refused.returncode != 0
    assert reason in refused.stderr
    done = _build(unpacked, path)
    assert done.returncode == 0, done.stderr
    (said,) = (line for line in done.stderr.splitlines() if "compiled part" in line)
    assert reason in said
    assert "a third of the speed" in said
    (pure,) = (unpacked / "made").glob("*.whl")
    assert pure.name.endswith("-py3-none-any.whl")
    assert _compiled_in(pure) == []
    assert not (unpacked / NATIVE / "_native.abi3.so").exists()
    _assert_it_works_from(pure, tmp_path / "alone")


def _assert_it_works_from(wheel: Path, folder: Path) -> None:
    zipfile.ZipFile(wheel).extractall(folder)
    where = "import pipeline.native, pipeline; print(pipeline.__file__)"
    assert Path(_run(sys.executable, "-c", where, cwd=folder).strip()).is_relative_to(folder)
    program = "import sys; from pipeline.cli import main; sys.exit(main())"
    _assert_it_folds_and_answers(sys.executable, "-c", program, cwd=folder)


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
    # Of an extra, only what is imported where that is asked for.
    entries = [*project["dependencies"], *project["optional-dependencies"]["s3"]]
    declared = {Requirement(entry).name.lower() for entry in entries}
    distributions = packages_distributions()
    imported = set()
    # The build hook is no part of what is installed, and is run by what builds it.
    for path in set((ROOT / "pipeline").rglob("*.py")) - {ROOT / NATIVE / "build.py"}:
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


#: what the image runs on, of which the locks are made
IMAGE = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux", "extra": ""}


def _locked(name: str) -> dict[str, str]:
    """The version of each package in a lock file; every one of them must have hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        pinned = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)", line.rstrip())
        assert pinned is not None, line
        found[canonicalize_name(pinned[1])] = pinned[2]
    return found


def _disagreements(requirements: list[str], locked: dict[str, str]) -> list[str]:
    wanted = [Requirement(entry) for entry in requirements]
    return [
        str(want)
        for want in wanted
        if not want.specifier.contains(locked.get(canonicalize_name(want.name), "0"), prereleases=True)
    ]


def _needed(requirements: list[str]) -> set[str]:
    """Everything that these packages pull in on the image, by what the packages installed here say of themselves."""
    environment = {**default_environment(), **IMAGE}
    needed: set[str] = set()
    waiting = [Requirement(entry) for entry in requirements]
    seen = set()
    while waiting:
        want = waiting.pop()
        name, extras = canonicalize_name(want.name), frozenset(want.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        needed.add(name)
        try:
            told = requires(name) or []
        except PackageNotFoundError:
            continue  # only the image needs it: what it needs in turn is not known here
        for entry in map(Requirement, told):
            asked = [environment | {"extra": extra} for extra in (extras or {""})]
            if entry.marker is None or any(entry.marker.evaluate(each) for each in asked):
                waiting.append(entry)
    return needed


def test_the_image_is_locked_to_what_the_project_allows_and_to_all_it_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    backend = project["build-system"]["requires"]
    # The image can have its lake on object storage.
    dependencies = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["s3"]]
    locked = _locked("requirements.lock")
    assert _disagreements(dependencies, locked) == []
    assert _needed(dependencies) == set(locked)
    assert _disagreements(backend, _locked("build.lock")) == []
    assert _needed(backend) <= set(_locked("build.lock"))


def test_the_image_installs_nothing_but_what_is_locked() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = re.findall(r"pip (?:install|wheel) [^&\n]*", text)
    assert len(installs) == 4
    for command in installs:
        assert "--require-hashes -r" in command or "--no-deps" in command, command
        assert ("wheel" in command.split()[1]) == ("--no-build-isolation" in command), command
    assert re.search(r"^USER callfold$", text, flags=re.MULTILINE)
    copied = [
        path
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE)
        for path in line.split()
    ]
    let_through = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{path}" for path in copied} == {line for line in let_through if line.startswith("!")}
    assert all((ROOT / path).exists() for path in copied)

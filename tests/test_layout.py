"""The import rule: read from the source, so that a wrong import fails here and not in a year."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"
MAX_LINES = 400

ANYWHERE = {
    "errors",
    "garbage",
    "logs",
    "settings",
    "setting_readers",
    "setting_table",
    "storage",
    "kafka_security",
    "topic_names",
}
"""May be imported by all but `model` and `providers`; they import one another at most."""
STEPS = {"archive", "collect", "normalise", "assemble", "lake", "query", "report", "simulate"}
SHELLS = {
    "stream",
    "open_lake",
    "durable",
    "privacy",
    "upkeep",
    "backfill",
    "backfill_archives",
    "backfill_pass",
    "backfill_preload",
    "backfill_processes",
    "backfill_route",
    "backfill_share",
    "backfill_summary",
    "backfill_threads",
    "rebuild",
    "forget",
    "forget_beyond",
    "forget_find",
    "forget_prove",
    "traces",
    "quarantine",
    "replay",
    "doctor",
    "doctor_kafka",
    "demo",
}
"""What joins the steps."""
EDGE = {"commands", "cli"}

ALLOWED: dict[str, set[str]] = {
    "model": set(),
    # Compiled: what it is to do is said by those that import it.
    "native": set(),
    "providers": {"model"},
    **dict.fromkeys(ANYWHERE, ANYWHERE),
    **{name: {"model", "native", "providers"} | ANYWHERE for name in STEPS},
    # A report is figures from the views, and the views are the step before it.
    "report": {"query"} | ANYWHERE,
    # The truth that the simulator writes must not come from the code it is used to judge.
    "simulate": {"model"} | ANYWHERE,
    **{name: {"model", "native", "providers"} | ANYWHERE | STEPS | SHELLS for name in SHELLS},
    **{name: {"model", "native", "providers"} | ANYWHERE | STEPS | SHELLS | EDGE for name in EDGE},
}

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "_sql" not in path.parts)
RUST = sorted((PACKAGE / "native" / "src").rglob("*.rs"))


def _part(path: Path) -> str:
    """The layer that a file belongs to: the first name below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            assert node.module is not None
            names = [alias.name for alias in node.names] if node.module == "pipeline" else [""]
            yield from ((node.lineno, f"{node.module}.{name}".rstrip(".")) for name in names)


def _ours(path: Path) -> Iterator[tuple[int, str]]:
    for line, module in _imports(path):
        first, _, rest = module.partition(".")
        if first == "pipeline" and rest and not rest.startswith("__"):
            yield line, rest.split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_its_left_only(path: Path) -> None:
    part = _part(path)
    if part == "__init__":
        assert list(_ours(path)) == []
        return
    assert part in ALLOWED, f"{part} is new: give it a place in the layers, here and in pipeline/README.md"
    wrong = [f"line {line}: {name}" for line, name in _ours(path) if name not in ALLOWED[part] | {part}]
    assert wrong == []


def test_only_stream_imports_faust() -> None:
    importers = {
        _part(path)
        for path in SOURCES
        for _, module in _imports(path)
        if module.split(".")[0] in ("faust", "mode")
    }
    assert importers <= {"stream"}


def test_no_file_is_too_long_to_read() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in SOURCES + RUST}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_module_is_named_after_nothing() -> None:
    assert [path for path in SOURCES + RUST if path.stem in {"utils", "helpers", "common", "misc"}] == []


def test_every_package_says_what_it_holds() -> None:
    folders = {path.parent for path in SOURCES}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
    silent = [path for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))]
    silent += [path for path in RUST if not path.read_text().startswith("//! ")]
    assert silent == []

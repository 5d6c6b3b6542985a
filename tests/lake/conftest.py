"""Lakes to write into, and what their views show."""

import itertools
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from one_engine import engine

from pipeline.lake import LakeHistory, LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection
from pipeline.normalise import Normaliser
from pipeline.normalise.redact import Privacy
from pipeline.open_lake import open_lake
from pipeline.providers import providers
from pipeline.query.values import rows_of
from pipeline.query.views import _rooted, models
from pipeline.storage.engine import lake_connection
from pipeline.storage.place import is_remote

VIEWS = ("calls", "open_calls", "call_revisions", "call_events", "webhooks", "quarantine")


@pytest.fixture(scope="session")
def world() -> Any:
    """The simulated traffic with its truth, as the tests of the fold have it."""
    folder = Path(__file__).parents[1] / "assemble"
    return SimpleNamespace(**runpy.run_path(str(folder / "world.py")))


def _tables(root: Path, names: Sequence[str]) -> dict[str, pa.Table]:
    """What these views show. They are made as tables: most of a look is to bind a SELECT, which a view is twice."""
    needed = {*names, "int_latest_calls"} if {"calls", "open_calls"} & {*names} else {*names}
    with lake_connection(root, threads=2) if is_remote(root) else engine().cursor() as connection:
        for name, sql in models().items():
            if name in needed:
                connection.execute(f"create temp table {name} as {_rooted(sql, str(root))}")
        return {name: connection.sql(f"from {name}").to_arrow_table() for name in names}


def _views(root: Path, *names: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of these views over the lake itself, or of all."""
    found = {}
    for view, table in _tables(root, names or VIEWS).items():
        rows = itertools.chain.from_iterable(map(rows_of, table.to_batches()))
        found[view] = [dict(zip(table.column_names, row, strict=True)) for row in rows]
    return found


def _seen(root: Path) -> dict[str, list[str]]:
    """All that the views show, in an order of its own, with the names of their columns."""
    tables = _tables(root, VIEWS)
    found = {
        view: sorted(map(repr, zip(*map(_values, table.columns), strict=True)))
        for view, table in tables.items()
    }
    return found | {"columns": [f"{view}: {table.column_names}" for view, table in tables.items()]}


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = (
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    ).to_pylist()
    return values


def _calls_of(root: Path) -> dict[str, dict[str, Any]]:
    """Calls, ended and open, by key; each is there once."""
    found = _views(root, "calls", "open_calls")
    every = found["calls"] + found["open_calls"]
    by_key = {row["call_key"]: row for row in every}
    assert len(by_key) == len(every), "a call is there twice"
    return by_key


@pytest.fixture(scope="session")
def views() -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """The rows of each view as plain values."""
    return _views


@pytest.fixture(scope="session")
def seen() -> Callable[[Path], dict[str, list[str]]]:
    """All that the views show, in an order of its own."""
    return _seen


@pytest.fixture(scope="session")
def calls_of() -> Callable[[Path], dict[str, dict[str, Any]]]:
    """Calls, ended and open, by key."""
    return _calls_of


class Worker:
    """An assembler before a real lake."""

    def __init__(self, root: Path, world: Any) -> None:
        self.root, self._clock = root, itertools.count(1_772_409_600_000_000)
        self._world = world
        self._lake = open_lake(root)
        self.start()

    def start(self) -> None:
        self._history, self._sink = LakeHistory(self._lake), LakeSink(self._lake)
        self._assembler = self._world.assembler(self._history)
        self._assembler.restore(0, self._history.remember(self._history.open_streams()))

    def add(self, lines: Any) -> None:
        for line in lines:
            self._assembler.add(0, self._world.events_of(line))

    def flush(self, as_of_us: int, *, only_events: bool = False) -> None:
        changes = self._assembler.collect(lambda _: as_of_us)
        records, retracted = ([], []) if only_events else (changes.records, changes.retracted)
        self._sink.write_calls(changes.events, records, retracted, next(self._clock))
        self._history.note(key for key, _ in changes.records)
        self._history.note(placed.event.stream_key for placed in changes.events if placed.call_key is None)

    def store(self, lines: Any, rejected: Any = (), *, is_resolved: bool = False) -> None:
        """Archives webhooks, and puts some into the quarantine or takes them out of it."""
        kept = [Normaliser(providers(), Privacy()).stored(self._world.webhook_of(line)) for line in lines]
        self._sink.write_webhooks(kept, next(self._clock))
        why = Rejection("normalise", "bad_shape", None, "made up")
        kept = [Normaliser(providers(), Privacy()).stored(self._world.webhook_of(line)) for line in rejected]
        stored = [StoredRejection(*one, why, is_resolved) for one in kept]
        self._sink.write_quarantine(stored, next(self._clock))


@pytest.fixture(scope="session")
def worker_at(world: Any) -> Callable[[Path], Worker]:
    """A worker before the lake at a path."""
    return lambda root: Worker(root, world)

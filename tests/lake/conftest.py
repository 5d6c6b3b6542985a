"""Lakes to write into, and what their views show."""

import itertools
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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

VIEWS = ("calls", "open_calls", "call_revisions", "call_events", "webhooks", "quarantine")


@pytest.fixture(scope="session")
def world() -> Any:
    """The simulated traffic with its truth, as the tests of the fold have it."""
    folder = Path(__file__).parents[1] / "assemble"
    return SimpleNamespace(**runpy.run_path(str(folder / "world.py")))


def _views(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of the views over the lake itself; binding all the others as well takes most of the time."""
    found = {}
    with lake_connection(root, threads=2) as connection:
        for name, sql in models().items():
            if name in VIEWS or name == "int_latest_calls":
                connection.execute(f"create view {name} as {_rooted(sql, str(root))}")
        for view in VIEWS:
            reader = connection.sql(f"from {view}").to_arrow_reader()
            names = reader.schema.names
            found[view] = [dict(zip(names, row, strict=True)) for batch in reader for row in rows_of(batch)]
    return found


@pytest.fixture(scope="session")
def views() -> Callable[[Path], dict[str, list[dict[str, Any]]]]:
    """The rows of each view as plain values."""
    return _views


@pytest.fixture(scope="session")
def seen() -> Callable[[Path], dict[str, list[str]]]:
    """All that the views show, in an order of its own."""
    return lambda root: {view: sorted(map(repr, rows)) for view, rows in _views(root).items()}


@pytest.fixture(scope="session")
def calls_of() -> Callable[[Path], dict[str, dict[str, Any]]]:
    """Calls, ended and open, by key; each is there once."""

    def calls(root: Path) -> dict[str, dict[str, Any]]:
        found = _views(root)
        every = found["calls"] + found["open_calls"]
        by_key = {row["call_key"]: row for row in every}
        assert len(by_key) == len(every), "a call is there twice"
        return by_key

    return calls


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

"""Files that a worker wrote itself need not be looked into: what comes back from them is the same."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.durable import write_changes
from pipeline.lake import Lake, LakeHistory, LakeSink, lookup
from pipeline.lake.compact import compact
from pipeline.lake.rows import key_hash
from pipeline.open_lake import open_lake

native = pytest.importorskip("pipeline.native._native")
TESTS = Path(__file__).parents[1]
world = SimpleNamespace(**runpy.run_path(str(TESTS / "assemble" / "world.py")))
FLUSHES = 4


class Written:
    """A lake of four flushes, and the history that was told of them."""

    def __init__(self, root: Path) -> None:
        self.lake = open_lake(root)
        self.history = LakeHistory(self.lake)
        self.keys: set[str] = set()
        self._sink = LakeSink(self.lake)
        self._assembler = native.Assembler(
            idle_us=2**50, grace_us=0, agent_providers=["aircall_bus"], history=self.history
        )
        lines = world.shuffled(world.simulated(60, 3), 1)
        for number in range(FLUSHES):
            self.flush(lines[number::FLUSHES], number + 1)

    def flush(self, lines: list[Any], published_us: int) -> None:
        for line in lines:
            events = world.events_of(line)
            self.keys |= {event.stream_key for event in events}
            self._assembler.add(0, events)
        changes = self._assembler.collect(lambda _: 2**49)
        write_changes(self._sink, self.history, changes, published_us)

    def files(self, dataset: str) -> list[Path]:
        return sorted(self.lake.hot(dataset).glob("00*-*.parquet"))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "lake")


def as_read(lake: Lake, keys: list[str]) -> list[Any]:
    return list(LakeHistory(lake).remember(keys).items())


def some(keys: set[str]) -> Iterator[list[str]]:
    in_order = sorted(keys)
    yield in_order
    yield in_order[:1]
    yield [*in_order[::7], "recho:nobody"]
    yield ["recho:nobody"]


def test_they_are_not_looked_into(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    meant = [as_read(written.lake, keys) for keys in some(written.keys)]

    def refuse(path: Path) -> Any:
        raise AssertionError(f"{path} was written here")

    monkeypatch.setattr(lookup, "opened", refuse)
    found = [list(written.history.remember(keys).items()) for keys in some(written.keys)]
    assert found == meant
    assert len(found[0]) == len(written.keys) > 50


@pytest.mark.parametrize("dataset", ["call_events", "calls"])
def test_nothing_is_denied_that_is_in_them(written: Written, dataset: str) -> None:
    noted = written.history._lookups[dataset]._noted
    assert sorted(noted) == written.files(dataset)
    assert len(noted) == FLUSHES
    wrong = 0
    for file, known in noted.items():
        keys = set(written.lake.read(file).column("stream_key").to_pylist())
        asked = lookup.Asked(lookup.hashes_of(map(key_hash, sorted(written.keys))))
        held = {sorted(written.keys)[place] for place in known.places(asked)}
        assert keys <= held
        wrong += len(held - keys)
    assert wrong <= 3


def test_the_oldest_are_forgotten_and_looked_into(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST_NOTED", 2)
    line = world.simulated(60, 3)[0]
    for number in range(3):
        event = world.events_of(line)[0]
        event.event_id = f"more-{number}"
        written._assembler.add(0, [event])
        write_changes(
            written._sink, written.history, written._assembler.collect(lambda _: 2**49), FLUSHES + number + 1
        )
    # One is dropped for one that comes: what was noted before the number was so small stays.
    assert len(written.history._lookups["calls"]._noted) == FLUSHES
    keys = sorted(written.keys)
    assert list(written.history.remember(keys).items()) == as_read(written.lake, keys)


def test_what_a_compaction_took_away_is_found_where_it_is_then(written: Written) -> None:
    for _ in range(2):
        compact(written.lake.root, 0)
    assert not set(written.files("calls")) & set(written.history._lookups["calls"]._noted)
    for keys in some(written.keys):
        assert list(written.history.remember(keys).items()) == as_read(written.lake, keys)


def test_files_of_a_lake_in_which_something_is_forgotten_are_looked_into(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written._sink._forgotten, "hashes", lambda: {"one": "word"})
    monkeypatch.setattr(written._sink._forgotten, "events", lambda events: events)
    monkeypatch.setattr(written._sink._forgotten, "records", lambda records: records)
    event = world.events_of(world.simulated(60, 3)[0])[0]
    event.event_id = "another"
    written._assembler.add(0, [event])
    write_changes(written._sink, written.history, written._assembler.collect(lambda _: 2**49), FLUSHES + 1)
    assert len(written.files("call_events")) == FLUSHES + 1
    assert len(written.history._lookups["call_events"]._noted) == FLUSHES
    keys = sorted(written.keys)
    assert list(written.history.remember(keys).items()) == as_read(written.lake, keys)


def test_one_that_is_forgotten_in_the_midst_of_a_look_is_read_all_the_same(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = sorted(written.keys)
    meant = as_read(written.lake, keys)
    for find in written.history._lookups.values():
        is_noted, seen = find.is_noted, set[Path]()

        def once(file: Path, is_noted: Any = is_noted, seen: set[Path] = seen) -> bool:
            told = file not in seen and is_noted(file)
            seen.add(file)
            return bool(told)

        monkeypatch.setattr(find, "is_noted", once)
    assert list(written.history.remember(keys).items()) == meant

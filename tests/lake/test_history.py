"""A worker that is dropped and started again from the lake goes on as if nothing had happened."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.errors import DestinationUnavailable
from pipeline.lake import LakeHistory
from pipeline.lake.compact import compact
from pipeline.open_lake import open_lake

HAPPENINGS = st.sampled_from(["flush", "restart", "crash", "torn", "compact"])


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=6,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    st.integers(1, 4), st.dictionaries(st.integers(0, 150), HAPPENINGS, min_size=2, max_size=5), st.booleans()
)
def test_restarts_and_crashes_change_no_column_of_any_call(
    world: Any, worker_at: Any, calls_of: Any, seed: int, happenings: dict[int, str], is_shuffled: bool
) -> None:
    lines = world.simulated(40, seed, 0.2, 0.2, 0.2, 0.1)
    truth = world.simulated_truth(40, seed, 0.2, 0.2, 0.2, 0.1)
    hidden = ("revision",) if is_shuffled else ()
    taken = world.shuffled(lines, seed) if is_shuffled else lines
    with tempfile.TemporaryDirectory() as folder:
        worker = worker_at(Path(folder) / "lake")
        batch, newest_us = [], 0
        for place, line in enumerate(taken):
            worker.add([line])
            batch.append(line)
            newest_us = max(newest_us, world.instant.from_text(line["received_at"]))
            happening = happenings.get(place)
            if happening is None:
                continue
            worker.flush(newest_us, only_events=happening == "torn")
            if happening == "compact":
                compact(worker.root, 0)
            elif happening != "flush":
                worker.start()
            if happening in ("crash", "torn"):
                worker.add(batch)
                worker.flush(newest_us)
            batch = []
        worker.flush(newest_us)
        assert world.without(calls_of(worker.root), *hidden) == world.without(truth, *hidden)


def test_what_comes_back_is_what_was_written(tmp_path: Path, world: Any, worker_at: Any) -> None:
    lake = open_lake(tmp_path)
    lines = world.simulated(40, 3)
    memory = world.run(lines, world.Course({}))
    worker = worker_at(tmp_path)
    worker.add(lines)
    worker.flush(max(world.instant.from_text(line["received_at"]) for line in lines))
    keys = {event.stream_key for line in lines for event in world.events_of(line)}
    found = LakeHistory(lake).remember(keys)
    assert found.keys() == keys
    for key, past in found.items():
        here = memory.remember({key})[key]
        assert sorted(past.events, key=repr) == sorted(here.events, key=repr)
        assert sorted(past.records, key=repr) == sorted(here.records, key=repr)


def test_streams_that_the_lake_holds_are_known_and_no_others(
    tmp_path: Path, world: Any, worker_at: Any
) -> None:
    worker = worker_at(tmp_path)
    lines = world.simulated(40, 3)
    worker.add(lines[: len(lines) // 2])
    worker.flush(0)
    written = {event.stream_key for line in lines[: len(lines) // 2] for event in world.events_of(line)}
    unwritten = {event.stream_key for line in lines for event in world.events_of(line)} - written
    for history in (worker._history, LakeHistory(open_lake(tmp_path))):
        assert all(map(history.knows, written))
        assert not any(map(history.knows, unwritten))


def test_a_folder_that_is_named_like_a_pattern_holds_a_lake_as_well(
    tmp_path: Path, world: Any, worker_at: Any, calls_of: Any
) -> None:
    root = tmp_path / "it's a [lake]*"
    worker = worker_at(root)
    worker.add(world.simulated(40, 3))
    worker.flush(0)
    before = calls_of(root)
    compact(root, 0)
    compact(root, 0)
    assert calls_of(root) == before
    assert len(LakeHistory(open_lake(root)).open_streams()) == sum(
        row["state"] != "ended" for row in before.values()
    )


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    history = LakeHistory(lake)
    (lake.hot("call_events") / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(DestinationUnavailable, match="cannot read the lake at") as told:
        history.remember(["recho:1"])
    assert "\n" not in str(told.value)


def test_many_streams_are_known_as_well_once_they_have_left_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.lake.history.RECENT_STREAMS", 10)
    history = LakeHistory(open_lake(tmp_path))
    for first in range(0, 100, 4):
        history.note(f"recho:{number}" for number in range(first, first + 6))
    assert all(history.knows(f"recho:{number}") for number in range(102))
    assert not any(history.knows(f"recho:{number}") for number in range(102, 200))


def test_streams_that_are_noted_again_take_no_more_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.lake.history.RECENT_STREAMS", 4)
    history = LakeHistory(open_lake(tmp_path))
    # Next to each other at the end of what 64 bits hold, where no float tells them apart.
    largest = 2**64 - 1
    for first in (largest - 5, 0, largest - 3, 2):
        history.note_hashes(range(first, first + 4))
    assert list(history._index) == [*range(6), *range(largest - 5, largest + 1)]

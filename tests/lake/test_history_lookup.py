"""What comes back from the files that may hold a stream is what comes back from all files, read the plain way."""

import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.errors import DestinationUnavailable
from pipeline.lake import Lake, LakeHistory, history, lookup
from pipeline.lake.compact import compact
from pipeline.lake.files import quoted
from pipeline.lake.key_filter import Asked, Hashes, KeyFilter, hashes_of
from pipeline.lake.lookup import Lookup
from pipeline.lake.rows import records_from
from pipeline.lake.schemas import SCHEMAS, declared
from pipeline.lake.sealed import current_files, sealed_rows
from pipeline.open_lake import open_lake
from pipeline.storage.engine import lake_connection

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lake"


@contextmanager
def every_row(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """A table for each dataset of what every file that counts holds."""
    with lake_connection(lake.root, threads=2) as connection:
        for dataset in ("call_events", "calls", "call_revisions"):
            rows = f"from {sealed_rows(lake, dataset)}"
            if dataset != "call_revisions":
                hot = quoted(lake.hot(dataset), "*.parquet")
                rows = f"from read_parquet({hot}, {declared(SCHEMAS[dataset])}) union all by name {rows}"
            connection.execute(f"create temp table {dataset} as {rows}")
        yield connection


def plain(every: duckdb.DuckDBPyConnection, dataset: str, keys: Collection[str], rest: str) -> pa.Table:
    """The rows of these streams by one join over all of them."""
    every.register("wanted", pa.table({"stream_key": pa.array(sorted(keys), pa.string())}))
    return every.sql(
        f"select r.* from {dataset} r semi join wanted using (stream_key) {rest}"
    ).to_arrow_table()


def same_as(every: duckdb.DuckDBPyConnection, keys: Sequence[str], *histories: LakeHistory) -> int:
    """Holds both ways against each other, in their order; how many streams there are."""
    events = plain(every, "call_events", keys, "order by published_at, event_id")
    expected = history._by_stream(events, plain(every, "calls", keys, history._NEWEST))
    told = records_from(plain(every, "call_revisions", keys, history._NEWEST))
    revisions = [(record.call_key, record) for _, record in told]
    for one in histories:
        assert list(one.remember(keys).items()) == list(expected.items())
        assert list(one.revisions(keys).items()) == revisions
    return len(expected)


def same_as_plain(found: LakeHistory, lake: Lake, keys: Sequence[str]) -> int:
    with every_row(lake) as every:
        return same_as(every, keys, found)


def keys_of(lake: Lake) -> list[str]:
    with lake_connection(lake.root) as connection:
        hot = [quoted(lake.hot(name), "*.parquet") for name in ("calls", "call_events")]
        sealed = [quoted(lake.sealed(name), "**/*.parquet") for name in ("calls", "call_events")]
        every = " union ".join(
            f"select stream_key from read_parquet({files}, union_by_name = true)" for files in hot + sealed
        )
        return sorted(key for (key,) in connection.execute(every).fetchall() if key is not None)


def some(keys: Sequence[str], seed: int) -> Iterator[list[str]]:
    """One key, a few scattered ones, neighbours, all, and such as nobody has."""
    chance = random.Random(seed)
    place = chance.randrange(len(keys))
    yield [keys[place]]
    yield [*chance.sample(keys, min(5, len(keys))), "recho:nobody"]
    yield keys[place : place + 20]
    yield [*keys, *keys[:3], ""]
    yield ["aircall_bus:agent:nobody", "zzz"]


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=4,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    st.integers(1, 1_000),
    st.lists(
        st.sampled_from(["flush", "twice", "torn", "restart", "compact", "graceful"]), min_size=3, max_size=6
    ),
    st.booleans(),
)
def test_what_comes_back_is_what_all_files_hold(
    world: Any, worker_at: Any, seed: int, happenings: list[str], is_divided: bool
) -> None:
    lines = world.shuffled(world.simulated(25, seed % 4 + 1, 0.2, 0.2, 0.3, 0.1), seed)
    step = len(lines) // len(happenings) + 1
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.lake.files.ROW_GROUP_ROWS", 30)
        if is_divided:
            patch.setattr("pipeline.lake.merge.DIVIDED_ROWS", 10)
        worker = worker_at(Path(folder) / "lake")
        lake, kept = Lake(worker.root), LakeHistory(Lake(worker.root))
        for number, happening in enumerate(happenings):
            batch = lines[number * step : (number + 1) * step]
            worker.add(batch)
            now_us = max(world.instant.from_text(line["received_at"]) for line in batch)
            worker.flush(now_us, only_events=happening == "torn")
            if happening in ("twice", "torn", "restart"):
                worker.start()
            if happening == "twice":
                worker.add(batch)
                worker.flush(now_us)
            if happening in ("compact", "graceful"):
                compact(worker.root, 0 if happening == "compact" else 3600)
            with every_row(lake) as every:
                written = "select stream_key from call_events union select stream_key from calls"
                every_key = sorted(key for (key,) in every.execute(written).fetchall())
                for place, keys in enumerate([*some(every_key, seed + number)][number % 2 :: 2]):
                    # By what was learned before a compaction, and every other time by nothing as well.
                    same_as(every, keys, kept, *[worker._history][place % 2 :])


def test_what_version_1_wrote_comes_back(tmp_path: Path) -> None:
    root = shutil.copytree(FIXTURES / "v1", tmp_path / "lake")
    lake = Lake(root)
    keys = keys_of(lake)
    with every_row(lake) as every:
        assert same_as(every, keys, LakeHistory(lake)) > 10
        assert all(same_as(every, [key], LakeHistory(lake)) == 1 for key in keys[::7])
    kept = LakeHistory(open_lake(root))
    for _ in range(3):
        assert same_as_plain(kept, lake, keys) > 10
        compact(root, 0)


@pytest.fixture(scope="module")
def once_written(tmp_path_factory: pytest.TempPathFactory, world: Any, worker_at: Any) -> Path:
    """A lake with sealed rows of many calls, and hot ones of some of them and of others."""
    worker = worker_at(tmp_path_factory.mktemp("written") / "lake")
    lines = world.simulated(40, 3)
    for part in (lines[: len(lines) // 2], lines[len(lines) // 2 :]):
        worker.add(part)
        worker.flush(max(world.instant.from_text(line["received_at"]) for line in part))
        if part[0] is lines[0]:
            compact(worker.root, 0)
            compact(worker.root, 0)
    root: Path = worker.root
    return root


@pytest.fixture
def written(once_written: Path, tmp_path: Path) -> Lake:
    return Lake(shutil.copytree(once_written, tmp_path / "lake"))


def hot_file(lake: Lake, name: str, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    """The newest hot file of events under another name and changed; no other one holds its rows."""
    newest = max(file for file in lake.hot("call_events").glob("*.parquet"))
    pq.write_table(change(pq.read_table(newest)), newest.with_name(f"{name}.parquet"), **options)
    newest.unlink()


def with_keys(table: pa.Table, kind: pa.DataType) -> pa.Table:
    place = table.schema.get_field_index("stream_key")
    return table.set_column(place, "stream_key", table["stream_key"].cast(kind))


def without_keys(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("stream_key")
    return table.set_column(place, "stream_key", pa.nulls(len(table), pa.string()))


ODD: dict[str, tuple[Callable[[pa.Table], pa.Table], dict[str, Any]]] = {
    "no statistics": (lambda table: table, {"write_statistics": False}),
    "large strings": (lambda table: with_keys(table, pa.large_string()), {}),
    "binary": (lambda table: with_keys(table, pa.binary()), {}),
    "a dictionary": (lambda table: with_keys(table, pa.dictionary(pa.int32(), pa.string())), {}),
    "no dictionary": (lambda table: table, {"use_dictionary": False, "row_group_size": 7}),
    "no such column": (lambda table: table.drop_columns("stream_key"), {}),
    "no keys": (without_keys, {}),
    "no keys and no statistics": (without_keys, {"write_statistics": False}),
    "numbers": (lambda t: t.set_column(3, "stream_key", pa.array(range(len(t)), pa.int64())), {}),
    "no rows": (lambda table: table.slice(0, 0), {}),
}


@pytest.mark.parametrize("oddity", ODD)
def test_a_file_of_another_kind_is_read_as_duckdb_reads_it(written: Lake, oddity: str) -> None:
    keys = keys_of(written)
    change, options = ODD[oddity]
    hot_file(written, "9-odd", change, **options)
    with every_row(written) as every:
        # Some by what was learned for others, and all by nothing.
        learned = LakeHistory(written)
        for wanted in (keys[:1], [*keys[-2:], "3"]):
            same_as(every, wanted, learned)
        assert same_as(every, keys, LakeHistory(written)) > 1


def test_many_streams_are_found_as_few_are(written: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "NAMED_KEYS", 2)
    keys = keys_of(written)
    with every_row(written) as every:
        assert same_as(every, keys, LakeHistory(written)) == len(keys)
        assert same_as(every, keys[:2], LakeHistory(written)) == 2
        monkeypatch.setattr(lookup, "NAMED_KEYS", 1_000)
        monkeypatch.setattr(lookup, "FILES_APART", 1)
        assert same_as(every, keys, LakeHistory(written)) == len(keys)


def test_a_file_is_looked_into_once(written: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    found, keys = LakeHistory(written), keys_of(written)
    before = found.remember(keys)

    def refuse(path: Path) -> Any:
        raise AssertionError(f"{path} was known already")

    monkeypatch.setattr(lookup, "opened", refuse)
    assert found.remember(keys) == before
    assert [key for key in keys[::3] if found.remember([key]) != {key: before[key]}] == []


def test_few_files_are_read_for_one_call(written: Lake) -> None:
    find = Lookup(written, "call_events")
    every = [
        *written.hot("call_events").glob("0[0-9]*-*.parquet"),
        *current_files(written, "call_events").values(),
    ]
    with lake_connection(written.root) as connection:
        for key in keys_of(written)[::5]:
            files = find.files([key])
            holding = [
                file
                for file in every
                if connection.execute(
                    f"select count(*) from {quoted(file)} where stream_key = ?", [key]
                ).fetchall()
                != [(0,)]
            ]
            assert set(holding) <= set(files) <= set(every)
            assert len(files) <= len(holding) + 1


def test_files_that_a_compaction_removes_meanwhile_are_read_where_they_are_then(
    written: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, keys, files_of = LakeHistory(written), keys_of(written), Lookup.files
    expected = found.remember(keys)
    compactions = iter([1, 1])

    def meanwhile(self: Lookup, stream_keys: Sequence[str]) -> dict[Path, list[str]]:
        files = files_of(self, stream_keys)
        for _ in [*zip(compactions, range(1), strict=False)]:
            compact(written.root, 0)
            compact(written.root, 0)
        return files

    monkeypatch.setattr(Lookup, "files", meanwhile)
    assert found.remember(keys) == expected
    assert next(compactions, None) is None
    assert not list(written.hot("call_events").glob("0[0-9]*-*.parquet"))


@pytest.mark.parametrize("is_learned", [False, True])
@pytest.mark.parametrize("step", ["listed", "current_files"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_compaction_between_two_steps_hides_nothing(
    written: Lake, monkeypatch: pytest.MonkeyPatch, step: str, place: int, is_learned: bool
) -> None:
    found, take = LakeHistory(written), getattr(lookup, step)
    # Of calls that are not sealed yet: no file that is replaced would give it away.
    sealed = [written.read(file) for file in current_files(written, "call_events").values()]
    keys = sorted({*keys_of(written)} - {key for table in sealed for key in table["stream_key"].to_pylist()})
    expected = LakeHistory(written).remember(keys)
    if is_learned:
        found.remember(keys)
        # As if the manifest were new: one that is known is not read again.
        for known in found._lookups.values():
            known._manifests = []
    taken = iter(range(5))

    def meanwhile(*about: Any) -> Any:
        files = take(*about)
        if next(taken, None) == place:
            compact(written.root, 0)
            compact(written.root, 0)
        return files

    monkeypatch.setattr(lookup, step, meanwhile)
    assert found.remember(keys) == expected
    assert not list(written.hot("call_events").glob("0[0-9]*-*.parquet"))


def test_a_sealed_file_that_was_lost_holds_nothing(written: Lake) -> None:
    keys = keys_of(written)
    learned, other = LakeHistory(written), LakeHistory(written)
    learned.remember(keys)
    for dataset in ("calls", "call_events"):
        max(current_files(written, dataset).values()).unlink()
    with every_row(written) as every:
        assert same_as(every, keys, learned, other) > 0


@pytest.mark.parametrize("folder", ["hot", "manifest", "sealed"])
def test_a_lake_that_is_gone_is_no_empty_lake(written: Lake, folder: str) -> None:
    found, keys = LakeHistory(written), keys_of(written)
    found.remember(keys[:1])
    shutil.rmtree(written.root / "call_events" / folder)
    for history_of_it in (found, found):
        with pytest.raises(DestinationUnavailable, match="cannot read the lake at"):
            history_of_it.remember(keys)


@pytest.mark.parametrize("damage", [b"", b"no parquet", b"PAR1 and no more PAR1"])
def test_a_damaged_file_is_told_of_and_not_passed_over(written: Lake, damage: bytes) -> None:
    found, keys = LakeHistory(written), keys_of(written)
    broken = written.hot("call_events") / "broken.parquet"
    broken.write_bytes(damage)
    for _ in range(2):
        with pytest.raises(DestinationUnavailable, match="cannot read the lake at"):
            found.remember(keys[:1])
    broken.unlink()
    assert same_as_plain(found, written, keys[:1]) == 1


def hashes(keys: Iterable[object]) -> Hashes:
    return hashes_of(map(hash, keys))


@settings(derandomize=True, deadline=None, database=None, max_examples=50)
@given(st.lists(st.text(), min_size=1, max_size=300), st.lists(st.text(), max_size=50))
def test_a_filter_never_denies_what_was_put_in(keys: list[str], others: list[str]) -> None:
    known = KeyFilter(hashes(keys))
    every = Asked(hashes(keys))
    assert known.places(every) == list(range(len(keys)))
    # The few and the many are asked for in two ways.
    asked = Asked(hashes([*others, *keys]))
    one_by_one = [place for place, key in enumerate([*others, *keys]) if known.places(Asked(hashes([key])))]
    assert known.places(asked) == one_by_one
    middle = len(asked.hashes) // 2
    assert known.places(asked, 0, middle) + known.places(asked, middle) == one_by_one


def test_a_filter_is_seldom_wrong() -> None:
    known = KeyFilter(hashes(f"recho:{number}" for number in range(10_000)))
    others = Asked(hashes(f"recho:{number}" for number in range(10_000, 60_000)))
    assert len(known.places(others)) < 500


def test_on_s3_comes_back_what_all_files_hold(bucket: Any, world: Any, worker_at: Any) -> None:
    worker = worker_at(bucket / "lake")
    lines = world.simulated(25, 2)
    for part in (lines[::2], lines[1::2]):
        worker.add(part)
        worker.flush(max(world.instant.from_text(line["received_at"]) for line in part))
        if part[0] is lines[0]:
            compact(worker.root, 0)
    lake = Lake(worker.root)
    found = LakeHistory(lake)
    keys = list(found.remember(found.open_streams())) + [
        event.stream_key for line in lines for event in world.events_of(line)
    ]
    with every_row(lake) as every:
        assert same_as(every, keys, found) > 20
        assert same_as(every, keys[:1], found) == 1
    compact(worker.root, 0)
    assert same_as_plain(found, lake, keys[-2:]) == len(set(keys[-2:]))

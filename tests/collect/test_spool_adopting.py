"""Spools of several collectors in one directory: shared, left behind, taken over."""

from pathlib import Path

import pytest
from spooling import number_of, webhook
from spools import (
    Start,
    acknowledged,
    drained,
    heard,
    killed,
    left_in,
    new_file,
    put,
    with_a_broken_leaf,
    within,
)

from pipeline.collect import spool_damage
from pipeline.collect.spool import Spool, SpoolLimits
from pipeline.collect.spool_file import SpoolFile, stored_bytes


def test_two_collectors_share_a_directory_and_the_one_that_dies_is_taken_over(
    tmp_path: Path, spooling: Start
) -> None:
    other = spooling(tmp_path, "1", "5")
    assert acknowledged(heard(other)) == 5

    async def script(spool: Spool) -> list[int]:
        await put(spool, 900_000, 900_001)
        assert await spool.adopt() == 0, "it lives"
        assert [number_of(one.record) for one in await spool.read(0)] == [900_000, 900_001]
        newest = max([5, *map(acknowledged, killed(other))])
        assert await spool.adopt() >= newest
        assert spool.stock.webhooks >= newest + 2
        found = [number_of(one.record) for one in await drained(spool)]
        assert found[:2] == [900_000, 900_001]
        assert found[2 : newest + 2] == list(range(1, newest + 1))
        return found

    assert within(tmp_path, script)
    assert left_in(tmp_path) == []


def test_many_that_start_at_once_have_a_file_each(tmp_path: Path, spooling: Start) -> None:
    new_file(tmp_path, 3)
    processes = [spooling(tmp_path, str(1000 * n), "1") for n in range(1, 5)]
    begun = [acknowledged(heard(process)) for process in processes]
    assert len(list(tmp_path.glob("spool-*.db"))) == 4
    newest = [
        max([first, *map(acknowledged, killed(process))])
        for first, process in zip(begun, processes, strict=True)
    ]
    found = left_in(tmp_path)
    for first, last in zip((1000, 2000, 3000, 4000), newest, strict=True):
        assert set(range(first, last + 1)) <= set(found)
    assert {1, 2, 3} <= set(found)


def test_a_crash_in_the_midst_of_taking_over_may_double_and_never_loses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_file(tmp_path, 3)
    (tmp_path / "spool-0.db").rename(tmp_path / "spool-7.db")
    monkeypatch.setattr(spool_damage, "ADOPT_AT_ONCE_BYTES", 1)
    inner, left = SpoolFile.forget, [1]

    def forget(file: SpoolFile, last_id: int) -> None:
        if file.path.name == "spool-7.db":
            if not left:
                raise RuntimeError("killed here")
            left.pop()
        inner(file, last_id)

    file = SpoolFile.open(tmp_path / "spool-0.db")
    with monkeypatch.context() as patch:
        patch.setattr(SpoolFile, "forget", forget)
        with pytest.raises(RuntimeError, match="killed here"):
            spool_damage.adopt(file, tmp_path / "spool-7.db", 10**9)
    file.close()
    found = left_in(tmp_path)
    assert set(found) == {1, 2, 3}
    assert len(found) == 4, "the one that was being moved is there twice"


def test_a_damaged_file_that_was_left_behind_is_mended_and_does_not_harm_ones_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = new_file(tmp_path, 400)
    data = with_a_broken_leaf(path, 4)
    path.unlink()
    path.with_name("spool-3.db").write_bytes(data)

    async def script(spool: Spool) -> None:
        await put(spool, 1000)
        for _ in range(3):
            await spool.adopt()
        found = [number_of(one.record) for one in await drained(spool)]
        assert len(set(found)) > 380
        assert len(found) == len(set(found))

    within(tmp_path, script)
    assert len(list(tmp_path.glob("damaged-*.db"))) == 1
    assert "spool-3.db was damaged" in caplog.text
    assert "spool-0.db was damaged" not in caplog.text


def test_no_more_is_taken_over_than_there_is_room_for(tmp_path: Path) -> None:
    new_file(tmp_path, 400)
    (tmp_path / "spool-0.db").rename(tmp_path / "spool-7.db")
    bound = 30 * stored_bytes(webhook(100))

    async def script(spool: Spool) -> list[int]:
        found: list[int] = []
        while True:
            assert spool.stock.size_bytes <= bound
            some = [number_of(one.record) for one in await drained(spool)]
            found += some
            if not some and not await spool.adopt():
                return found

    assert within(tmp_path, script, SpoolLimits(bound, 1e9)) == list(range(1, 401))

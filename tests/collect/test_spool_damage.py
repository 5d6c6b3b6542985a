"""The spool on damaged files: torn, garbled, flipped, broken pages, mended."""

import logging
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from spooling import number_of, webhook
from spools import drained, left_in, new_file, put, with_a_broken_leaf, within

from pipeline.collect import spool_damage
from pipeline.collect.received import WebhookRecord
from pipeline.collect.spool import Spool
from pipeline.collect.spool_file import SpoolFile
from pipeline.errors import DestinationUnavailable


def test_a_torn_end_takes_only_the_group_that_was_being_written(tmp_path: Path) -> None:
    path = tmp_path / "whole" / "spool-0.db"
    path.parent.mkdir()
    file, wal = SpoolFile.open(path), path.with_name("spool-0.db-wal")
    ends = []
    for group in range(6):
        file.append([webhook(10 * group + n, 700) for n in range(3)])
        ends.append(wal.stat().st_size)
    whole = wal.read_bytes()
    dice = random.Random(3)
    for end in sorted(
        {*ends, *(at - 1 for at in ends), *dice.choices(range(ends[0] - 4000, ends[-1]), k=60)}
    ):
        torn = tmp_path / f"torn-{end}"
        shutil.copytree(path.parent, torn)
        (torn / wal.name).write_bytes(whole[:end])
        complete = [group for group in range(6) if ends[group] <= end]
        assert left_in(torn) == [10 * group + n for group in complete for n in range(3)]
    file.close()


def test_a_garbled_end_is_not_taken_for_a_webhook(tmp_path: Path) -> None:
    path = tmp_path / "whole" / "spool-0.db"
    path.parent.mkdir()
    file, wal = SpoolFile.open(path), path.with_name("spool-0.db-wal")
    file.append([webhook(1), webhook(2)])
    safe = wal.stat().st_size
    file.append([webhook(3), webhook(4)])
    whole, dice = wal.read_bytes(), random.Random(4)
    for number in range(40):
        garbled = bytearray(whole)
        garbled[dice.randrange(safe, len(whole))] ^= 1 << dice.randrange(8)
        copy = tmp_path / f"garbled-{number}"
        shutil.copytree(path.parent, copy)
        (copy / wal.name).write_bytes(bytes(garbled))
        assert left_in(copy) == [1, 2]
    file.close()


def test_a_flipped_byte_of_a_record_costs_that_one_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = new_file(tmp_path / "good", 30).read_bytes()
    start = data.index(b"17|17|17|")
    for at in (start, start + 77, start + 190):
        folder = tmp_path / f"flipped-{at}"
        folder.mkdir()
        (folder / "spool-0.db").write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])

        async def script(spool: Spool) -> list[int]:
            found = [number_of(one.record) for one in await drained(spool)]
            assert (spool.stock.set_aside, spool.stock.webhooks) == (1, 0)
            assert spool.is_empty
            return found

        caplog.clear()
        assert within(folder, script) == [n for n in range(1, 31) if n != 17]
        assert "1 webhooks are damaged and set aside" in caplog.text


def test_a_flipped_byte_anywhere_is_mended_or_told_and_never_stops_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    data = new_file(tmp_path / "good", 30).read_bytes()
    dice, untold = random.Random(6), []
    places = {*range(0, 120, 7), *range(3600, 4096, 31), *dice.choices(range(len(data)), k=120)}
    for at in sorted(places):
        folder = tmp_path / f"flipped-{at}"
        folder.mkdir()
        (folder / "spool-0.db").write_bytes(
            data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
        )
        caplog.clear()

        async def script(spool: Spool) -> list[WebhookRecord]:
            await put(spool, 99)
            try:
                return [one.record for one in await drained(spool)]
            except DestinationUnavailable:
                # It was mended in the midst of it.
                return [one.record for one in await drained(spool)]

        found = within(folder, script)
        assert all(record == webhook(number_of(record)) for record in found)
        assert found[-1] == webhook(99)
        is_kept = "damaged" in caplog.text and (
            any(folder.glob("damaged-*.db")) or "set aside" in caplog.text
        )
        if len(found) < 31 and not is_kept:
            untold.append((at, len(found)))
    assert not untold


@pytest.mark.parametrize("which", ["first", "middle", "last", "several"])
def test_of_a_file_with_broken_pages_the_others_are_saved(
    tmp_path: Path, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = new_file(tmp_path, 400)
    data = bytearray(path.read_bytes())
    # Leaves of the table of webhooks: page kind 13, with the text of some record in them.
    leaves = [at for at in range(4096, len(data), 4096) if data[at] == 13 and b"|" in data[at : at + 4096]]
    assert len(leaves) > 10
    broken = {"first": leaves[:1], "middle": leaves[5:6], "last": leaves[-1:], "several": leaves[:9:2]}[which]
    for at in broken:
        data[at : at + 100] = b"\xff" * 100
    path.write_bytes(bytes(data))
    found = left_in(tmp_path)
    assert len(found) >= 400 - 16 * len(broken)
    assert len(found) < 400
    assert found == sorted(found)
    assert "was damaged: it is now" in caplog.text
    (kept,) = tmp_path.glob("damaged-*.db")
    assert all(kept.read_bytes()[at : at + 4096] == data[at : at + 4096] for at in broken)


def test_a_file_that_breaks_while_it_is_used_is_mended_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, broken = SpoolFile.append, []

    def append(file: SpoolFile, records: list[WebhookRecord]) -> None:
        if not broken and file.path.name == "spool-0.db" and file.stock.webhooks == 2:
            broken.append(True)
            problem = sqlite3.DatabaseError("database disk image is malformed")
            problem.sqlite_errorname = "SQLITE_CORRUPT"
            raise problem
        inner(file, records)

    monkeypatch.setattr(SpoolFile, "append", append)

    async def script(spool: Spool) -> None:
        await put(spool, 1, 2)
        before = await spool.read(0)
        with pytest.raises(DestinationUnavailable):
            await put(spool, 3)
        assert spool.refusal is not None
        await spool.try_disk()
        assert spool.refusal is None
        await put(spool, 4)
        found = await spool.read(before[-1].id)
        assert [number_of(one.record) for one in found] == [1, 2, 4]

    within(tmp_path, script)


def test_a_crash_while_a_damaged_file_is_mended_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_file(tmp_path, 400)
    data = with_a_broken_leaf(path, 3)
    path.write_bytes(bytes(data))
    renamed: list[Path] = []
    inner = Path.rename

    def crash(source: Path, target: Path) -> Path:
        if len(renamed) == crash_at:
            raise RuntimeError("killed here")
        renamed.append(source)
        return inner(source, target)

    for crash_at in (0, 1):
        renamed.clear()
        copy = tmp_path / f"crash-{crash_at}"
        copy.mkdir()
        (copy / path.name).write_bytes(bytes(data))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", crash)
            with pytest.raises(RuntimeError, match="killed here"):
                spool_damage.replace_damaged(copy / path.name, 0)
        assert len(set(left_in(copy))) > 380

"""The spool on real files: killed, torn, flipped, full, shared, left behind."""

import asyncio
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.collect import spool as spool_module
from pipeline.collect import spool_damage
from pipeline.collect.received import WebhookRecord
from pipeline.collect.spool import FULL_UNTIL, Spool, SpoolLimits
from pipeline.collect.spool_file import SpooledWebhook, SpoolFile, stored_bytes
from pipeline.errors import DestinationUnavailable, UserError

sys.path.insert(0, str(Path(__file__).parent))

from spooling import LIMITS, number_of, webhook

Start = Callable[..., subprocess.Popen[str]]
PROGRAM = Path(__file__).with_name("spooling.py")
MARKER = b"a secret that nobody may find afterwards"


def within(directory: Path, script: Callable[[Spool], Awaitable[Any]], limits: SpoolLimits = LIMITS) -> Any:
    """Opens a spool there, does what the script says and closes it; the script's result."""

    async def run() -> Any:
        spool = Spool(directory, limits)
        await spool.open()
        try:
            return await script(spool)
        finally:
            await spool.close()

    return asyncio.run(run())


async def put(spool: Spool, *numbers: int, body_bytes: int = 200) -> None:
    await asyncio.gather(*(spool.append(webhook(number, body_bytes)) for number in numbers))


async def drained(spool: Spool) -> list[SpooledWebhook]:
    """Everything in it, taken out."""
    found: list[SpooledWebhook] = []
    while webhooks := await spool.read(found[-1].id if found else 0):
        found += webhooks
        await spool.forget(webhooks[-1].id)
    return found


def left_in(directory: Path) -> list[int]:
    """The numbers of the webhooks that the next collector finds, each in the form in which it was stored."""
    found = [one.record for one in within(directory, drained)]
    assert found == [webhook(number_of(record), len(record.value)) for record in found]
    return [number_of(record) for record in found]


def bytes_in(directory: Path) -> bytes:
    """Of all its files."""
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def new_file(directory: Path, count: int, body_bytes: int = 200) -> Path:
    """A spool's file as its collector left it when it stopped."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "spool-0.db"
    file = SpoolFile.open(path)
    file.append([webhook(number, body_bytes) for number in range(1, count + 1)])
    file.close()
    return path


@pytest.fixture
def spooling(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(directory: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [*before, sys.executable, str(PROGRAM), str(directory), *arguments]
        # A session of its own: what traces it goes with it.
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        killed(process)


def heard(process: subprocess.Popen[str]) -> str:
    """The next line that it says."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def killed(process: subprocess.Popen[str]) -> list[str]:
    """The lines that it had still said."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
    assert process.stdout is not None
    if process.stdout.closed:
        return []
    with process.stdout:
        return process.stdout.read().splitlines()


def acknowledged(line: str) -> int:
    assert line.startswith("acknowledged "), line
    return int(line.split()[1])


class SpoolMachine(RuleBasedStateMachine):
    """A spool beside a list: whatever happens to the one, it holds what the other does."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.base = Path(tempfile.mkdtemp(prefix="callfold-spool-"))
        self.directory = self.base / "spool"
        self.held: list[int] = []
        self.number = 0
        self.spool = self._opened()

    def _opened(self) -> Spool:
        spool = Spool(self.directory, LIMITS)
        self.loop.run(spool.open())
        return spool

    def _everything(self) -> list[SpooledWebhook]:
        async def read() -> list[SpooledWebhook]:
            found: list[SpooledWebhook] = []
            while webhooks := await self.spool.read(found[-1].id if found else 0):
                found += webhooks
            return found

        return self.loop.run(read())

    @rule(sizes=st.lists(st.sampled_from([1, 300, 5000, 300_000]), min_size=1, max_size=6))
    def append(self, sizes: list[int]) -> None:
        numbers = range(self.number + 1, self.number + 1 + len(sizes))
        self.number += len(sizes)

        async def append_all() -> None:
            await asyncio.gather(
                *(self.spool.append(webhook(n, s)) for n, s in zip(numbers, sizes, strict=True))
            )

        self.loop.run(append_all())
        self.held += numbers

    @precondition(lambda self: self.held)
    @rule(share=st.floats(0, 1))
    def forget(self, share: float) -> None:
        webhooks = self._everything()
        count = round(share * len(webhooks))
        if count:
            self.loop.run(self.spool.forget(webhooks[count - 1].id))
            self.held = self.held[count:]

    @precondition(lambda self: self.held)
    @rule(share=st.floats(0, 1))
    def set_aside(self, share: float) -> None:
        webhooks = self._everything()
        chosen = int(share * (len(webhooks) - 1))
        before = self.spool.stock.set_aside
        self.loop.run(self.spool.set_aside(webhooks[chosen].id, "as the test wants it"))
        assert self.spool.stock.set_aside == before + 1
        del self.held[chosen]

    @rule()
    def reopen(self) -> None:
        self.loop.run(self.spool.close())
        self.spool = self._opened()

    @rule()
    def crash(self) -> None:
        """What a killed process leaves is what is in the files at that moment."""
        shutil.copytree(self.directory, self.base / "crashed")
        self.loop.run(self.spool.close())
        shutil.rmtree(self.directory)
        (self.base / "crashed").rename(self.directory)
        self.spool = self._opened()

    @invariant()
    def holds_what_it_was_given(self) -> None:
        webhooks = self._everything()
        assert [number_of(one.record) for one in webhooks] == self.held
        assert all(one.record == webhook(number_of(one.record), len(one.record.value)) for one in webhooks)
        ids = [one.id for one in webhooks]
        assert ids == sorted(set(ids))
        stock = self.spool.stock
        assert stock.webhooks == len(webhooks)
        assert stock.size_bytes == sum(stored_bytes(one.record) for one in webhooks)
        assert stock.oldest_us == (webhooks[0].record.received_us if webhooks else None)
        assert self.spool.is_empty == (not webhooks)

    def teardown(self) -> None:
        self.loop.run(self.spool.close())
        self.loop.close()
        shutil.rmtree(self.base)


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_numbers_rise_and_none_is_given_twice(tmp_path: Path) -> None:
    async def script(spool: Spool) -> None:
        seen: list[int] = []
        for round_number in range(4):
            await put(spool, 3 * round_number, 3 * round_number + 1, 3 * round_number + 2)
            seen += [one.id for one in await drained(spool)]
        assert seen == sorted(set(seen))
        assert len(seen) == 12

    within(tmp_path, script)


def test_a_killed_process_has_lost_nothing_that_it_acknowledged(tmp_path: Path, spooling: Start) -> None:
    dice, safe = random.Random(5), set()
    for first in (1, 1_000_001, 2_000_001, 3_000_001):
        process = spooling(tmp_path, str(first), str(dice.choice([1, 3, 40])))
        told = [heard(process) for _ in range(dice.randint(1, 60))]
        told += killed(process)
        safe |= set(range(first, acknowledged(told[-1]) + 1))
    found = left_in(tmp_path)
    assert found == sorted(set(found))
    assert safe <= set(found)
    # What nobody was told of is at most the group that was on its way at each end.
    assert len(found) - len(safe) <= 4 * 40


def test_an_append_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, spooling: Start) -> None:
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write,pwrite64", "-o", str(trace))
    if (
        shutil.which("strace") is None
        or subprocess.run(["strace", "-o", str(trace), "true"], check=False).returncode
    ):
        pytest.skip("needs strace, and to be let trace")
    process = spooling(tmp_path / "spool", "1", "3", before=strace)
    assert [acknowledged(heard(process)) for _ in range(2)] == [3, 6]
    killed(process)
    lines = trace.read_text("utf-8", "replace").splitlines()
    first, second = (next(n for n, line in enumerate(lines) if f'"acknowledged {k}' in line) for k in (3, 6))
    between = [line for line in lines[first:second] if "spool-0.db-wal" in line]
    assert "sync(" in between[-1], between
    # One for the three of them, not one for each.
    assert sum("sync(" in line for line in between) == 1


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


def with_a_broken_leaf(path: Path, number: int) -> bytes:
    """The bytes of a spool's file, the head of one of the pages that hold webhooks overwritten."""
    data = bytearray(path.read_bytes())
    leaves = [at for at in range(4096, len(data), 4096) if data[at] == 13 and b"|" in data[at : at + 4096]]
    data[leaves[number] : leaves[number] + 100] = b"\xff" * 100
    return bytes(data)


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


def test_it_never_holds_more_than_its_bound_however_many_come_at_once(tmp_path: Path) -> None:
    bound = 40 * stored_bytes(webhook(10, 2000))

    async def script(spool: Spool) -> None:
        answers = await asyncio.gather(
            *(spool.append(webhook(10 + n, 2000)) for n in range(80)), return_exceptions=True
        )
        assert [isinstance(one, DestinationUnavailable) for one in answers] == [n >= 40 for n in range(80)]
        assert 0.97 * bound < spool.stock.size_bytes <= bound
        assert spool.refusal == "the spool is full"
        with pytest.raises(DestinationUnavailable, match="full"):
            await put(spool, 1, body_bytes=10)
        webhooks = await spool.read(0)
        await spool.forget(webhooks[1].id)
        assert spool.refusal == "the spool is full", "it would say yes and no in turn"
        await spool.forget(webhooks[5].id)
        assert spool.stock.size_bytes < FULL_UNTIL * bound
        assert spool.refusal is None
        await put(spool, 500)

    within(tmp_path, script, SpoolLimits(bound, 1e9))


def test_one_that_is_larger_than_the_room_is_refused_and_smaller_ones_are_not(tmp_path: Path) -> None:
    async def script(spool: Spool) -> None:
        await put(spool, 1, body_bytes=50_000)
        for size in (60_000, 500_000):
            with pytest.raises(DestinationUnavailable, match="full"):
                await put(spool, 2, body_bytes=size)
        assert spool.stock.webhooks == 1
        await put(spool, 3, body_bytes=10_000)
        assert spool.stock.webhooks == 2

    within(tmp_path, script, SpoolLimits(100_000, 1e9))


def test_while_the_oldest_is_too_old_it_takes_no_more_and_gives_nothing_up(tmp_path: Path) -> None:
    def aged(seconds: float) -> WebhookRecord:
        return WebhookRecord("recho", int((time.time() - seconds) * 1e6), None, b"{}", [])

    async def script(spool: Spool) -> None:
        await spool.append(aged(50))
        assert spool.refusal is None
        await spool.append(aged(70))
        (first, second) = await spool.read(0)
        await spool.forget(first.id)
        assert spool.refusal == "the spool has held webhooks for too long"
        with pytest.raises(DestinationUnavailable, match="too long"):
            await put(spool, 5)
        assert await spool.read(0) == [second]
        await spool.forget(second.id)
        await put(spool, 5)

    within(tmp_path, script, SpoolLimits(10**9, 60))


def test_a_disk_without_room_is_a_refusal_and_later_it_works_again(tmp_path: Path, spooling: Start) -> None:
    process = spooling(tmp_path, "1", "50", "--limited")
    assert process.stdout is not None
    told = process.stdout.read().splitlines()
    safe = [acknowledged(line) for line in told if line.startswith("acknowledged")]
    assert told[-4:-1] == [
        "refused: the disk of the spool does not take data",
        "refusal: the disk of the spool does not take data",
        "refusal: None",
    ]
    assert left_in(tmp_path) == [*range(1, safe[-2] + 1), safe[-1]]


def test_what_could_not_be_removed_or_set_aside_is_still_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SpoolFile.open(tmp_path / "spool-0.db")
    file.append([webhook(1), webhook(2)])
    before = file.stock
    file._connection.execute("pragma query_only = on")
    for attempt in (
        lambda: file.forget(1),
        lambda: file.set_aside(1, "why"),
        lambda: file.append([webhook(3)]),
    ):
        with pytest.raises(sqlite3.Error):
            attempt()
        assert file.stock == before
        assert [one.id for one in file.read(0, 10**6)] == [1, 2]
    file._connection.execute("pragma query_only = off")
    file.append([webhook(4)])
    assert [(one.id, number_of(one.record)) for one in file.read(0, 10**6)] == [(1, 1), (2, 2), (3, 4)]
    file.close()


def test_nothing_of_a_drained_webhook_stays_in_any_file(tmp_path: Path) -> None:
    async def script(spool: Spool) -> None:
        for number in range(30):
            body = MARKER * (1 + 40 * (number % 4))
            await spool.append(WebhookRecord("recho", 10**15 + number, MARKER, body, [("query", MARKER)]))
        assert bytes_in(tmp_path).count(MARKER) > 30
        large = len(bytes_in(tmp_path))
        await drained(spool)
        assert MARKER not in bytes_in(tmp_path)
        assert MARKER[:12] not in bytes_in(tmp_path)
        assert len(bytes_in(tmp_path)) < min(large, 40_000)

    within(tmp_path, script)
    assert MARKER not in bytes_in(tmp_path)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    async def script(spool: Spool) -> None:
        await put(spool, 1)
        modes = [
            path.stat().st_mode & 0o777
            for path in ((tmp_path / "spool"), *(tmp_path / "spool").glob("*.db*"))
        ]
        assert modes[0] == 0o700
        assert set(modes[1:]) == {0o600}

    within(tmp_path / "spool", script)


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


def test_a_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written .*spool\.dir .CALLFOLD_SPOOL_DIR") as raised:
        within(tmp_path / "file", drained)
    assert "\n" not in str(raised.value)


def test_a_trouble_that_nobody_thought_of_is_a_refusal_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: object, **__: object) -> None:
        raise RuntimeError("odd")

    async def script(spool: Spool) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SpoolFile, "append", odd)
            with pytest.raises(DestinationUnavailable, match="does not take data"):
                await put(spool, 1, body_bytes=900)
        await spool.try_disk()
        # Nothing of the bound is lost to it.
        await put(spool, 2, body_bytes=900)
        await put(spool, 3, body_bytes=900)

    within(tmp_path, script, SpoolLimits(2 * stored_bytes(webhook(1, 900)), 1e9))


def test_a_disk_that_hangs_keeps_nobody_waiting_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "APPEND_SECONDS", 0.2)
    inner = SpoolFile.append

    def slow(file: SpoolFile, records: list[WebhookRecord]) -> None:
        time.sleep(0.6)
        inner(file, records)

    monkeypatch.setattr(SpoolFile, "append", slow)

    async def script(spool: Spool) -> None:
        with pytest.raises(DestinationUnavailable, match="does not answer"):
            await put(spool, 1)
        assert not spool.is_empty, "it is on its way"

    within(tmp_path, script)
    assert left_in(tmp_path) == [1]

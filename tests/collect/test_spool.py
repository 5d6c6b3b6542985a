"""The spool on real files: killed, full, hung; what it keeps and what it gives back."""

import asyncio
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from spooling import LIMITS, number_of, webhook
from spools import (
    MARKER,
    Start,
    acknowledged,
    bytes_in,
    drained,
    heard,
    killed,
    left_in,
    put,
    within,
)

from pipeline.collect import spool as spool_module
from pipeline.collect.received import WebhookRecord
from pipeline.collect.spool import FULL_UNTIL, Spool, SpoolLimits
from pipeline.collect.spool_file import SpooledWebhook, SpoolFile, stored_bytes
from pipeline.errors import DestinationUnavailable, UserError


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

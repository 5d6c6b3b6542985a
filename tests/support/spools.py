"""What the tests of the spool share: its files, and the processes that fill them."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from spooling import LIMITS, number_of, webhook

from pipeline.collect.spool import Spool, SpoolLimits
from pipeline.collect.spool_file import SpooledWebhook, SpoolFile

Start = Callable[..., subprocess.Popen[str]]
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


def with_a_broken_leaf(path: Path, number: int) -> bytes:
    """The bytes of a spool's file, the head of one of the pages that hold webhooks overwritten."""
    data = bytearray(path.read_bytes())
    leaves = [at for at in range(4096, len(data), 4096) if data[at] == 13 and b"|" in data[at : at + 4096]]
    data[leaves[number] : leaves[number] + 100] = b"\xff" * 100
    return bytes(data)


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

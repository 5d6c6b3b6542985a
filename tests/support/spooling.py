"""A process with a spool, to be killed: it appends groups of webhooks and says after each how many are safe.

spooling.py DIRECTORY FIRST GROUP              append for ever, GROUP at a time, the first one numbered FIRST
spooling.py DIRECTORY FIRST GROUP --limited    with room for files of 300 kB only, until that has been felt
"""

import asyncio
import resource
import sys
from pathlib import Path

from pipeline.collect.received import WebhookRecord
from pipeline.collect.spool import Spool, SpoolLimits
from pipeline.errors import DestinationUnavailable

LIMITS = SpoolLimits(2**40, 10.0**9)
FILE_BYTES = 300_000


def webhook(number: int, body_bytes: int = 200) -> WebhookRecord:
    """The same for the same number, and unlike every other."""
    body = (b"%d|" % number * (body_bytes // 2))[:body_bytes]
    return WebhookRecord("recho", 10**15 + number, b"recho:%d" % (number % 7), body, [("provider", b"recho")])


def number_of(record: WebhookRecord) -> int:
    """What `webhook` was given."""
    return record.received_us - 10**15


def tell(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def append_for_ever(directory: Path, number: int, group: int) -> None:
    spool = Spool(directory, LIMITS)
    await spool.open()
    while True:
        await asyncio.gather(*(spool.append(webhook(number + n)) for n in range(group)))
        number += group
        tell(f"acknowledged {number - 1}")


async def feel_the_limit(directory: Path, number: int, group: int) -> None:
    spool = Spool(directory, LIMITS)
    await spool.open()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, limits[1]))
    try:
        while True:
            await asyncio.gather(*(spool.append(webhook(number + n)) for n in range(group)))
            number += group
            tell(f"acknowledged {number - 1}")
    except DestinationUnavailable as problem:
        tell(f"refused: {problem}")
    tell(f"refusal: {spool.refusal}")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await spool.try_disk()
    tell(f"refusal: {spool.refusal}")
    await spool.append(webhook(number + group))
    tell(f"acknowledged {number + group}")
    await spool.close()


if __name__ == "__main__":
    run = feel_the_limit if "--limited" in sys.argv else append_for_ever
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

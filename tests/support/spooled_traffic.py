"""Webhooks delivered as providers do, each attempt under a name of its own, so that each can be found again."""

import asyncio
import itertools
import time
import zlib
from collections import Counter
from collections.abc import Iterable

import aiohttp
import msgspec

from pipeline.providers import providers

POSTERS = 6
RETRY_SECONDS = 0.3
_numbers = itertools.count()


class Deliveries:
    """Webhooks posted until each is answered 202.

    An attempt that was answered otherwise, or not at all, may have been stored all the same: each carries a name of
    its own in its query, which the collector keeps, so that it can be told afterwards which of them there are.
    """

    def __init__(
        self, url: str, accepted: dict[str, bytes] | None = None, attempts: dict[str, bytes] | None = None
    ) -> None:
        self._url = url
        self.attempts = {} if attempts is None else attempts
        """Each attempt as an archive line, by its name."""
        self.accepted = {} if accepted is None else accepted
        """Those that were answered 202."""
        self.answers: Counter[int] = Counter()
        self.slowest_seconds = 0.0

    async def post(self, lines: Iterable[bytes], pause_seconds: float = 0.0) -> None:
        """All of them, several calls at a time, each call's (on the bus: each agent's) in their order."""
        shares: list[list[bytes]] = [[] for _ in range(POSTERS)]
        for line in lines:
            shares[zlib.crc32(stream_of(line)) % POSTERS].append(line)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            await asyncio.gather(*(self._post_in_order(share, session, pause_seconds) for share in shares))

    async def _post_in_order(
        self, lines: list[bytes], session: aiohttp.ClientSession, pause_seconds: float
    ) -> None:
        for line in lines:
            while not await self._attempt(line, session):  # noqa: ASYNC110  it is tried again, not waited for
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(pause_seconds)

    async def _attempt(self, line: bytes, session: aiohttp.ClientSession) -> bool:
        name = f"delivery-{next(_numbers)}"
        told = msgspec.json.decode(line)
        told["query"] = (told.get("query") or {}) | {"delivery": name}
        self.attempts[name] = msgspec.json.encode(told)
        began = time.monotonic()
        try:
            async with session.post(
                f"{self._url}/webhooks/{told['provider']}",
                data=msgspec.json.encode(told["body"]),
                headers={"content-type": "application/json"} | (told.get("headers") or {}),
                params=told["query"],
            ) as answer:
                await answer.read()
                self.answers[answer.status] += 1
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
                if answer.status == 202:
                    self.accepted[name] = self.attempts[name]
                assert answer.status in {202, 503}, await answer.text()
                return answer.status == 202
        except (aiohttp.ClientError, TimeoutError):
            return False


def stream_of(line: bytes) -> bytes:
    """What the webhooks to be kept in order have in common."""
    told = msgspec.json.decode(line)
    key = providers()[told["provider"]].stream_key(msgspec.json.encode(told["body"]), told.get("query") or {})
    return (key or told["provider"]).encode()

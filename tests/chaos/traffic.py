"""Traffic as providers make it: every delivery tried until it is accepted, each attempt told from every other.

An attempt carries its name in the query (`?chaos=123.1`: webhook 123, first attempt), and the collector keeps
the query, so that each of them can be found again on Kafka and in the lake.
"""

import asyncio
import random
import time
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import aiohttp
import msgspec

from pipeline.providers import providers
from pipeline.simulate import generate

ACCEPTED = 202
SENDERS = 24
ATTEMPT_SECONDS = 6.0
"""How long a provider waits for an answer; what it gave up may have been stored all the same."""
PAUSE_SECONDS = 0.3
GIVE_UP_SECONDS = 90.0
GARBAGE = (b"not json {", b"[]", b'{"x":1}', b'"text"', b"\xff\xfe{}", b"")
"""Bodies that no provider's module can make a call of."""
OTHER = b'{"event":"message.received","data":{"id":"5b1f","type":"sms"}}'
"""A webhook of Whippy that is of no call, and no mistake."""


class Sending(NamedTuple):
    """One webhook to be delivered."""

    provider: str
    body: bytes
    headers: dict[str, str]
    query: dict[str, str]
    told: dict[str, Any]
    """The archive object as the oracle takes it, without its time of receipt."""
    is_garbage: bool = False


def traffic_of(calls: int, seed: int) -> list[Sending]:
    """Simulated webhooks of so many calls, with repeats, overtakings, late ones, and a few that are garbage."""
    dice = random.Random(seed)
    yesterday = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)
    lines = generate(calls, seed, yesterday, 1.0, duplicates=0.05, shuffle=0.1, late=0.08)
    sendings = [_sending(msgspec.json.decode(line)) for line in lines]
    for body in (*GARBAGE, *GARBAGE, OTHER, OTHER):
        provider = "whippy" if body == OTHER else dice.choice(sorted(providers()))
        told = {"provider": provider, "headers": {}, "query": {}, "body": body.decode("utf-8", "replace")}
        odd = Sending(provider, body, {}, {}, told, is_garbage=body != OTHER)
        sendings.insert(dice.randrange(len(sendings)), odd)
    return sendings


def _sending(told: dict[str, Any]) -> Sending:
    headers, query = told.get("headers") or {}, told.get("query") or {}
    return Sending(told["provider"], msgspec.json.encode(told["body"]), headers, query, told)


class Traffic:
    """Posts webhooks for about `seconds`, those of one call (or agent) in their order, others beside it."""

    def __init__(self, sendings: list[Sending], url: str, seconds: float) -> None:
        self.sendings = sendings
        self.answers: dict[str, int | None] = {}
        """The answer to each attempt by its name; None where none came."""
        self.posted = 0
        self._url = url
        self._seconds = seconds
        self._began = 0.0

    def accepted(self) -> set[str]:
        """Attempts whose sender was told that the webhook is safe."""
        return {name for name, answer in self.answers.items() if answer == ACCEPTED}

    def run(self) -> None:
        """Posts everything; raises if a webhook is not accepted in the end."""
        self._began = time.monotonic()
        try:
            asyncio.run(self._run())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _run(self) -> None:
        lanes: list[list[int]] = [[] for _ in range(SENDERS)]
        for number, sending in enumerate(self.sendings):
            lanes[zlib.crc32(_stream(sending, number)) % SENDERS].append(number)
        timeout = aiohttp.ClientTimeout(total=ATTEMPT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(self._post_all(lane, session))

    async def _post_all(self, numbers: Iterable[int], session: aiohttp.ClientSession) -> None:
        for number in numbers:
            due = self._began + self._seconds * number / len(self.sendings)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._deliver(number, session)
            self.posted += 1

    async def _deliver(self, number: int, session: aiohttp.ClientSession) -> None:
        """Attempts until one is accepted."""
        attempt, deadline = 0, time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            attempt += 1
            name = f"{number}.{attempt}"
            self.answers[name] = None
            self.answers[name] = await self._attempt(name, self.sendings[number], session)
            if self.answers[name] == ACCEPTED:
                return
            await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError(f"webhook {number} is not accepted: {self.answers[f'{number}.{attempt}']}")

    async def _attempt(self, name: str, sending: Sending, session: aiohttp.ClientSession) -> int | None:
        url = f"{self._url}/webhooks/{sending.provider}"
        headers = {"content-type": "application/json"} | sending.headers
        query = sending.query | {"chaos": name}
        try:
            async with session.post(url, data=sending.body, headers=headers, params=query) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


def _stream(sending: Sending, number: int) -> bytes:
    """What the webhooks to be kept in order have in common."""
    key = providers()[sending.provider].stream_key(sending.body, sending.query)
    return (key or f"alone-{number}").encode()

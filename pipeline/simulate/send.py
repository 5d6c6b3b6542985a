"""Posts the webhooks of an archive to a collector, as fast as it takes them and in order within each call."""

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import msgspec

from pipeline.errors import DestinationUnavailable

_CONNECT_TRIES: Final = 8
_BUSY_TRIES: Final = 120
_QUEUED: Final = 64
"""Webhooks that may wait for each sender: enough to keep it busy, few enough to hold in memory."""


class Sent(msgspec.Struct, frozen=True):
    """What became of the webhooks: how many were posted, and how often each last answer was given."""

    posted: int
    by_answer: dict[int, int]
    seconds: float

    @property
    def refused(self) -> int:
        """How many were not taken: every answer but 202."""
        return self.posted - self.by_answer.get(202, 0)


class _Line(msgspec.Struct):
    provider: str
    body: msgspec.Raw
    headers: dict[str, str] = {}
    query: dict[str, str] = {}


_read_line: Final = msgspec.json.Decoder(_Line).decode


async def send(
    lines: Iterable[bytes],
    url: str,
    concurrency: int = 16,
    progress: Callable[[int], None] = lambda posted: None,
    headers: dict[str, dict[str, str]] | None = None,
) -> Sent:
    """Posts each archive line's body to `{url}/webhooks/{provider}`, with the line's headers and query.

    Lines of one call (on the bus: of one agent) are posted in their order, others concurrently. A 503 is tried again
    when its `Retry-After` says so. `headers` are added by provider, for credentials. `progress` gets the number of
    webhooks answered since it was last called. Raises `DestinationUnavailable` when the collector stays unreachable
    or busy; any answer but 202 is only counted.
    """
    begun = time.perf_counter()
    answers: Counter[int] = Counter()
    post = _Poster(url.rstrip("/"), answers, progress, headers or {})
    try:
        await _post_in_order(lines, max(1, concurrency), post)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return Sent(answers.total(), dict(sorted(answers.items())), time.perf_counter() - begun)


async def _post_in_order(lines: Iterable[bytes], concurrency: int, post: "_Poster") -> None:
    """Each stream has one sender, each sender many streams."""
    queues: list[asyncio.Queue[_Line | None]] = [asyncio.Queue(_QUEUED) for _ in range(concurrency)]
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        for queue in queues:
            group.create_task(post.all_of(queue, session))
        for line in lines:
            webhook = _read_line(line)
            await queues[zlib.crc32(_stream(webhook)) % concurrency].put(webhook)
        for queue in queues:
            await queue.put(None)


class _Poster:
    """Posts one webhook after the other, and counts the answers."""

    def __init__(
        self,
        url: str,
        answers: Counter[int],
        progress: Callable[[int], None],
        headers: dict[str, dict[str, str]],
    ) -> None:
        self.url, self.answers, self.progress, self.headers = url, answers, progress, headers

    async def all_of(self, queue: "asyncio.Queue[_Line | None]", session: aiohttp.ClientSession) -> None:
        while (webhook := await queue.get()) is not None:
            self.answers[await self.one(webhook, session)] += 1
            self.progress(1)

    async def one(self, webhook: _Line, session: aiohttp.ClientSession) -> int:
        """The collector's last answer to one webhook."""
        body = bytes(webhook.body)
        if body.startswith(b'"'):
            body = msgspec.json.decode(body, type=str).encode()
        headers = {"content-type": "application/json"} | webhook.headers
        headers |= self.headers.get(webhook.provider, {})
        url = f"{self.url}/webhooks/{webhook.provider}"
        unreached = busy = 0
        while True:
            try:
                async with session.post(url, data=body, headers=headers, params=webhook.query) as answer:
                    await answer.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                unreached += 1
                if unreached == _CONNECT_TRIES:
                    raise DestinationUnavailable(f"cannot post to {self.url}: {error}") from error
                await asyncio.sleep(min(2.0, 0.05 * 2**unreached))
                continue
            if answer.status != 503:
                return answer.status
            busy += 1
            if busy == _BUSY_TRIES:
                raise DestinationUnavailable(f"{self.url} answered 503 {busy} times: is Kafka up?")
            await asyncio.sleep(_retry_after(answer.headers.get("Retry-After")))


def _retry_after(value: str | None) -> float:
    """Seconds to wait, from a number of them or an HTTP date; a second if the header is not understood."""
    try:
        return min(60.0, max(0.0, float(value or 1)))
    except ValueError:
        pass
    try:
        return min(60.0, max(0.0, parsedate_to_datetime(str(value)).timestamp() - time.time()))
    except ValueError:
        return 1.0


class _Call(msgspec.Struct):
    id: str = ""


class _Message(msgspec.Struct):
    call: _Call = msgspec.field(default_factory=_Call)


class _Data(msgspec.Struct):
    call_id: str = msgspec.field(default="", name="callId")
    id: str = ""


class _RechoBody(msgspec.Struct):
    data: _Data = msgspec.field(default_factory=_Data)


class _Peek(msgspec.Struct):
    """Wherever the five providers put what their events are ordered by."""

    message: _Message = msgspec.field(default_factory=_Message)
    body: _RechoBody = msgspec.field(default_factory=_RechoBody)
    data: _Data = msgspec.field(default_factory=_Data)
    call_id: str = msgspec.field(default="", name="callId")
    agent_id: Any = ""


_peek: Final = msgspec.json.Decoder(_Peek).decode


def _stream(webhook: _Line) -> bytes:
    """What the webhooks to be kept in order have in common."""
    try:
        seen = _peek(webhook.body)
    except msgspec.DecodeError:
        return webhook.provider.encode()
    agent = webhook.query.get("agent_id") or seen.agent_id
    key = seen.message.call.id or seen.body.data.call_id or seen.call_id or agent or seen.data.id
    return f"{webhook.provider}:{key}".encode()

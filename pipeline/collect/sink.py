"""Stores webhooks on Kafka with acks=all, and knows whether it can at the moment."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from pipeline.collect.hold_back import RECORD_OVERHEAD_BYTES, HoldBack
from pipeline.errors import DestinationUnavailable

log = logging.getLogger(__name__)

#: how long a sender waits for Kafka's acknowledgement
STORE_SECONDS = 5.0
#: while Kafka fails, one request in this time is a trial; the others are refused at once
TRIAL_SECONDS = 1.0
PROBE_SECONDS = 2.0
HOLD_BACK_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class StoredWebhook:
    """One Kafka record to be: the provider's untouched bytes and what was seen around them."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """Bytes it takes on the broker, rather too many than too few."""
        around = sum(len(name) + len(value) + 10 for name, value in self.headers)
        return len(self.value) + len(self.key or b"") + around + RECORD_OVERHEAD_BYTES


class TooLargeError(Exception):
    """Kafka refuses a record of this size, today and tomorrow."""


class KeptBackError(DestinationUnavailable):
    """The worker has to read first."""


class WebhookSink:
    """Connects in the background and stays at it; `store` either stores or raises."""

    def __init__(
        self,
        servers: str,
        group: str,
        max_record_bytes: int,
        hold_back: HoldBack | None,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._servers = servers
        #: how Kafka lets us in; plainly, if nothing is said
        self._client_options = dict(client_options or {})
        self._group = group
        self._max_record_bytes = max_record_bytes
        self._hold_back = hold_back
        self._producer: AIOKafkaProducer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_failing = False
        self._last_trial = 0.0

    async def start(self) -> None:
        """Connect, or begin to try; a Kafka that is away now does not keep the collector from starting."""
        with suppress(KafkaError, OSError):
            await self._connect()
        self._tasks.append(asyncio.create_task(self._watch()))
        if self._hold_back is not None:
            self._tasks.append(asyncio.create_task(self._follow_commits(self._hold_back)))

    async def stop(self) -> None:
        """Send what is under way and disconnect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._producer is not None:
            await self._producer.stop()

    @property
    def is_ready(self) -> bool:
        """Whether the next webhook can probably be stored."""
        return self._producer is not None and not self._is_failing

    async def store(self, webhook: StoredWebhook) -> None:
        """Return once Kafka has acknowledged the webhook.

        Raises `DestinationUnavailable` (`KeptBackError` if the worker is behind) or `TooLargeError`.
        """
        producer = self._producer
        if producer is None or not self._may_try():
            raise DestinationUnavailable("Kafka cannot be reached")
        partition = None
        if self._hold_back is not None:
            partition = self._hold_back.place(webhook.topic, webhook.key, webhook.size)
            if partition is None:
                raise KeptBackError("the worker is behind and the embedded broker is full")
        offset = None
        try:
            offset = await self._send(producer, webhook, partition)
        finally:
            if self._hold_back is not None and partition is not None:
                if offset is None:
                    self._hold_back.failed(webhook.topic, partition, webhook.size)
                else:
                    self._hold_back.stored(webhook.topic, partition, offset, webhook.size)

    async def _send(self, producer: AIOKafkaProducer, webhook: StoredWebhook, partition: int | None) -> int:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                stored = await producer.send_and_wait(
                    webhook.topic, webhook.value, webhook.key, partition, headers=webhook.headers
                )
        except MessageSizeTooLargeError as problem:
            raise TooLargeError(str(problem)) from problem
        except (KafkaError, OSError, TimeoutError) as problem:
            self._note(is_failing=True)
            raise DestinationUnavailable(f"Kafka did not take a webhook: {problem!r}") from problem
        self._note(is_failing=False)
        return int(stored.offset)

    def _may_try(self) -> bool:
        now = time.monotonic()
        if self._is_failing and now - self._last_trial < TRIAL_SECONDS:
            return False
        self._last_trial = now
        return True

    def _note(self, *, is_failing: bool) -> None:
        if is_failing != self._is_failing:
            log.warning("Kafka at %s %s", self._servers, "is away" if is_failing else "is back")
        self._is_failing = is_failing

    async def _connect(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            acks="all",
            max_request_size=self._max_record_bytes,
            request_timeout_ms=10_000,
            **self._client_options,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def _watch(self) -> None:
        """Connect where that failed at the start, and look whether Kafka is there while no webhook tells."""
        while True:
            try:
                if self._producer is None:
                    await self._connect()
                async with asyncio.timeout(PROBE_SECONDS):
                    is_there = (
                        self._producer is not None and await self._producer.client.force_metadata_update()
                    )
            except (KafkaError, OSError, TimeoutError):
                is_there = False
            self._note(is_failing=not is_there)
            await asyncio.sleep(PROBE_SECONDS)

    async def _follow_commits(self, hold_back: HoldBack) -> None:
        while True:
            admin = AIOKafkaAdminClient(bootstrap_servers=self._servers, **self._client_options)
            try:
                await admin.start()
                while True:
                    await self._read_commits(admin, hold_back)
                    await asyncio.sleep(HOLD_BACK_POLL_SECONDS)
            except (KafkaError, OSError) as problem:
                log.debug("committed offsets cannot be read now: %r", problem)
            finally:
                await admin.close()
            await asyncio.sleep(HOLD_BACK_POLL_SECONDS)

    async def _read_commits(self, admin: AIOKafkaAdminClient, hold_back: HoldBack) -> None:
        partitions = [TopicPartition(*partition) for partition in hold_back.unread()]
        if partitions:
            offsets = await admin.list_consumer_group_offsets(self._group, partitions=partitions)
            hold_back.committed({(tp.topic, tp.partition): told.offset for tp, told in offsets.items()})

"""Produces webhooks to Kafka with acks=all, and knows whether Kafka is there at the moment."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from pipeline.collect.patience import Patience
from pipeline.collect.received import WebhookRecord, partition_of
from pipeline.errors import DestinationUnavailable
from pipeline.topic_names import webhooks_topic

log = logging.getLogger(__name__)

#: while Kafka fails, one request in this time is a trial; the others are refused at once
TRIAL_SECONDS = 1.0
PROBE_SECONDS = 2.0
#: how long a webhook waits for company: hardly noticed by its sender, and a produce request is not made for each
LINGER_MS = 1


class TooLargeError(Exception):
    """Kafka refuses a record of this size, today and tomorrow."""


class KafkaSink:
    """Connects in the background and stays at it; `send` either has Kafka's acknowledgement or raises."""

    def __init__(
        self,
        servers: str,
        prefix: str,
        max_record_bytes: int,
        wait_seconds: float,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._servers = servers
        self._prefix = prefix
        #: how Kafka lets us in; plainly, if nothing is said
        self._client_options = dict(client_options or {})
        self._max_record_bytes = max_record_bytes
        self._producer: AIOKafkaProducer | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_failing = False
        self._patience = Patience(wait_seconds)
        self._last_trial = 0.0

    async def start(self) -> None:
        """Connect, or begin to try; a Kafka that is away now does not keep the collector from starting."""
        with suppress(KafkaError, OSError):
            await self._connect()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Send what is under way and disconnect."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._producer is not None:
            await self._producer.stop()

    @property
    def is_ready(self) -> bool:
        """Whether Kafka will probably take the next webhook."""
        return self._producer is not None and not self._is_failing

    async def send(self, record: WebhookRecord, partition: int | None) -> int:
        """The record's offset, once every in-sync replica has it.

        Raises `DestinationUnavailable` when that did not come in time (Kafka may have it all the same), or
        `TooLargeError`.
        """
        producer = self._producer
        if producer is None or not self._may_try():
            raise DestinationUnavailable("Kafka cannot be reached")
        try:
            with self._patience.wait():
                stored = await (await self._begin(producer, record, partition))
        except MessageSizeTooLargeError as problem:
            raise TooLargeError(str(problem)) from problem
        except (KafkaError, OSError, TimeoutError) as problem:
            raise self._away(problem) from problem
        self._note(is_failing=False)
        return int(stored.offset)

    async def send_all(
        self, placed: Sequence[tuple[WebhookRecord, int | None]], wait_seconds: float
    ) -> list[int | TooLargeError]:
        """As `send`, of several in their order: the offset of each, or that it is too large.

        Raises `DestinationUnavailable` if one of them was not taken; others may have been.
        """
        producer = self._producer
        if producer is None or not self._may_try():
            raise DestinationUnavailable("Kafka cannot be reached")
        try:
            async with asyncio.timeout(wait_seconds):
                # One after the other: their order does not hang on who is woken first by a batch that was full.
                begun = [await self._begin(producer, record, partition) for record, partition in placed]
                found = await asyncio.gather(*begun, return_exceptions=True)
            offsets = [_offset_of(stored) for stored in found]
        except (KafkaError, OSError, TimeoutError) as problem:
            raise self._away(problem) from problem
        self._note(is_failing=False)
        return offsets

    def _away(self, problem: Exception) -> DestinationUnavailable:
        self._note(is_failing=True)
        return DestinationUnavailable(f"Kafka did not take a webhook: {problem!r}")

    async def _begin(
        self, producer: AIOKafkaProducer, record: WebhookRecord, partition: int | None
    ) -> "asyncio.Future[Any]":
        """Once it has its place behind those before it; what becomes of it is the result's to tell."""
        topic = webhooks_topic(self._prefix, record.provider)
        try:
            begun: asyncio.Future[Any] = await producer.send(
                topic, record.value, record.key, partition, headers=record.headers
            )
        except MessageSizeTooLargeError as problem:
            begun = asyncio.get_running_loop().create_future()
            begun.set_exception(problem)
        return begun

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
            linger_ms=LINGER_MS,
            partitioner=partition_of,
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


def _offset_of(stored: Any) -> int | TooLargeError:
    """Of what Kafka answered; raises what else went wrong."""
    if isinstance(stored, MessageSizeTooLargeError):
        return TooLargeError(str(stored))
    if isinstance(stored, BaseException):
        raise stored
    return int(stored.offset)

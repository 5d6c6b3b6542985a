"""Kafka and the spool together: who has a webhook when Kafka is away, late, slow, or does not want it."""

import asyncio
import itertools
import sqlite3
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from pipeline.collect.collector import Collector
from pipeline.collect.hold_back import PARTITION_LIMIT_BYTES, HoldBack
from pipeline.collect.spool_file import SpoolFile
from pipeline.errors import DestinationUnavailable
from pipeline.settings import load_settings
from pipeline.stream.embedded import EmbeddedBroker
from pipeline.stream.topics import bootstrap_servers

PROVIDERS = ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")
OPEN = {f"CALLFOLD_{name.upper()}_AUTH": "none" for name in PROVIDERS}
NOWHERE = "kafka://127.0.0.1:1"
WAIT_SECONDS = 40.0
Script = Callable[["Scene"], Awaitable[None]]


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as started:
        yield started


class Scene:
    """A collector for a Kafka that is not there, or that comes and goes as the test wants it."""

    def __init__(
        self, folder: Path, url: str = NOWHERE, *, is_embedded: bool = False, **options: object
    ) -> None:
        given = {"http.port": 0, "spool.dir": str(folder / "spool")} | options
        settings = load_settings(given, OPEN, None, PROVIDERS)
        self.collector = Collector(
            settings, url, lambda _, body, __: body.partition(b"|")[0] or None, is_embedded=is_embedded
        )
        self.store = self.collector.store
        self.sink = self.store._sink
        self.session = ClientSession()

    @property
    def spool(self) -> Any:
        return self.store.spool

    async def post(self, number: int, body_bytes: int = 40, provider: str = "recho") -> int:
        """One of three keys, by its number."""
        body = (b"key-%d|%d|" % (number % 3, number)).ljust(body_bytes, b"x")
        url = f"{self.collector.url}/webhooks/{provider}"
        async with self.session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
            self.retry_after = answer.headers.get("Retry-After")
            return answer.status

    async def ready(self) -> int:
        async with self.session.get(f"{self.collector.url}/health/ready") as answer:
            return answer.status

    async def metric(self, name: str) -> float:
        async with self.session.get(f"{self.collector.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    def comes(self, broker: EmbeddedBroker) -> None:
        """From now on Kafka is there."""
        self.sink._servers = bootstrap_servers(broker.url)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110  what it waits for happens in other tasks of the collector
                await asyncio.sleep(0.02)

    async def emptied(self) -> None:
        await self.until(lambda: self.spool.is_empty)


async def on_topics(broker: EmbeddedBroker, count: int) -> dict[tuple[str, int], list[tuple[int, Any]]]:
    """The webhooks of each topic's partition in their order: number, and the whole record."""
    topics = [f"callfold.webhooks.{name}" for name in PROVIDERS]
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=bootstrap_servers(broker.url), auto_offset_reset="earliest"
    )
    found: dict[tuple[str, int], list[tuple[int, Any]]] = defaultdict(list)
    await consumer.start()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while sum(map(len, found.values())) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        number = int(record.value.split(b"|")[1])
                        found[record.topic, record.partition].append((number, record))
        # Whatever is there too often would come now.
        for records in (await consumer.getmany(timeout_ms=700)).values():
            for record in records:
                found[record.topic, record.partition].append((int(record.value.split(b"|")[1]), record))
    finally:
        await consumer.stop()
    return found


def play(scene_of: Callable[[], Scene], script: Script) -> None:
    async def run() -> None:
        scene = scene_of()
        try:
            await scene.collector.start()
            await script(scene)
        finally:
            await scene.session.close()
            hurry = asyncio.Event()
            hurry.set()
            await scene.collector.stop(hurry)

    asyncio.run(run())


def test_while_kafka_is_away_webhooks_wait_and_then_go_on_in_their_order(
    tmp_path: Path, broker: EmbeddedBroker
) -> None:
    async def script(scene: Scene) -> None:
        assert await scene.ready() == 200
        for number in range(120):
            # Large and small ones in turn: many do not find room in the batch that was begun, and have to wait.
            size = 9_000 if number % 4 == 0 else 60
            assert await scene.post(number, size, PROVIDERS[number % 2]) == 202
        assert await scene.metric("callfold_spool_webhooks") == 120
        assert await scene.metric("callfold_spool_bytes") > 30 * 9_000
        assert await scene.metric("callfold_collector_ready") == 1
        scene.comes(broker)
        await scene.emptied()
        assert await scene.metric("callfold_spool_webhooks") == 0
        assert await scene.metric("callfold_spool_bytes") == 0
        assert await scene.metric("callfold_spool_oldest_age_seconds") == 0
        # A file goes a moment after the last webhook in it.
        await scene.until(
            lambda: sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) < 40_000
        )
        assert await scene.post(120, 60) == 202
        assert scene.spool.is_empty, "straight to Kafka again"
        found = await on_topics(broker, 121)
        numbers = [[number for number, _ in records] for records in found.values()]
        assert sorted(itertools.chain(*numbers)) == list(range(121))
        assert all(each == sorted(each) for each in numbers)

    play(lambda: Scene(tmp_path), script)


def test_what_a_stopped_collector_left_goes_on_with_the_next(tmp_path: Path, broker: EmbeddedBroker) -> None:
    async def fill(scene: Scene) -> None:
        for number in range(5):
            assert await scene.post(number) == 202

    async def drain(scene: Scene) -> None:
        assert await scene.post(5) == 202
        await scene.emptied()
        found = await on_topics(broker, 6)
        assert sorted(number for records in found.values() for number, _ in records) == list(range(6))
        assert all([n for n, _ in records] == sorted(n for n, _ in records) for records in found.values())

    play(lambda: Scene(tmp_path), fill)
    play(lambda: Scene(tmp_path, broker.url), drain)


def test_without_a_spool_and_without_kafka_it_says_when_to_try_again(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        assert await scene.post(1) == 503
        assert int(scene.retry_after or 0) > 0
        assert await scene.ready() == 503
        assert await scene.metric("callfold_collector_ready") == 0

    play(lambda: Scene(tmp_path, **{"spool.max_bytes": 0}), script)
    assert not (tmp_path / "spool").exists()


def test_a_full_spool_says_so_until_there_is_room_again(tmp_path: Path, broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        answers = [await scene.post(number, 3000) for number in range(20)]
        taken = answers.count(202)
        assert 10 < taken < 20
        assert answers == [202] * taken + [503] * (20 - taken)
        assert int(scene.retry_after or 0) > 0
        assert await scene.ready() == 503
        assert await scene.metric("callfold_spool_webhooks") == taken
        scene.comes(broker)
        await scene.emptied()
        assert await scene.ready() == 200
        assert await scene.post(100) == 202
        await on_topics(broker, taken + 1)

    play(lambda: Scene(tmp_path, **{"spool.max_bytes": 50_000}), script)


def test_where_the_spool_takes_nothing_and_kafka_does_kafka_gets_it(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def script(scene: Scene) -> None:
        assert await scene.post(1) == 202
        with monkeypatch.context() as patch:
            patch.setattr(SpoolFile, "append", full)
            patch.setattr(SpoolFile, "forget", full)
            patch.setattr(SpoolFile, "touch", full)
            assert await scene.post(2) == 503
            assert await scene.ready() == 503
            scene.comes(broker)
            await scene.until(lambda: scene.sink.is_ready)
            assert await scene.post(3) == 202
            assert await scene.ready() == 200
            assert not scene.spool.is_empty, "it cannot be removed now"
        await scene.emptied()
        # The disk is tried again from time to time, and not only when something is to be put there.
        await scene.until(lambda: scene.spool.refusal is None)
        found = await on_topics(broker, 2)
        assert {number for records in found.values() for number, _ in records} == {1, 3}

    play(lambda: Scene(tmp_path), script)


def test_one_that_kafka_never_takes_is_set_aside_and_the_rest_goes_on(
    tmp_path: Path, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(scene: Scene) -> None:
        for number in range(6):
            assert await scene.post(number, 200_000 if number == 2 else 40) == 202
        # As if http.max_body_bytes had been lowered since.
        scene.sink._max_record_bytes = 100_000
        scene.comes(broker)
        await scene.emptied()
        assert await scene.metric("callfold_spool_set_aside_webhooks") == 1
        found = await on_topics(broker, 5)
        assert sorted(n for records in found.values() for n, _ in records) == [0, 1, 3, 4, 5]
        assert "set aside in it: Kafka refuses it as too large" in caplog.text

    play(lambda: Scene(tmp_path), script)


def test_one_that_timed_out_and_is_there_all_the_same_is_the_same_receipt_twice(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        inner = scene.sink.send

        async def late(record: Any, partition: int | None) -> int:
            await inner(record, partition)
            raise DestinationUnavailable("the answer did not come in time")

        monkeypatch.setattr(scene.sink, "send", late)
        assert await scene.post(7) == 202
        await scene.emptied()
        ((first, second),) = [[record for _, record in rs] for rs in (await on_topics(broker, 2)).values()]
        assert (first.value, first.key, first.headers) == (second.value, second.key, second.headers)
        assert dict(first.headers)["received-at"]

    play(lambda: Scene(tmp_path, broker.url), script)


def test_a_trouble_that_nobody_thought_of_does_not_end_the_draining(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        inner, troubles = scene.sink.send_all, [RuntimeError("odd"), KafkaTimeoutError(), OSError("disk")]

        async def troubled(placed: Any, wait_seconds: float) -> Any:
            if troubles:
                raise troubles.pop()
            return await inner(placed, wait_seconds)

        assert await scene.post(1) == 202
        monkeypatch.setattr(scene.sink, "send_all", troubled)
        scene.comes(broker)
        await scene.emptied()
        assert not troubles
        assert len(await on_topics(broker, 1)) == 1

    play(lambda: Scene(tmp_path), script)


def forgetting_after(failures: list[Exception]) -> Callable[[SpoolFile, int], None]:
    """`SpoolFile.forget` on a disk that fails so, each failure once, and works then."""
    inner = SpoolFile.forget

    def forget(file: SpoolFile, last_id: int) -> None:
        if failures:
            raise failures.pop()
        inner(file, last_id)

    return forget


def test_what_could_not_be_removed_is_removed_later_without_another_webhook(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [sqlite3.OperationalError("disk is full"), OSError("no")]

    async def script(scene: Scene) -> None:
        assert await scene.post(1) == 202
        monkeypatch.setattr(SpoolFile, "forget", forgetting_after(failures))
        scene.comes(broker)
        await scene.emptied()
        assert not failures
        assert len(await on_topics(broker, 1)) == 1, "and it is not sent again"

    play(lambda: Scene(tmp_path), script)


def test_on_the_embedded_broker_the_lakes_word_outlives_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [sqlite3.OperationalError("disk is full")]

    async def script(scene: Scene) -> None:
        assert await scene.post(1) == 202
        assert scene.spool.stock.webhooks == 1
        monkeypatch.setattr(SpoolFile, "forget", forgetting_after(failures))
        await scene.store.in_lake(1)
        assert not failures
        await scene.emptied()

    play(lambda: Scene(tmp_path, is_embedded=True), script)


def test_the_embedded_broker_gets_no_more_than_it_can_hold_and_the_spool_has_the_rest(
    tmp_path: Path, broker: EmbeddedBroker
) -> None:
    async def script(scene: Scene) -> None:
        for number in range(60):
            assert await scene.post(number, 500_000) == 202
        held = 3 * (PARTITION_LIMIT_BYTES // 500_600)
        await scene.until(lambda: scene.store._sent_id > 0)
        found = await on_topics(broker, 1)
        assert sum(map(len, found.values())) <= held
        assert scene.spool.stock.webhooks == 60, "none of them is in a lake"
        assert await scene.ready() == 200

    play(lambda: Scene(tmp_path, broker.url, is_embedded=True), script)


def test_a_webhook_that_is_over_the_limit_by_itself_does_not_block_its_partition_for_ever() -> None:
    hold_back = HoldBack(1)
    assert hold_back.place("t", b"k", PARTITION_LIMIT_BYTES + 1) == 0
    assert hold_back.place("t", b"k", 1) is None
    hold_back.stored(1, "t", 0, 0, PARTITION_LIMIT_BYTES + 1)
    hold_back.committed({("t", 0): 1})
    assert hold_back.place("t", b"k", 1) == 0


def test_a_webhook_is_in_the_lake_when_its_events_are_committed_too() -> None:
    hold_back, events = HoldBack(2), ("call-events", 0)
    for webhook_id, number in ((1, 0), (2, 1), (3, 0)):
        assert hold_back.place("t", None, 100) is not None
        hold_back.stored(webhook_id, "t", number, webhook_id // 3, 100)
    assert not hold_back.is_settled
    assert hold_back.committed({("t", 0): 2, ("t", 1): 0}) == 1, "the second one is not read"
    hold_back.normalised(1, {events: 5})
    assert hold_back.assembled({events: 4}) is None
    assert hold_back.committed({("t", 1): 1}) == 3
    hold_back.normalised(3, {events: 9})
    assert hold_back.assembled({events: 5}) == 1
    assert not hold_back.is_settled
    assert hold_back.assembled({events: 9}) == 3
    assert hold_back.is_settled


def test_too_large_is_told_by_the_client_and_by_the_broker(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        refused.set_exception(MessageSizeTooLargeError("the broker says so"))

        async def send(*_: object, **__: object) -> Any:
            return refused

        monkeypatch.setattr(scene.sink._producer, "send", send)
        assert await scene.post(1) == 413
        assert await scene.ready() == 200

    play(lambda: Scene(tmp_path, broker.url), script)


def test_a_slow_kafka_is_waited_for_only_shortly_where_there_is_a_spool(
    tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        async def send(*_: object, **__: object) -> Any:
            return asyncio.get_running_loop().create_future()

        with monkeypatch.context() as patch:
            patch.setattr(scene.sink._producer, "send", send)
            async with asyncio.timeout(8):
                assert await scene.post(1) == 202
            assert not scene.spool.is_empty
            assert await scene.post(2) == 202
        await scene.emptied()
        found = await on_topics(broker, 2)
        assert sorted(number for records in found.values() for number, _ in records) == [1, 2]

    play(lambda: Scene(tmp_path, broker.url), script)

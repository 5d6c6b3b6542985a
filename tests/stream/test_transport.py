"""The stream shell against the embedded broker: no part of Kafka or Faust is replaced."""

import asyncio
import itertools
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from pipeline.errors import CallfoldError, DestinationUnavailable
from pipeline.settings import load_settings
from pipeline.stream.app import StreamApp
from pipeline.stream.build import build_app
from pipeline.stream.embedded import PARTITIONS, EmbeddedBroker
from pipeline.stream.handler import Partitions, RecordBatch
from pipeline.stream.progress import ProgressWatch
from pipeline.stream.topics import TopicSpec, bootstrap_servers, create_missing_topics
from pipeline.stream.transport import BatchConsumer
from pipeline.stream.worker import run_until

SESSION_SECONDS = 6
_numbers = itertools.count()


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as started:
        yield started


class Recorder:
    """A handler that remembers what it was given, and acknowledges when told to."""

    def __init__(self, *, acks: bool = True, problems: list[Exception] | None = None) -> None:
        self.acks = acks
        self.problems = problems or []
        self.batches: list[RecordBatch] = []
        self.assignments: list[Partitions] = []
        self.is_drained = False

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for batch in self.batches for record in batch.records]

    async def take(self, batch: RecordBatch) -> None:
        if self.problems:
            raise self.problems.pop(0)
        self.batches.append(batch)
        if self.acks:
            batch.ack()

    async def assigned(self, partitions: Partitions) -> None:
        self.assignments.append(partitions)

    async def revoked(self, partitions: Partitions) -> None:
        self.assignments.append(frozenset())

    async def drain(self) -> None:
        self.is_drained = True
        for batch in self.batches:
            batch.ack()


class Scene:
    """One topic and one group of their own on the shared broker."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.url = broker.url
        self.prefix = f"t{next(_numbers)}"
        self.topic = f"{self.prefix}.webhooks.test"
        self.settings = load_settings({"topics.prefix": self.prefix}, {})

    def app(self, handler: Recorder) -> StreamApp:
        return build_app(self.settings, self.url, {self.topic: handler}, session_seconds=SESSION_SECONDS)

    async def fill(self, values: list[bytes], partition: int | None = None) -> None:
        await create_missing_topics(self.url, [TopicSpec(self.topic, PARTITIONS)])
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers(self.url), linger_ms=20, max_batch_size=400_000
        )
        await producer.start()
        for value in values:
            await producer.send(self.topic, value, key=value, partition=partition)
        await producer.stop()

    async def committed(self) -> dict[int, int | None]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers(self.url),
            group_id=f"{self.prefix}-worker",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            return {n: await consumer.committed(TopicPartition(self.topic, n)) for n in range(PARTITIONS)}
        finally:
            await consumer.stop()


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  it looks at what other threads change
            await asyncio.sleep(0.02)


def run_with(app: Callable[[], StreamApp], script: Callable[[StreamApp], Awaitable[None]]) -> None:
    """Run a worker, run the script beside it, and stop the worker gracefully after it."""

    async def run() -> None:
        stopping = asyncio.Event()
        worker = app()
        running = asyncio.create_task(run_until(worker, stopping))
        playing = asyncio.create_task(_play(script, worker))
        await asyncio.wait([running, playing], return_when=asyncio.FIRST_COMPLETED)
        stopping.set()
        if running.done():
            playing.cancel()
        results = await asyncio.gather(running, playing, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    asyncio.run(run())


async def _play(script: Callable[[StreamApp], Awaitable[None]], worker: StreamApp) -> None:
    await script(worker)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_a_fetched_batch_arrives_as_one_event_with_raw_records(broker: EmbeddedBroker) -> None:
    scene, handler = Scene(broker), Recorder()
    values = [b"\x00not json %d" % n for n in range(500)]
    run(scene.fill(values, partition=2))

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(handler.values) == len(values))

    run_with(lambda: scene.app(handler), script)
    assert handler.values == values
    assert len(handler.batches) < 20
    assert {(batch.topic, batch.partition) for batch in handler.batches} == {(scene.topic, 2)}
    assert [record.offset for batch in handler.batches for record in batch.records] == list(range(500))
    assert handler.assignments[0] == {(scene.topic, n) for n in range(PARTITIONS)}


def test_held_batches_are_not_committed_and_a_graceful_stop_commits_them(broker: EmbeddedBroker) -> None:
    scene, handler = Scene(broker), Recorder(acks=False)
    run(scene.fill([b"a"] * 10, partition=0))
    seen: list[dict[int, int | None]] = []

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(handler.values) == 10)
        assert not await worker.commit_now()
        seen.append(await scene.committed())

    run_with(lambda: scene.app(handler), script)
    assert seen[0][0] is None
    assert handler.is_drained
    assert run(scene.committed())[0] == 10


def test_only_the_acknowledged_head_of_a_partition_is_committed(broker: EmbeddedBroker) -> None:
    scene, handler = Scene(broker), Recorder(acks=False)
    run(scene.fill([b"first"] * 3, partition=1))
    seen: list[int | None] = []

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(handler.values) == 3)
        await scene.fill([b"second"] * 4, partition=1)
        await until(lambda: len(handler.values) == 7)
        handler.batches[-1].ack()
        assert not await worker.commit_now()
        seen.append((await scene.committed())[1])
        handler.batches[0].ack()
        assert await worker.commit_now()
        seen.append((await scene.committed())[1])

    run_with(lambda: scene.app(handler), script)
    assert seen == [None, 7]


def test_a_worker_knows_when_it_has_read_everything(broker: EmbeddedBroker) -> None:
    scene, handler = Scene(broker), Recorder(acks=False)
    run(scene.fill([b"a"] * 10, partition=3))

    async def script(worker: StreamApp) -> None:
        await until(lambda: all(worker.caught_up(scene.topic, n) for n in range(PARTITIONS)))
        assert len(handler.values) == 10
        assert not worker.caught_up(scene.topic, PARTITIONS)
        assert not worker.caught_up("elsewhere", 0)

    run_with(lambda: scene.app(handler), script)


def test_an_unavailable_destination_gets_the_same_batch_again(broker: EmbeddedBroker) -> None:
    scene = Scene(broker)
    handler = Recorder(problems=[DestinationUnavailable("away"), DestinationUnavailable("still away")])
    run(scene.fill([b"a"] * 5, partition=0))

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(handler.values) == 5)

    run_with(lambda: scene.app(handler), script)
    assert handler.values == [b"a"] * 5
    assert run(scene.committed())[0] == 5


class Watched(list[Any]):
    """Records of which can be said whether anybody holds them."""


def test_records_are_held_until_they_are_taken_and_not_until_they_are_acknowledged(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(broker)
    run(scene.fill([b"a"] * 5, partition=0))
    message_of = BatchConsumer._batch_message
    monkeypatch.setattr(
        BatchConsumer, "_batch_message", lambda self, tp, batch: message_of(self, tp, Watched(batch))
    )
    # pytest keeps what is logged: an exception, and with it the frames in which the batch stands.
    monkeypatch.setattr("pipeline.stream.app.log.warning", lambda *_: None)
    held: list[weakref.ref[Any]] = []
    acks: list[Callable[[], object]] = []

    class Forgetful(Recorder):
        """Keeps nothing but the acknowledgement, and gives it up only in the end."""

        tries = 0

        async def take(self, batch: RecordBatch) -> None:
            self.tries += 1
            held.append(weakref.ref(batch.records))
            assert [record.value for record in batch.records] == [b"a"] * 5
            if self.tries == 1:
                raise DestinationUnavailable("away")
            acks.append(batch.ack)

        async def drain(self) -> None:
            for ack in acks:
                ack()

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(acks) == 1)
        assert held[0] is held[1]
        await until(lambda: held[0]() is None)
        assert worker.consumer.unacked
        assert (await scene.committed())[0] is None

    run_with(lambda: scene.app(Forgetful()), script)
    assert run(scene.committed())[0] == 5


def test_any_other_exception_stops_the_worker_and_commits_nothing(broker: EmbeddedBroker) -> None:
    scene, handler = Scene(broker), Recorder(problems=[ZeroDivisionError("a bug")])
    run(scene.fill([b"a"] * 5, partition=0))

    async def script(worker: StreamApp) -> None:
        await asyncio.sleep(60)

    with pytest.raises(CallfoldError, match="a bug"):
        run_with(lambda: scene.app(handler), script)
    assert not handler.is_drained
    assert run(scene.committed())[0] is None

    healthy = Recorder()

    async def again(worker: StreamApp) -> None:
        await until(lambda: len(healthy.values) == 5)

    run_with(lambda: scene.app(healthy), again)


def test_a_timer_runs_until_the_stop(broker: EmbeddedBroker) -> None:
    scene, handler = Scene(broker), Recorder()
    run(scene.fill([b"a"], partition=0))
    ticks: list[float] = []

    async def tick() -> None:
        ticks.append(time.monotonic())

    def build() -> StreamApp:
        worker = scene.app(handler)
        worker.every(0.05, tick)
        return worker

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(ticks) >= 3)

    run_with(build, script)
    assert len(ticks) >= 3


def _start_hoarder(scene: Scene) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("held_worker.py")
    command = [sys.executable, str(program), scene.url, scene.prefix, scene.topic]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if said.strip() == line:
            return
    pytest.fail(f"the worker ended without saying {line!r}")


@pytest.mark.slow
def test_what_a_killed_worker_held_is_read_again(broker: EmbeddedBroker) -> None:
    scene, handler = Scene(broker), Recorder()
    run(scene.fill([b"a"] * 10, partition=0))
    with _start_hoarder(scene) as hoarder:
        _wait_for(hoarder, "taken 10")
        _wait_for(hoarder, "commit asked for")
        hoarder.kill()
    assert run(scene.committed())[0] is None

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(handler.values) == 10, seconds=45)

    run_with(lambda: scene.app(handler), script)
    assert run(scene.committed())[0] == 10


def test_sigterm_drains_commits_and_exits_zero(broker: EmbeddedBroker) -> None:
    scene = Scene(broker)
    run(scene.fill([b"a"] * 10, partition=0))
    with _start_hoarder(scene) as hoarder:
        _wait_for(hoarder, "taken 10")
        hoarder.send_signal(signal.SIGTERM)
        assert hoarder.wait(30) == 0
    assert run(scene.committed())[0] == 10


def test_a_broker_that_is_not_there_is_one_clear_error() -> None:
    settings = load_settings({}, {})

    async def work() -> None:
        await run_until(build_app(settings, "kafka://127.0.0.1:1", {"t": Recorder()}), asyncio.Event())

    with pytest.raises(DestinationUnavailable, match=r"127\.0\.0\.1:1"):
        run(work())


def test_a_consumer_that_stands_still_is_noticed_but_not_during_a_rebalance(broker: EmbeddedBroker) -> None:
    scene, handler = Scene(broker), Recorder()
    run(scene.fill([b"a"] * 5, partition=0))

    async def look_for(watch: ProgressWatch, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await watch.look()
            await asyncio.sleep(watch.interval)

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(handler.values) == 5)
        watch = ProgressWatch(worker, 0.8)
        await look_for(watch, 2)
        await worker.consumer._thread.call_thread(_pause, worker)
        await scene.fill([b"b"] * 5, partition=0)
        worker.rebalancing = True
        await look_for(watch, 2)
        worker.rebalancing = False
        with pytest.raises(CallfoldError, match=rf"no progress for 0.8 s: {scene.topic}/0 is not fetched"):
            await look_for(watch, 10)

    run_with(lambda: scene.app(handler), script)


def test_a_handler_that_waits_for_a_destination_or_for_kafka_does_not_stand_still(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, handler = Scene(broker), Recorder()
    run(scene.fill([b"a"], partition=0))

    async def script(worker: StreamApp) -> None:
        await until(lambda: len(handler.values) == 1)
        watch = ProgressWatch(worker, 0.8)
        with watch.running("Handler.take"):
            for _ in range(20):
                await watch.look()
                watch.excuse()
                await asyncio.sleep(watch.interval)
            with monkeypatch.context() as away:
                away.setattr(worker, "_broker_url", "kafka://127.0.0.1:1")
                for _ in range(20):
                    await watch.look()
                    await asyncio.sleep(watch.interval)
            with pytest.raises(CallfoldError, match=r"Handler\.take does not return"):  # noqa: PT012
                for _ in range(20):
                    await watch.look()
                    await asyncio.sleep(watch.interval)

    run_with(lambda: scene.app(handler), script)


async def _pause(worker: StreamApp) -> None:
    """Stop fetching behind Faust's back."""
    consumer = worker.consumer._thread._consumer
    consumer.pause(*consumer.assignment())

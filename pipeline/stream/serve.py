"""The long-running commands: a collector, a worker, or everything on one machine."""

import asyncio
import dataclasses
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.collect.server import run_collector
from pipeline.errors import CallfoldError
from pipeline.open_lake import open_lake
from pipeline.providers import provider_names, providers
from pipeline.settings import Settings
from pipeline.stream.embedded import EmbeddedBroker
from pipeline.stream.topics import bootstrap_servers
from pipeline.stream.work import work_until
from pipeline.stream.worker import STOP_SIGNALS, quiet_libraries
from pipeline.topic_names import call_events_topic, webhooks_topic, worker_group

log = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
STOP_SECONDS = 45.0
RESTART_SECONDS = 2.0
RESTARTS_AT_MOST = 5
"""A worker that dies so often within `RESTARTS_WITHIN_SECONDS` will not be helped by another start."""
RESTARTS_WITHIN_SECONDS = 120.0


def _key_of(provider: str, body: bytes, query: object) -> bytes | None:
    key = providers()[provider].stream_key(body, query)  # type: ignore[arg-type]
    return None if key is None else key.encode("utf-8", "replace")


def _external(settings: Settings, command: str) -> str:
    if settings.is_embedded:
        raise CallfoldError(
            f"`{command}` needs a broker that other processes reach: set broker (CALLFOLD_BROKER) to "
            "kafka://host:port, or run `callfold serve`"
        )
    return settings.broker


def collect(settings: Settings) -> int:
    """Runs a collector until it is told to stop."""
    run_collector(settings, _external(settings, "callfold collect"), _key_of)
    return 0


def work(settings: Settings) -> int:
    """Runs a worker until it is told to stop."""
    _run_work(settings, _external(settings, "callfold work"))
    return 0


def _run_work(settings: Settings, broker_url: str, on_ready: Callable[[], None] | None = None) -> None:
    async def run() -> None:
        stopping, flush_now = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, flush_now.set)

        def ready() -> None:
            log.info("working: %s -> %s", broker_url, settings.lake)
            if on_ready is not None:
                on_ready()

        await work_until(settings, broker_url, stopping, flush_now=flush_now, on_ready=ready)

    quiet_libraries()
    asyncio.run(run())


def serve(settings: Settings) -> int:
    """Runs collector and worker, and the broker if it is the embedded one, until told to stop; then drains."""
    open_lake(settings.lake)
    stopping = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    if not settings.is_embedded:
        return _Supervisor(settings, settings.broker).run(stopping)
    log.info("the embedded broker keeps webhooks in memory until they are in the lake")
    with EmbeddedBroker() as broker:
        return _Supervisor(settings, broker.url).run(stopping)


class _Supervisor:
    """Starts the two processes, restarts a worker that dies, and stops them in the right order."""

    def __init__(self, settings: Settings, broker_url: str) -> None:
        # Mappings that cannot be pickled are of no use to another process.
        self._settings = dataclasses.replace(
            settings,
            providers=dict(settings.providers),
            # The collector shows the worker's metrics beside its own.
            metrics_port=settings.metrics_port or _free_port(settings.http_host),
        )
        self._broker_url = broker_url
        self._deaths: list[float] = []
        self._alive: list[Connection] = []

    def run(self, stopping: threading.Event) -> int:
        """Until `stopping`; the exit code."""
        collector, listening = self._start(_collector_process)
        while not listening.wait(0.1):
            if stopping.is_set() or not collector.is_alive():
                # Its own line, on a port in use say, has told why.
                return self._stop(collector)
        self._start_worker()
        is_given_up = False
        while collector.is_alive() and not is_given_up and not stopping.wait(0.2):
            is_given_up = not self._keep_working()
        failed = is_given_up or not stopping.is_set()
        code = self._stop(collector)
        if self._settings.is_embedded and not is_given_up:
            failed |= not self._drain()
        return max(code, self._stop(self._worker), int(failed))

    def _start_worker(self) -> None:
        self._worker, self._working = self._start(_worker_process)

    def _keep_working(self) -> bool:
        """Starts the worker again if it has died; false when that has not helped."""
        if self._worker.is_alive():
            return True
        if not self._may_restart(self._worker):
            return False
        time.sleep(RESTART_SECONDS)
        self._start_worker()
        return True

    def _start(self, target: Callable[..., None]) -> tuple[BaseProcess, Event]:
        """A process, and what it sets once it does its work."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        level = logging.getLogger("pipeline").level
        ready = context.Event()
        process = context.Process(target=target, args=(self._settings, self._broker_url, ours, ready, level))
        process.start()
        # The child sees our death by the pipe's end.
        ours.close()
        self._alive.append(theirs)
        return process, ready

    def _may_restart(self, worker: BaseProcess) -> bool:
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < RESTARTS_WITHIN_SECONDS] + [now]
        if len(self._deaths) > RESTARTS_AT_MOST or worker.exitcode == 2:
            log.error("the worker died again (exit code %s) and is given up", worker.exitcode)
            return False
        log.warning("the worker died (exit code %s) and is started again", worker.exitcode)
        return True

    def _stop(self, process: BaseProcess) -> int:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGTERM)
            process.join(STOP_SECONDS)
        if process.is_alive():
            log.error("a process did not stop within %g s and is killed", STOP_SECONDS)
            process.kill()
            process.join()
        if process.exitcode == -signal.SIGTERM:
            # It had not come as far as handling the signal: nothing had been begun.
            return 0
        return 1 if process.exitcode is None or process.exitcode < 0 else process.exitcode

    def _drain(self) -> bool:
        """Lets the worker take all that was accepted: the embedded broker forgets it with this process."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline and self._keep_working():
            if asyncio.run(_is_drained(self._settings.topic_prefix, self._broker_url)):
                return True
            if self._working.is_set() and self._worker.pid is not None:
                os.kill(self._worker.pid, signal.SIGUSR1)
            time.sleep(0.3)
        log.error("not everything that was accepted is in the lake, and the embedded broker forgets it now")
        return False


async def _is_drained(prefix: str, broker_url: str) -> bool:
    """Whether the workers have committed all there is on the topics that they read."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers(broker_url),
        group_id=worker_group(prefix),
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        topics = [*(webhooks_topic(prefix, name) for name in provider_names()), call_events_topic(prefix)]
        partitions = [TopicPartition(t, p) for t in topics for p in consumer.partitions_for_topic(t) or ()]
        if not partitions:
            partitions = [TopicPartition(t, p) for t in topics for p in range(4)]
        for partition, end in (await consumer.end_offsets(partitions)).items():
            if end > 0 and (await consumer.committed(partition) or 0) < end:
                return False
    except KafkaError:
        return False
    finally:
        await consumer.stop()
    return True


def _worker_process(
    settings: Settings, broker_url: str, parent: Connection, ready: Event, level: int
) -> None:
    _as_process(parent, level, lambda: _run_work(settings, broker_url, ready.set))


def _collector_process(
    settings: Settings, broker_url: str, parent: Connection, ready: Event, level: int
) -> None:
    metrics_url = f"http://{settings.http_host}:{settings.metrics_port}/metrics"
    _as_process(parent, level, lambda: run_collector(settings, broker_url, _key_of, ready.set, metrics_url))


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _as_process(parent: Connection, level: int, run: Callable[[], None]) -> None:
    # Its own session: Ctrl-C is for the one who started us, who stops us in order.
    os.setsid()
    # Asked to flush before there is anything to flush: no reason to die.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # Told to stop before anything was begun: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("pipeline").setLevel(level)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    code = 0
    try:
        run()
    except CallfoldError as error:
        sys.stderr.write(f"callfold: {error}\n")
        code = error.exit_code
    except Exception:
        log.exception("a process of `callfold serve` failed")
        code = 1
    # Everything is closed; DuckDB's bindings would complain of the thread that still watches for our parent.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with(parent: Connection) -> None:
    try:
        parent.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)

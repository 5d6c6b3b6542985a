"""The long-running commands: a collector, workers, or everything on one machine.

Each process of them imports this module; what only some of them need, those import when they begin. A collector does
without Faust, DuckDB and Arrow.
"""

import asyncio
import contextlib
import dataclasses
import logging
import random
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial

from pipeline.errors import CallfoldError, UserError
from pipeline.providers import providers
from pipeline.settings import Settings
from pipeline.stream.supervisor import STOP_SIGNALS, Job, Supervisor

log = logging.getLogger(__name__)

LISTENING_PORTS = range(12_000, 32_000)


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


def _check_spool(settings: Settings) -> None:
    """Here, where it is one line, and not in a collector that is then started again and again."""
    if settings.spool_max_bytes:
        log.debug("spool: %s", settings.spool)


def collect(settings: Settings) -> int:
    """Runs a collector until it is told to stop."""
    broker_url = _external(settings, "callfold collect")
    _check_spool(settings)
    _refuse_early(settings, broker_url)
    _run_collect(settings, broker_url)
    return 0


def work(settings: Settings, workers: int = 1) -> int:
    """Runs a worker, or several under a supervisor, until told to stop."""
    broker_url = _external(settings, "callfold work")
    if workers == 1:
        _run_work(settings, broker_url)
        return 0
    _refuse_early(settings, broker_url)
    _open_lake(settings)
    return Supervisor(_worker_jobs(settings, broker_url, workers)).run(_stop_signals())


def serve(settings: Settings, workers: int = 1) -> int:
    """Runs collector and workers, and the broker if it is the embedded one, until told to stop; then drains."""
    if settings.is_embedded and workers > 1:
        raise UserError(
            "the embedded broker has room for one worker: leave --workers away, or set broker "
            "(CALLFOLD_BROKER) to kafka://host:port"
        )
    _check_spool(settings)
    _open_lake(settings)
    stopping = _stop_signals()
    if not settings.is_embedded:
        _refuse_early(settings, settings.broker)
        return _serve(settings, settings.broker, workers, stopping)
    from pipeline.stream.embedded import EmbeddedBroker

    with EmbeddedBroker() as broker:
        return _serve(settings, broker.url, workers, stopping)


def _serve(settings: Settings, broker_url: str, workers: int, stopping: threading.Event) -> int:
    metrics_url = None
    if workers == 1:
        # The collector shows the worker's metrics beside its own. Those of several would be the same series.
        port = settings.metrics_port or _free_port(settings.http_host)
        settings = dataclasses.replace(settings, metrics_port=port)
        metrics_url = f"http://{settings.http_host}:{port}/metrics"
    supervisor = Supervisor(
        _worker_jobs(settings, broker_url, workers),
        collector=partial(_run_collect, _picklable(settings), broker_url, metrics_url),
        is_settling=settings.is_embedded,
    )
    return supervisor.run(stopping)


def _refuse_early(settings: Settings, broker_url: str) -> None:
    from pipeline.stream.connection import refuse_early

    refuse_early(settings, broker_url)


def _open_lake(settings: Settings) -> None:
    from pipeline.open_lake import open_lake

    open_lake(settings.lake)


def _stop_signals() -> threading.Event:
    stopping = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def _worker_jobs(settings: Settings, broker_url: str, workers: int) -> list[Job]:
    """One for each worker, with a metrics port of its own."""
    ports = [settings.metrics_port + n if settings.metrics_port else 0 for n in range(workers)]
    each = [dataclasses.replace(_picklable(settings), metrics_port=port) for port in ports]
    # One of them is enough to say that there are too many.
    return [partial(_run_work, own, broker_url, workers if n == 0 else 1) for n, own in enumerate(each)]


def _picklable(settings: Settings) -> Settings:
    # Mappings that cannot be pickled are of no use to another process.
    return dataclasses.replace(settings, providers=dict(settings.providers))


def _run_work(
    settings: Settings, broker_url: str, workers: int = 1, on_ready: Callable[[], None] | None = None
) -> None:
    from pipeline.stream.work import work_until
    from pipeline.stream.worker import ending_in_time, quiet_libraries

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

        with ending_in_time() as ending:
            await work_until(
                settings,
                broker_url,
                stopping,
                flush_now=flush_now,
                on_ready=ready,
                workers=workers,
                ending=ending,
            )

    quiet_libraries()
    asyncio.run(run())


def _run_collect(
    settings: Settings,
    broker_url: str,
    metrics_url: str | None = None,
    on_ready: Callable[[], None] | None = None,
) -> None:
    from pipeline.collect.collector import run_collector
    from pipeline.stream.connection import client_options

    run_collector(settings, broker_url, _key_of, on_ready, metrics_url, client_options(settings))


def _free_port(host: str) -> int:
    """A port below those that systems give to clients: of them, one may be taken before the worker listens there."""
    for port in random.sample(LISTENING_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])

"""A worker, put together: the two steps on one Faust application, their flushes, and the lake's upkeep."""

import asyncio
import logging
import time
from collections.abc import Callable

from pipeline import native
from pipeline.durable import assembler_of
from pipeline.errors import DestinationUnavailable
from pipeline.garbage import rarely_searched
from pipeline.lake import Lake, LakeHistory, LakeSink
from pipeline.normalise import Normaliser
from pipeline.open_lake import open_lake
from pipeline.privacy import privacy_of
from pipeline.providers import provider_names, providers
from pipeline.settings import Settings
from pipeline.stream.app import StreamApp
from pipeline.stream.assemble_step import EVENTS_A_FLUSH, AssembleStep
from pipeline.stream.build import SESSION_SECONDS, build_app
from pipeline.stream.connection import client_options
from pipeline.stream.embedded import PARTITION_BYTES
from pipeline.stream.metrics import WorkerMetrics
from pipeline.stream.normalise_step import MOST_WAITING_BYTES, NormaliseStep
from pipeline.stream.producer import Backlog, BulkProducer
from pipeline.stream.steps import WorkerSteps
from pipeline.stream.topics import create_missing_topics, topic_specs
from pipeline.stream.worker import Ending, run_until
from pipeline.topic_names import call_events_topic, webhooks_topic
from pipeline.upkeep import Upkeep

log = logging.getLogger(__name__)

# The embedded broker forgets: its partitions must be read and committed long before they are full.
EMBEDDED_WAITING_BYTES = 2 * 1024 * 1024
EMBEDDED_BACKLOG_BYTES = PARTITION_BYTES // 2
EMBEDDED_EVENTS_A_FLUSH = 2_500
EMBEDDED_SESSION_SECONDS = 6.0
"""A worker that was killed is missed sooner: there is no other one to share its partitions with."""


async def work_until(
    settings: Settings,
    broker_url: str,
    stopping: asyncio.Event,
    *,
    flush_now: asyncio.Event | None = None,
    on_ready: Callable[[], None] | None = None,
    workers: int = 1,
    ending: Ending | None = None,
) -> None:
    """Runs one worker until `stopping` is set; then everything taken is in the lake and committed.

    Setting `flush_now` brings the next flush forward. `workers` is how many there are on this machine: more than there
    are partitions is worth a warning. Raises CallfoldError if something else stopped it.
    """
    lake = open_lake(settings.lake)
    options = client_options(settings)
    await create_missing_topics(broker_url, topic_specs(settings, provider_names()), options)
    producer = BulkProducer(broker_url, options)
    await producer.start()
    if workers > 1:
        _warn_of_idle(workers, await producer.partitions(call_events_topic(settings.topic_prefix)))
    session = EMBEDDED_SESSION_SECONDS if settings.is_embedded else SESSION_SECONDS
    app = build_app(settings, broker_url, session_seconds=session)
    worker = _Worker(settings, lake, producer, app)
    flushing = asyncio.create_task(worker.flush_on(flush_now)) if flush_now is not None else None
    try:
        with rarely_searched():
            await run_until(app, stopping, on_ready, ending)
    finally:
        if flushing is not None:
            flushing.cancel()
        await producer.stop()


def _warn_of_idle(workers: int, partitions: int) -> None:
    if workers > partitions:
        log.warning(
            "%d workers for %d partitions: %d of them will be idle", workers, partitions, workers - partitions
        )


class _Worker:
    """The steps of one worker and their timers."""

    def __init__(self, settings: Settings, lake: Lake, producer: BulkProducer, app: StreamApp) -> None:
        self._settings = settings
        self._producer = producer
        prefix, embedded = settings.topic_prefix, settings.is_embedded
        if not native.IS_COMPILED:
            log.info("the hot path is not compiled here: about half as many webhooks are taken")
        history, sink = LakeHistory(lake), LakeSink(lake)
        metrics = WorkerMetrics()
        if settings.metrics_port:
            metrics.serve(settings.http_host, settings.metrics_port)
        app.watch.on_offsets = metrics.show_offsets
        app.watch.on_unavailable = metrics.destination_failures.inc
        self._backlog = Backlog() if embedded else None
        if self._backlog is not None:
            producer.backlogs[call_events_topic(prefix)] = self._backlog
        normaliser = Normaliser(providers(), privacy_of(settings))
        self._assemble = AssembleStep(
            assembler_of(settings, history),
            history,
            producer,
            sink,
            prefix=prefix,
            caught_up=app.caught_up,
            claim=app.tenure.claim,
            commit=app.commit_now,
            metrics=metrics,
            stored=normaliser.stored,
            events_a_flush=EMBEDDED_EVENTS_A_FLUSH if embedded else EVENTS_A_FLUSH,
            backlog=self._backlog,
        )
        self._normalise = NormaliseStep(
            normaliser,
            producer,
            sink,
            self._assemble,
            prefix=prefix,
            archive=settings.archive_webhooks,
            most_waiting_bytes=EMBEDDED_WAITING_BYTES if embedded else MOST_WAITING_BYTES,
            room=self._room if embedded else None,
            commit=app.commit_now,
            metrics=metrics,
        )
        call_events = call_events_topic(prefix)
        is_direct = settings.topic_call_events == "strays"
        steps = WorkerSteps(self._normalise, self._assemble, producer, call_events, is_direct=is_direct)
        app.handle((*(webhooks_topic(prefix, name) for name in provider_names()), call_events), steps)
        app.every(settings.flush_seconds, self._assemble.flush)
        # Between the flushes of the calls, for which the archive's thread would leave less of the interpreter.
        app.every(settings.flush_seconds, self._normalise.flush, first_seconds=settings.flush_seconds / 2)
        upkeep = Upkeep(settings, lake)

        async def tick() -> None:
            await asyncio.to_thread(upkeep.tick, time.time())

        app.every(min(settings.compact_seconds, 60.0), tick, may_last=True)

    async def _room(self) -> None:
        """Waits until the events already sent on are committed, where the broker would forget them."""
        while self._backlog is not None and self._backlog.most_bytes() > EMBEDDED_BACKLOG_BYTES:
            await self._assemble.flush()
            await asyncio.sleep(0.05)

    async def flush_on(self, asked: asyncio.Event) -> None:
        """Flushes both steps each time it is asked for."""
        while True:
            await asked.wait()
            asked.clear()
            try:
                await self._normalise.flush()
                await self._assemble.flush()
            except DestinationUnavailable as problem:
                # The next flush comes by itself, and so does its complaint if that fails too.
                log.debug("no flush now: %s", problem)

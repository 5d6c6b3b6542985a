"""One collector: its server in front, its store behind; and a collector as a whole program."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.collect.follow import follow_commits
from pipeline.collect.hold_back import HoldBack
from pipeline.collect.received import KeyOf
from pipeline.collect.server import CollectorServer
from pipeline.collect.sink import KafkaSink
from pipeline.collect.spool import Spool, SpoolLimits
from pipeline.collect.store import WebhookStore
from pipeline.collect.verify import auth_problems
from pipeline.errors import CallfoldError
from pipeline.settings import Settings

log = logging.getLogger(__name__)

#: what headers and framing may add to a body on Kafka
RECORD_MARGIN_BYTES = 64 * 1024
EMBEDDED_PARTITIONS = 4
ALONE_SECONDS = 5.0
"""How long a sender waits for Kafka's acknowledgement where there is no spool."""
BEFORE_SPOOL_SECONDS = 2.0
"""How long it waits where there is one."""
SETTLE_SECONDS = 10.0
"""How long a collector that stops goes on passing its spool to Kafka; what is left waits for the next start."""
SETTLE_EMBEDDED_SECONDS = 45.0
"""How long it waits for the lake where the embedded broker forgets everything afterwards."""


class Collector:
    """Takes webhooks between `start` and `stop`."""

    def __init__(
        self,
        settings: Settings,
        broker_url: str,
        key_of: KeyOf,
        provider_names: Iterable[str] | None = None,
        *,
        is_embedded: bool | None = None,
        worker_metrics_url: str | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings
        self._names = tuple(settings.providers if provider_names is None else provider_names)
        self._servers = ",".join(part.removeprefix("kafka://") for part in broker_url.split(";"))
        is_held_back = settings.is_embedded if is_embedded is None else is_embedded
        self._hold_back = HoldBack(EMBEDDED_PARTITIONS) if is_held_back else None
        spool = None
        if settings.spool_max_bytes:
            limits = SpoolLimits(settings.spool_max_bytes, settings.spool_max_age_seconds)
            spool = Spool(settings.spool, limits)
        largest = settings.http_max_body_bytes + RECORD_MARGIN_BYTES
        wait_seconds = ALONE_SECONDS if spool is None else BEFORE_SPOOL_SECONDS
        sink = KafkaSink(self._servers, settings.topic_prefix, largest, wait_seconds, client_options)
        self.store = WebhookStore(sink, settings.topic_prefix, spool, self._hold_back)
        self.server = CollectorServer(settings, self.store, key_of, self._names, worker_metrics_url)
        self._following: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        return self.server.url

    async def start(self) -> None:
        """Listen. Raises `UserError` if the address or the spool cannot be had; a Kafka that is away is waited for."""
        for name in sorted(self._names):
            if self._settings.providers[name].auth == "none":
                log.warning("%s: every request is accepted (auth = none)", name)
        for problem in auth_problems(self._settings.providers):
            log.warning("%s", problem)
        await self.store.start()
        if self._hold_back is not None:
            follow = follow_commits(
                self._servers,
                self._settings.topic_prefix,
                self._hold_back,
                EMBEDDED_PARTITIONS,
                self.store.in_lake,
            )
            self._following = asyncio.create_task(follow)
        try:
            await self.server.start()
        except BaseException:
            await self._close()
            raise

    async def stop(self, hurry: asyncio.Event | None = None) -> bool:
        """Answer what is under way, pass on what the spool holds, and leave; whether nothing was left behind.

        `hurry` ends the passing on.
        """
        await self.server.stop()
        seconds = SETTLE_SECONDS if self._hold_back is None else SETTLE_EMBEDDED_SECONDS
        is_settled = await self.store.settle(seconds, hurry or asyncio.Event())
        await self._close()
        return is_settled

    async def _close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.store.stop()


def run_collector(
    settings: Settings,
    broker_url: str,
    key_of: KeyOf,
    on_ready: Callable[[], None] | None = None,
    worker_metrics_url: str | None = None,
    client_options: Mapping[str, Any] | None = None,
) -> None:
    """Run a collector as the whole program, until SIGTERM or Ctrl-C; `on_ready` once it listens.

    A second signal lets it leave what is in its spool there.
    `client_options` say how Kafka lets its clients in (TLS, a login), in aiokafka's words.
    """
    # It tells each attempt at a Kafka that is away; that it is away, and that it is back, is told once here.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    async def run() -> None:
        stopping, hurry = asyncio.Event(), asyncio.Event()

        def stop() -> None:
            (hurry if stopping.is_set() else stopping).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        collector = Collector(
            settings,
            broker_url,
            key_of,
            worker_metrics_url=worker_metrics_url,
            client_options=client_options,
        )
        await collector.start()
        log.info("collecting on %s", collector.url)
        if on_ready is not None:
            on_ready()
        # What is there now stays. Looking through it for garbage again and again took a sixth of the collector's time,
        # and made the slowest answers three times as slow.
        gc.collect()
        gc.freeze()
        await stopping.wait()
        gc.unfreeze()
        if not await collector.stop(hurry):
            _say_what_is_left(collector)

    asyncio.run(run())


def _say_what_is_left(collector: Collector) -> None:
    spool = collector.store.spool
    if spool is None:
        raise CallfoldError(
            "not everything that was accepted is in the lake, and the embedded broker forgets it now"
        )
    log.warning("%d webhooks stay in the spool until the next start", spool.stock.webhooks)

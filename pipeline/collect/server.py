"""The collector's HTTP server: verify, cap, store, answer.

A webhook is answered 202 only after Kafka has acknowledged it. What the body says is not looked at; a body that
cannot be understood is stored like any other.
"""

import asyncio
import errno
import logging
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from prometheus_client import CONTENT_TYPE_LATEST

from pipeline.collect.hold_back import HoldBack
from pipeline.collect.metrics import CollectorMetrics
from pipeline.collect.received import KeyOf, ReceiptClock, webhook_record
from pipeline.collect.sink import KeptBackError, TooLargeError, WebhookSink
from pipeline.collect.verify import verify
from pipeline.errors import DestinationUnavailable, UserError
from pipeline.providers import providers
from pipeline.settings import Settings
from pipeline.topic_names import worker_group

log = logging.getLogger(__name__)

#: what headers and framing may add to a body on Kafka
RECORD_MARGIN_BYTES = 64 * 1024
EMBEDDED_PARTITIONS = 4
OUTAGE_RETRY_SECONDS = 5
KEPT_BACK_RETRY_SECONDS = 1
SHUTDOWN_SECONDS = 10.0


class Collector:
    """Listens between `start` and `stop`."""

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
        self._key_of = key_of
        self._names = frozenset(settings.providers if provider_names is None else provider_names)
        hold_back = settings.is_embedded if is_embedded is None else is_embedded
        self._sink = WebhookSink(
            ",".join(part.removeprefix("kafka://") for part in broker_url.split(";")),
            worker_group(settings.topic_prefix),
            settings.http_max_body_bytes + RECORD_MARGIN_BYTES,
            HoldBack(EMBEDDED_PARTITIONS) if hold_back else None,
            client_options,
        )
        self._worker_metrics_url = worker_metrics_url
        self._clock = ReceiptClock()
        self.metrics = CollectorMetrics()
        self._runner: web.AppRunner | None = None
        #: where it listens, once started
        self.url = ""

    async def start(self) -> None:
        """Listen. Raises `UserError` if the address cannot be had; a Kafka that is away is waited for."""
        for name in sorted(self._names):
            if self._settings.providers[name].auth == "none":
                log.warning("%s: every request is accepted (auth = none)", name)
        await self._sink.start()
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._settings.http_host, self._settings.http_port).start()
        except OSError as problem:
            await self.stop()
            raise UserError(self._listening_problem(problem)) from problem
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])

    async def stop(self) -> None:
        """Take no new request, answer those under way, and send what Kafka has not acknowledged yet."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self._sink.stop()

    def _listening_problem(self, problem: OSError) -> str:
        address = f"{self._settings.http_host}:{self._settings.http_port}"
        if problem.errno == errno.EADDRINUSE:
            return f"{address} is in use: stop the program that has it, or set http.port (CALLFOLD_HTTP_PORT)"
        return f"cannot listen on {address}: {problem.strerror or problem} (http.host, http.port)"

    def _application(self) -> web.Application:
        # One more than allowed, because aiohttp refuses a body of exactly the size it is given.
        app = web.Application(client_max_size=self._settings.http_max_body_bytes + 1)
        app.router.add_post("/webhooks/{provider}", self._webhook)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/metrics", self._show_metrics)
        return app

    async def _webhook(self, request: web.Request) -> web.Response:
        began = time.perf_counter()
        name = request.match_info["provider"]
        label = name if name in self._names else "unknown"
        answer = await self._take(request, name)
        self.metrics.received.labels(label, str(answer.status)).inc()
        self.metrics.seconds.labels(label).observe(time.perf_counter() - began)
        return answer

    async def _take(self, request: web.Request, name: str) -> web.Response:
        if name not in self._names:
            return _answer(404, "no such provider")
        if not _is_json(request.content_type):
            return _answer(415, "the content type is not JSON")
        limit = self._settings.http_max_body_bytes
        if (request.content_length or 0) > limit:
            return _answer(413, f"the body is over {limit} bytes")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _answer(413, f"the body is over {limit} bytes")
        received_us = self._clock.now_us()
        provider = providers()[name]
        headers = {key.lower(): value for key, value in request.headers.items()}
        if not verify(provider.is_signed, self._settings.providers[name], headers, body, received_us):
            return _answer(401, "the credentials are wrong, missing or expired")
        query = dict(request.query)
        key = self._key(name, body, query)
        prefix = self._settings.topic_prefix
        record = webhook_record(prefix, name, key, body, received_us, headers, query, provider.kept_headers)
        try:
            await self._sink.store(record)
        except TooLargeError:
            return _answer(413, "Kafka refuses a message of this size")
        except KeptBackError as problem:
            return _answer(503, str(problem), KEPT_BACK_RETRY_SECONDS)
        except DestinationUnavailable as problem:
            return _answer(503, str(problem), OUTAGE_RETRY_SECONDS)
        self.metrics.stored_bytes.labels(name).inc(len(body))
        return _answer(202, "stored")

    def _key(self, name: str, body: bytes, query: Mapping[str, str]) -> bytes | None:
        try:
            return self._key_of(name, body, query)
        except Exception:  # a key is a convenience, and no reason to lose a webhook
            log.exception("%s: no key for a webhook of %d bytes", name, len(body))
            return None

    async def _live(self, request: web.Request) -> web.Response:
        return _answer(200, "alive")

    async def _ready(self, request: web.Request) -> web.Response:
        if self._sink.is_ready:
            return _answer(200, "ready")
        return _answer(503, "Kafka cannot be reached", OUTAGE_RETRY_SECONDS)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        self.metrics.is_ready.set(self._sink.is_ready)
        text = self.metrics.text() + await self._worker_metrics()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _worker_metrics(self) -> bytes:
        """Those of the worker that this collector was started with, as long as it answers."""
        if self._worker_metrics_url is None:
            return b""
        try:
            async with (
                ClientSession(timeout=ClientTimeout(total=1)) as session,
                session.get(self._worker_metrics_url) as answer,
            ):
                return await answer.read()
        except (ClientError, TimeoutError):
            return b""


def run_collector(
    settings: Settings,
    broker_url: str,
    key_of: KeyOf,
    on_ready: Callable[[], None] | None = None,
    worker_metrics_url: str | None = None,
    client_options: Mapping[str, Any] | None = None,
) -> None:
    """Run a collector as the whole program, until SIGTERM or Ctrl-C; `on_ready` once it listens.

    `client_options` say how Kafka lets its clients in (TLS, a login), in aiokafka's words.
    """
    # It tells each attempt at a Kafka that is away; that it is away, and that it is back, is told once here.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    async def run() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
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
        await stopping.wait()
        await collector.stop()

    asyncio.run(run())


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def _answer(status: int, message: str, retry_seconds: int | None = None) -> web.Response:
    headers = {} if retry_seconds is None else {"Retry-After": str(retry_seconds)}
    return web.json_response({"message": message}, status=status, headers=headers)

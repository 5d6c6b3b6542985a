"""The collector's HTTP server: verify, cap, store, answer.

A webhook is answered 202 only after Kafka has acknowledged it or the spool has it on disk. What the body says is not
looked at; a body that cannot be understood is stored like any other.
"""

import errno
import itertools
import logging
import re
import time
from collections.abc import Iterable, Mapping

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from aiolimiter import AsyncLimiter
from prometheus_client import CONTENT_TYPE_LATEST

from pipeline.collect.answers import StoredAnswer
from pipeline.collect.connections import Connections
from pipeline.collect.intake import Intake, RefusedError
from pipeline.collect.metrics import CollectorMetrics
from pipeline.collect.received import KeyOf, ReceiptClock, webhook_record
from pipeline.collect.refusals import Refusals
from pipeline.collect.relay import add_relay, cors_headers
from pipeline.collect.sink import TooLargeError
from pipeline.collect.site import ConnectionsSite
from pipeline.collect.store import KeptBackError, WebhookStore
from pipeline.collect.verify import verify
from pipeline.errors import DestinationUnavailable, UserError
from pipeline.providers import providers, relay_script
from pipeline.settings import Settings

log = logging.getLogger(__name__)

OUTAGE_RETRY_SECONDS = 5
KEPT_BACK_RETRY_SECONDS = 1
SHUTDOWN_SECONDS = 10.0
#: a request's id that a proxy gave it: only what is harmless in a log is taken over
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class CollectorServer:
    """Listens between `start` and `stop`."""

    def __init__(
        self,
        settings: Settings,
        store: WebhookStore,
        key_of: KeyOf,
        provider_names: Iterable[str],
        worker_metrics_url: str | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._key_of = key_of
        self._names = frozenset(provider_names)
        self._relayed = frozenset(name for name in self._names if relay_script(name) is not None)
        rate = settings.http_max_per_second
        self._rates = {name: AsyncLimiter(rate, 1) for name in self._names} if rate else {}
        self._worker_metrics_url = worker_metrics_url
        self._clock = ReceiptClock()
        self.metrics = CollectorMetrics()
        self._refusals = Refusals()
        self._intake = Intake(settings.http_max_body_bytes, settings.http_request_seconds)
        self._connections = Connections(
            settings.http_max_connections,
            settings.http_request_seconds,
            settings.http_max_header_bytes,
            self.metrics.count_other,
            self.metrics.count_closed,
        )
        self._request_ids = (f"{time.time_ns() // 1000:x}-{number}" for number in itertools.count(1))
        self._runner: web.AppRunner | None = None
        #: where it listens, once started
        self.url = ""

    async def start(self) -> None:
        """Listen. Raises `UserError` if the address cannot be had."""
        self._runner = web.AppRunner(self._application(), shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        host, port = self._settings.http_host, self._settings.http_port
        try:
            await ConnectionsSite(self._runner, self._connections, host, port).start()
        except OSError as problem:
            await self.stop()
            raise UserError(self._listening_problem(problem)) from problem
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])

    async def stop(self) -> None:
        """Take no new request, and answer those under way."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _listening_problem(self, problem: OSError) -> str:
        address = f"{self._settings.http_host}:{self._settings.http_port}"
        if problem.errno == errno.EADDRINUSE:
            return f"{address} is in use: stop the program that has it, or set http.port (CALLFOLD_HTTP_PORT)"
        return f"cannot listen on {address}: {problem.strerror or problem} (http.host, http.port)"

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/webhooks/{provider}", self._webhook)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/metrics", self._show_metrics)
        add_relay(app, self._names, self._settings.http_allowed_origins)
        return app

    async def _webhook(self, request: web.Request) -> web.Response:
        began = time.perf_counter()
        name = request.match_info["provider"]
        headers = {key.lower(): value for key, value in request.headers.items()}
        given = headers.get("x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else next(self._request_ids)
        body = b""
        answer: web.Response
        try:
            if name not in self._names:
                raise RefusedError(404, "no such provider")
            self._intake.check_head(headers)
            body = await self._intake.read(request)
            request.protocol.is_working = True  # type: ignore[attr-defined]  # it is a Connection
            await self._take(request, name, headers, body)
            request.protocol.is_proven = True  # type: ignore[attr-defined]
            answer = StoredAnswer(request_id, self._cors(name, headers))
        except RefusedError as refused:
            answer = _answer(refused.status, refused.why, refused.retry_seconds)
            answer.headers.update({"X-Request-Id": request_id} | self._cors(name, headers))
            label = name if name in self._names else "unknown"
            self._refusals.tell(label, refused.status, refused.why, request_id, len(body))
        finally:
            request.protocol.is_working = False  # type: ignore[attr-defined]
            self._intake.release(body)
        label = name if name in self._names else "unknown"
        self.metrics.count_answer(label, str(answer.status), time.perf_counter() - began)
        return answer

    def _cors(self, name: str, headers: Mapping[str, str]) -> dict[str, str]:
        if name not in self._relayed:
            return {}
        return cors_headers(headers.get("origin"), self._settings.http_allowed_origins)

    async def _take(self, request: web.Request, name: str, headers: Mapping[str, str], body: bytes) -> None:
        """Store what came from whom it says. Raises `RefusedError`."""
        received_us = self._clock.now_us()
        provider = providers()[name]
        if not verify(provider.is_signed, self._settings.providers[name], headers, body, received_us):
            raise RefusedError(401, "the credentials are wrong, missing or expired")
        if self._rates:
            await self._keep_rate(self._rates[name])
        # Asking aiohttp for a query costs something even where there is none.
        query = dict(request.query) if "?" in request.raw_path else {}
        key = self._key(name, body, query)
        record = webhook_record(name, key, body, received_us, headers, query, provider.kept_headers)
        try:
            where = await self._store.store(record)
        except TooLargeError:
            raise RefusedError(413, "Kafka refuses a message of this size") from None
        except KeptBackError as problem:
            raise RefusedError(503, str(problem), KEPT_BACK_RETRY_SECONDS) from problem
        except DestinationUnavailable as problem:
            raise RefusedError(503, str(problem), OUTAGE_RETRY_SECONDS) from problem
        self.metrics.count_stored(name, where, len(body))

    @staticmethod
    async def _keep_rate(rate: AsyncLimiter) -> None:
        # Only those who are believed count: nobody can use up a provider's rate for it.
        if not rate.has_capacity():
            raise RefusedError(429, "more webhooks of this provider than http.max_per_second", 1)
        await rate.acquire()

    def _key(self, name: str, body: bytes, query: Mapping[str, str]) -> bytes | None:
        try:
            return self._key_of(name, body, query)
        except Exception as problem:  # noqa: BLE001  a key is a convenience, and no reason to lose a webhook
            log.error("%s: no key for a webhook: %s", name, type(problem).__name__)  # noqa: TRY400  it may quote the body
            return None

    async def _live(self, request: web.Request) -> web.Response:
        return _answer(200, "alive")

    async def _ready(self, request: web.Request) -> web.Response:
        refusal = self._store.refusal
        return _answer(200, "ready") if refusal is None else _answer(503, refusal, OUTAGE_RETRY_SECONDS)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        self.metrics.is_ready.set(self._store.refusal is None)
        self.metrics.connections.set(len(self._connections))
        self.metrics.body_bytes.set(self._intake.held_bytes)
        if self._store.spool is not None:
            self.metrics.show_spool(self._store.spool.stock)
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


def _answer(status: int, message: str, retry_seconds: int | None = None) -> web.Response:
    headers = {} if retry_seconds is None else {"Retry-After": str(retry_seconds)}
    return web.json_response({"message": message}, status=status, headers=headers)

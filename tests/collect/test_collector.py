"""The collector over real HTTP, against the embedded broker."""

import asyncio
import base64
import hashlib
import hmac
import io
import itertools
import json
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline.collect.collector import Collector
from pipeline.collect.hold_back import PARTITION_LIMIT_BYTES, HoldBack
from pipeline.errors import UserError
from pipeline.settings import load_settings
from pipeline.stream.embedded import EmbeddedBroker
from pipeline.stream.topics import bootstrap_servers

PROVIDERS = ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")
OPEN = {f"CALLFOLD_{name.upper()}_AUTH": "none" for name in PROVIDERS}
BODY = b'{"callId": "c1",\n  "n": 1.0 }'
_numbers = itertools.count()

Script = Callable[["Scene"], Awaitable[None]]


def key_of(provider: str, body: bytes, query: Mapping[str, str]) -> bytes | None:
    if body == b"broken":
        raise ValueError(body)
    return b"freeclimb:c1" if body == BODY else None


class Scene:
    """One collector on a free port, and what it put on Kafka."""

    def __init__(
        self, url: str, environ: Mapping[str, str], *, is_embedded: bool = False, **options: object
    ) -> None:
        self.url = url
        self.prefix = f"c{next(_numbers)}"
        given = {"http.port": 0, "topics.prefix": self.prefix, "spool.max_bytes": 0} | options
        settings = load_settings(given, environ, None, PROVIDERS)
        self.collector = Collector(settings, url, key_of, is_embedded=is_embedded)
        self.session = ClientSession()

    async def post(
        self,
        path: str,
        body: bytes = BODY,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json; charset=utf-8",
    ) -> ClientResponse:
        sent = {"Content-Type": content_type, **(headers or {})}
        answer = await self.session.post(f"{self.collector.url}{path}", data=io.BytesIO(body), headers=sent)
        await answer.read()
        return answer

    async def status(self, *args: Any, **options: Any) -> int:
        return (await self.post(*args, **options)).status

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(f"{self.collector.url}{path}") as answer:
            return answer.status, await answer.text()

    async def stored(self, provider: str, count: int) -> list[Any]:
        consumer = AIOKafkaConsumer(
            f"{self.prefix}.webhooks.{provider}",
            bootstrap_servers=bootstrap_servers(self.url),
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            records: list[Any] = []
            async with asyncio.timeout(20):
                while len(records) < count:
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        records += batch
            return records
        finally:
            await consumer.stop()


def play(url: str, script: Script, environ: Mapping[str, str] = OPEN, *, is_embedded: bool = False) -> None:
    async def run() -> None:
        scene = Scene(url, environ, is_embedded=is_embedded)
        try:
            await scene.collector.start()
            await script(scene)
        finally:
            await scene.session.close()
            # Nobody works here: what the embedded broker holds will not come into a lake.
            hurry = asyncio.Event()
            hurry.set()
            await scene.collector.stop(hurry)

    asyncio.run(run())


def test_a_webhook_is_stored_with_its_untouched_bytes_and_headers(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        headers = {"FreeClimb-Signature": "t=1,v1=00", "Authorization": "Bearer secret", "X-Other": "no"}
        assert await scene.status("/webhooks/freeclimb?agent_id=41&x=%C3%A9", headers=headers) == 202
        (record,) = await scene.stored("freeclimb", 1)
        told = {name: value.decode() for name, value in record.headers}
        assert record.value == BODY
        assert record.key == b"freeclimb:c1"
        received = datetime.fromisoformat(told.pop("received-at"))
        assert abs(received.timestamp() - time.time()) < 30
        assert json.loads(told.pop("query")) == {"agent_id": "41", "x": "é"}
        assert told == {"provider": "freeclimb", "http.freeclimb-signature": "t=1,v1=00"}

    play(broker.url, script)


def test_a_body_that_cannot_be_understood_is_stored_too(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        assert await scene.status("/webhooks/recho", b"\xff\x00 not json") == 202
        assert await scene.status("/webhooks/recho", b"") == 202
        assert await scene.status("/webhooks/recho", b"broken") == 202
        records = await scene.stored("recho", 3)
        assert {record.value for record in records} == {b"\xff\x00 not json", b"", b"broken"}
        assert {record.key for record in records} == {None}

    play(broker.url, script)


def test_times_of_receipt_rise_strictly(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        answers = await asyncio.gather(*(scene.status("/webhooks/recho") for _ in range(50)))
        assert set(answers) == {202}
        times = [dict(record.headers)["received-at"] for record in await scene.stored("recho", 50)]
        assert len(set(times)) == 50
        assert all(time.endswith(b"Z") and len(time) == 27 for time in times)

    play(broker.url, script)


def test_what_is_not_a_webhook_is_refused(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        assert await scene.status("/webhooks/bland") == 404
        assert await scene.status("/webhooks/recho", content_type="text/plain") == 415
        assert await scene.status("/webhooks/recho", content_type="application/vnd.api+json") == 202
        assert await scene.status("/webhooks/recho", b"x" * (1024 * 1024)) == 202
        assert await scene.status("/webhooks/recho", b"x" * (1024 * 1024 + 1)) == 413
        assert (await scene.get("/webhooks/recho"))[0] == 405

        async def unannounced() -> Any:
            for _ in range(20):
                yield b"x" * 65536

        url = f"{scene.collector.url}/webhooks/recho"
        async with scene.session.post(
            url, data=unannounced(), headers={"Content-Type": "application/json"}
        ) as answer:
            assert answer.status == 413
        assert len(await scene.stored("recho", 2)) == 2

    play(broker.url, script)


def _signed(secret: str, seconds: int, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)


def test_only_the_right_credentials_are_accepted(broker: EmbeddedBroker) -> None:
    environ = {
        "CALLFOLD_RECHO_AUTH": "bearer",
        "CALLFOLD_RECHO_SECRET": "old,new",
        "CALLFOLD_INTERACTLY_SECRET": "s3cret",
        "CALLFOLD_WHIPPY_SECRET": "key",
        "CALLFOLD_FREECLIMB_SECRET": "sigsec_1,sigsec_2",
    }

    async def script(scene: Scene) -> None:
        now = int(time.time())

        async def tried(provider: str, **headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return await scene.status(f"/webhooks/{provider}", headers=sent)

        assert await tried("recho", Authorization="Bearer old") == 202
        assert await tried("recho", Authorization="bearer new") == 202
        assert await tried("recho", Authorization="Bearer olds") == 401
        assert await tried("recho", Authorization="Basic old") == 401
        assert await tried("recho", Authorization="Bearer \udcff") == 401
        assert await tried("recho") == 401
        assert await tried("interactly", x_interactly_secret="s3cret") == 202
        assert await tried("interactly", x_interactly_secret="") == 401
        assert await tried("aircall_bus", Authorization="Bearer ") == 401  # it has no secret

        def freeclimb(secret: str, at: int) -> str:
            return f"t={at},v1={'0' * 64},v1={_signed(secret, at, BODY).hex()}"

        assert await tried("freeclimb", FreeClimb_Signature=freeclimb("sigsec_2", now)) == 202
        assert await tried("freeclimb", FreeClimb_Signature=freeclimb("sigsec_2", now - 290)) == 202
        assert await tried("freeclimb", FreeClimb_Signature=freeclimb("sigsec_2", now - 310)) == 401
        assert await tried("freeclimb", FreeClimb_Signature=freeclimb("sigsec_2", now + 310)) == 401
        assert await tried("freeclimb", FreeClimb_Signature=freeclimb("sigsec_3", now)) == 401

        mark = base64.b64encode(_signed("key", now, BODY)).decode().rstrip("=")
        assert await tried("whippy", x_whippy_signature=f"t={now},s={mark}") == 202
        assert await tried("whippy", x_whippy_signature=f"t={now + 1},s={mark}") == 401
        assert await tried("whippy", x_whippy_signature="nonsense") == 401
        assert len(await scene.stored("recho", 2)) == 2

    play(broker.url, script, environ)


def test_recho_signs_with_its_private_key_and_the_bus_has_a_token(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, capture_output=True)
    subprocess.run(
        ["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True, capture_output=True
    )

    def recho(at: int, body: bytes) -> dict[str, str]:
        command = ["openssl", "dgst", "-sha256", "-sign", private]
        message = f"{at}.".encode() + body
        signature = subprocess.run(command, input=message, check=True, capture_output=True).stdout
        return {"X-Recho-Timestamp": str(at), "X-Recho-Signature": base64.b64encode(signature).decode()}

    async def script(scene: Scene) -> None:
        now = int(time.time())
        assert await scene.status("/webhooks/recho", headers=recho(now, BODY)) == 202
        assert await scene.status("/webhooks/recho", BODY + b" ", headers=recho(now, BODY)) == 401
        assert await scene.status("/webhooks/recho", headers=recho(now - 310, BODY)) == 401
        assert await scene.status("/webhooks/recho", headers={"Authorization": f"Bearer {public}"}) == 401

        bus = "/webhooks/aircall_bus"
        assert await scene.status(bus, headers={"Authorization": "Bearer page-token"}) == 202
        assert await scene.status(bus, headers={"Authorization": "Bearer page-tokens"}) == 401
        assert await scene.status(bus) == 401
        # A file that is away is no reason to answer 500, nor to let anybody in.
        assert await scene.status("/webhooks/interactly", headers={"X-Interactly-Secret": "./none"}) == 401

    environ = {
        "CALLFOLD_RECHO_SECRET": str(public),
        "CALLFOLD_AIRCALL_BUS_SECRET": "page-token",
        "CALLFOLD_INTERACTLY_SECRET": "./none",
    }
    play(broker.url, script, environ)


def test_health_and_metrics_tell_what_happened(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        await scene.post("/webhooks/recho")
        await scene.post("/webhooks/nobody")
        assert (await scene.get("/health/live"))[0] == 200
        assert (await scene.get("/health/ready"))[0] == 200
        status, text = await scene.get("/metrics")
        assert status == 200
        assert 'callfold_webhooks_received_total{answer="202",provider="recho"} 1.0' in text
        assert 'callfold_webhooks_received_total{answer="404",provider="unknown"} 1.0' in text
        assert 'callfold_webhooks_stored_total{provider="recho",where="kafka"} 1.0' in text

    play(broker.url, script)


def test_without_kafka_the_answer_is_503_and_nothing_else_breaks() -> None:
    async def script(scene: Scene) -> None:
        answer = await scene.post("/webhooks/recho")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert (await scene.get("/health/ready"))[0] == 503
        assert (await scene.get("/health/live"))[0] == 200

    play("kafka://127.0.0.1:1", script)


def test_a_kafka_that_comes_late_is_found() -> None:
    async def run() -> None:
        broker = EmbeddedBroker()
        scene = Scene("kafka://127.0.0.1:1", OPEN)
        await scene.collector.start()
        try:
            assert await scene.status("/webhooks/recho") == 503
            with broker:
                scene.collector.store._sink._servers = bootstrap_servers(broker.url)
                async with asyncio.timeout(20):
                    while await scene.status("/webhooks/recho") != 202:  # noqa: ASYNC110  it polls as a sender would
                        await asyncio.sleep(0.2)
                assert (await scene.get("/health/ready"))[0] == 200
                await scene.collector.stop()
        finally:
            await scene.session.close()

    asyncio.run(run())


def test_a_busy_port_is_one_clear_line(broker: EmbeddedBroker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        settings = load_settings({"http_port": port, "spool.max_bytes": 0}, OPEN, None, PROVIDERS)
        with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port} is in use: .*http\.port") as raised:
            asyncio.run(Collector(settings, broker.url, key_of).start())
    assert "\n" not in str(raised.value)


def test_the_embedded_broker_is_not_filled_faster_than_it_is_read(broker: EmbeddedBroker) -> None:
    async def script(scene: Scene) -> None:
        body = b'{"x": "' + b"y" * 500_000 + b'"}'
        answers = [await scene.post("/webhooks/recho", body) for _ in range(30)]
        taken = [answer.status for answer in answers].count(202)
        assert taken == 4 * (PARTITION_LIMIT_BYTES // 500_600)
        refused = answers[-1]
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")

        records = await scene.stored("recho", taken)
        assert len(records) == taken
        topic = f"{scene.prefix}.webhooks.recho"
        ends = {
            TopicPartition(topic, n): OffsetAndMetadata(
                1 + max(r.offset for r in records if r.partition == n), ""
            )
            for n in range(4)
        }
        reader = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers(scene.url), group_id=f"{scene.prefix}-worker"
        )
        await reader.start()
        reader.assign(list(ends))
        await reader.commit(ends)
        await reader.stop()
        async with asyncio.timeout(20):
            while await scene.status("/webhooks/recho", body) != 202:  # noqa: ASYNC110  it polls as a sender would
                await asyncio.sleep(0.2)

    play(broker.url, script, is_embedded=True)


def test_room_is_given_back_when_storing_failed() -> None:
    hold_back = HoldBack(1)
    assert hold_back.place("t", None, PARTITION_LIMIT_BYTES) == 0
    assert hold_back.place("t", b"k", 1) is None
    hold_back.failed("t", 0, PARTITION_LIMIT_BYTES)
    assert hold_back.place("t", b"k", 1) == 0

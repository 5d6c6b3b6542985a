"""A worker alone, on a broker that others write to as well."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from running import Program, calls_in, count_in, until

from pipeline.stream.embedded import PARTITIONS, EmbeddedBroker
from pipeline.stream.topics import bootstrap_servers


class Place(NamedTuple):
    """A broker, and the prefix of the topics on it."""

    url: str
    prefix: str
    partitions: int

    @property
    def servers(self) -> str:
        return bootstrap_servers(self.url)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest, prefix: str) -> Iterator[Place]:
    if request.param == "kafka":
        yield Place(request.getfixturevalue("kafka").url, prefix, 8)
        return
    with EmbeddedBroker() as started:
        yield Place(started.url, prefix, PARTITIONS)


@pytest.fixture
def worker(place: Place, start: Callable[..., Program], tmp_path: Path) -> Program:
    return start(
        Program,
        "work",
        CALLFOLD_BROKER=place.url,
        CALLFOLD_TOPICS_PREFIX=place.prefix,
        CALLFOLD_LAKE=str(tmp_path / "lake"),
    )


def produce(place: Place, topic: str, *messages: tuple[bytes | None, bytes | None]) -> None:
    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=place.servers)
        await producer.start()
        for key, value in messages:
            await producer.send_and_wait(topic, value, key=key)
        await producer.stop()

    asyncio.run(send())


def on_topic(place: Place, topic: str) -> list[tuple[str | None, Any]]:
    async def read() -> list[tuple[str | None, Any]]:
        consumer = AIOKafkaConsumer(bootstrap_servers=place.servers, auto_offset_reset="earliest")
        await consumer.start()
        partitions = [TopicPartition(topic, number) for number in range(place.partitions)]
        consumer.assign(partitions)
        found = []
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [(r.timestamp, r.key, r.value) for r in records]
        await consumer.stop()
        return [
            (None if key is None else key.decode(), None if value is None else json.loads(value))
            for _, key, value in sorted(found, key=lambda entry: entry[0])
        ]

    return asyncio.run(read())


def status(status: str, at: int, seq: int) -> bytes:
    event = {"type": "DIALER.CALL_STATUS", "payload": {"status": status, "flow": "regular"}}
    sent_at = f"2026-03-05T10:00:{at:02d}Z"
    return json.dumps(
        {"agent_id": 7, "session_id": "s", "seq": seq, "sent_at": sent_at, "event": event}
    ).encode()


def test_webhooks_without_headers_and_with_any_key_are_processed(
    place: Place, worker: Program, tmp_path: Path
) -> None:
    worker.wait_for("working:")
    body = {"requestType": "callStatus", "callId": "CA1", "callStatus": "completed", "callDuration": "7"}
    before = time.time()
    produce(
        place,
        f"{place.prefix}.webhooks.freeclimb",
        (None, json.dumps(body).encode()),
        (b"whatever", json.dumps(body | {"callId": "CA2", "callStatus": "busy"}).encode()),
        (b"", b"not json"),
        (b"tombstone", None),
    )
    produce(place, f"{place.prefix}.call-events", (b"x", b"not an event"), (b"y", b'{"event_id": 1}'))
    lake = tmp_path / "lake"
    calls = until(lambda: len(found := calls_in(lake)) == 2 and found, "both calls")
    until(lambda: count_in(lake, "quarantine") == 4, "four in quarantine")
    ended_at = calls["freeclimb:CA1"]["ended_at"]
    assert calls["freeclimb:CA1"]["time_source"] == "received"
    assert abs(time.mktime(time.strptime(ended_at[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - before) < 60
    assert worker.stop() == 0, worker.said()
    quarantined = on_topic(place, f"{place.prefix}.quarantine")
    assert {told["code"] for _, told in quarantined} == {"not_json", "empty_body"}
    records = dict(on_topic(place, f"{place.prefix}.call-records"))
    assert records["freeclimb:CA2"]["outcome"] == "busy"
    assert records["freeclimb:CA1"] == calls["freeclimb:CA1"]


def test_a_call_that_never_was_gets_its_tombstone(place: Place, worker: Program, tmp_path: Path) -> None:
    worker.wait_for("working:")
    topic, lake = f"{place.prefix}.webhooks.aircall_bus", tmp_path / "lake"
    produce(place, topic, (None, status("connecting", 10, 10)), (None, status("connected", 20, 20)))
    (wrong,) = until(lambda: calls_in(lake), "the call as it looks at first")
    # The agent's stream had begun earlier: what looked like a call of its own was the middle of another.
    produce(place, topic, (None, status("accepting", 5, 5)))
    (right,) = until(lambda: (found := calls_in(lake)) and wrong not in found and found, "the other call")
    assert calls_in(lake)[right]["direction"] == "inbound"
    assert worker.stop() == 0, worker.said()
    records = on_topic(place, f"{place.prefix}.call-records")
    assert (wrong, None) in records
    assert dict(records)[wrong] is None
    assert dict(records)[right]["event_count"] == 3
    # The events are told under the call that they turned out to belong to.
    assert {row["call_key"] for row in calls_in_events(lake)} == {right}


def calls_in_events(lake: Path) -> list[dict[str, Any]]:
    from pipeline.query.views import connect

    with connect(lake) as connection:
        table = connection.sql("select event_id, call_key from call_events").to_arrow_table()
    return list(table.to_pylist())

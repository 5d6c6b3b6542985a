"""What no program of this kind can beat: aiokafka's batches, typed decoding, the decoded columns written, offsets gone.

No folding, no state: one row a webhook.
"""

import asyncio
import time
from typing import Any

import bodies
import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from bodies import DECODERS
from plain import FLUSH_SECONDS, Job

Row = tuple[Any, ...]


def interactly(body: bodies.Interactly) -> Row:
    """As the schema says; the others likewise."""
    call, kind, at = body.message.call, body.message.type, body.message.timestamp
    reason, seconds = call.phone_call_status, call.assistant_call_duration / 1000
    return call.id, kind, call.status, call.direction, at * 1000, call.start_at, call.end_at, reason, seconds


def recho(body: bodies.Recho) -> Row:
    data = body.body.data
    return data.call_id, body.event_type, data.call_status, None, None, None, None, None, None


def whippy(body: bodies.Whippy) -> Row:
    data, at = body.data, body.created_at
    status = data.delivery_status
    return data.id, body.event, status, data.direction, at, data.created_at, data.updated_at, None, None


def aircall_bus(body: bodies.Bus) -> Row:
    event = body if body.event is None else body.event
    told = event.payload
    return told.uuid, event.type, told.status, told.flow, body.sent_at, None, None, told.type, None


def freeclimb(body: bodies.FreeClimb) -> Row:
    seconds, reason = float(body.call_duration or 0), body.call_ended_reason
    status = body.call_status
    return body.call_id, body.request_type, status, body.direction, None, None, None, reason, seconds


ROWS = {row.__name__: row for row in (interactly, recho, whippy, aircall_bus, freeclimb)}
INSTANT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "kind", "status", "direction")),
        *((name, INSTANT) for name in ("at", "started_at", "ended_at")),
        ("reason", pa.string()),
        ("seconds", pa.float64()),
    ]
)


class Clock(ConsumerRebalanceListener):
    """Starts when the partitions are dealt."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def on_partitions_revoked(self, revoked: Any) -> None: ...

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.job.begins()


async def run(job: Job) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=job.servers,
        group_id=job.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    consumer.subscribe(job.topics, listener=Clock(job))
    await consumer.start()
    rows: list[tuple[Any, ...]] = []
    seen = number = 0
    due = time.monotonic() + FLUSH_SECONDS
    while seen < job.count:
        for partition, records in (await consumer.getmany(timeout_ms=500)).items():
            provider = partition.topic.rpartition(".")[2]
            decode, row = DECODERS[provider].decode, ROWS[provider]
            rows += [row(decode(record.value)) for record in records]
            seen += len(records)
        if time.monotonic() >= due or seen == job.count:
            columns = zip(*rows, strict=True)
            arrays = [pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)]
            pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), job.out / f"rows-{number:05}.parquet")
            await consumer.commit()
            rows, number, due = [], number + 1, time.monotonic() + FLUSH_SECONDS
    job.ends()
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(run(Job()))

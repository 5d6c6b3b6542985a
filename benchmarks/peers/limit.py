"""What no program of this kind can beat: aiokafka's batches, typed decoding, the decoded columns written, offsets gone.

No folding, no state: one row a webhook.
"""

import asyncio
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from bodies import DECODERS
from plain import FLUSH_SECONDS, Job

COLUMNS = {
    "interactly": lambda body: (body.message.call.id, body.message.type, body.message.call.status),
    "recho": lambda body: (body.body.data.call_id, body.event_type, body.body.data.call_status),
    "whippy": lambda body: (body.data.id, body.event, body.data.delivery_status),
    "aircall_bus": lambda body: (
        (None if body.agent_id is None else str(body.agent_id), body.type, body.payload.status)
        if body.event is None
        else (str(body.agent_id), body.event.type, body.event.payload.status)
    ),
    "freeclimb": lambda body: (body.call_id, body.request_type, body.call_status),
}
SCHEMA = pa.schema([("id", pa.string()), ("kind", pa.string()), ("status", pa.string())])


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
            decode, columns = DECODERS[provider].decode, COLUMNS[provider]
            rows += [columns(decode(record.value)) for record in records]
            seen += len(records)
        if time.monotonic() >= due or seen == job.count:
            arrays = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
            pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), job.out / f"rows-{number:05}.parquet")
            await consumer.commit()
            rows, number, due = [], number + 1, time.monotonic() + FLUSH_SECONDS
    job.ends()
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(run(Job()))

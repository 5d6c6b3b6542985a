"""Idiomatic Faust: an agent over the topics, a table keyed by call, a timer that writes what changed.

Stock faust-streaming: its own transport and settings, the table in memory with its changelog on Kafka.
"""

import os
import signal
import sys

import faust
from plain import PARTITIONS, CallFiles, Job, apply
from webhooks import event_of

job = Job()
files = CallFiles(job.out)
app = faust.App(
    job.group,
    broker=f"kafka://{job.servers}",
    store="memory://",
    datadir=str(job.out / "faust"),
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
)
webhooks = app.topic(*job.topics, key_type=str, key_serializer="raw", value_serializer="raw")
calls = app.Table("calls", default=dict, partitions=PARTITIONS)
seen = 0


@app.agent(webhooks)
async def fold(stream):
    global seen  # noqa: PLW0603  the timer below reads it
    async for message in stream.events():
        if not seen:
            job.begins()  # nothing is fetched before the table is ready
        provider = message.message.topic.rpartition(".")[2]
        event = event_of(provider, message.value, message.headers.items())
        if event is not None:
            key = f"{provider}:{event.stream}"
            state = calls[key]
            files.add(apply(state, event))
            calls[key] = state
        seen += 1


@app.timer(interval=0.2)
async def write():
    if files.is_due() or seen == job.count:
        files.flush()
    if seen == job.count:
        await app.consumer.commit()
        job.ends()
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.argv[1:] = ["worker", "--loglevel", "warn"]
    app.main()

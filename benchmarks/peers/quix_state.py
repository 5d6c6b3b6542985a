"""Quix Streams: a StreamingDataFrame for each topic, the calls in its state (RocksDB), its own Parquet file sink.

Its commit interval is that of the other programs; all else is as it comes, changelog topics included.
"""

from plain import FLUSH_SECONDS, SCHEMA, Job, apply
from quixstreams import Application
from quixstreams.sinks.community.file.local import LocalFileSink
from webhooks import event_of


def main() -> None:
    job = Job()
    seen = 0

    def count(topic: str, partition: int, offset: int) -> None:
        nonlocal seen
        seen += 1
        if seen == job.count:
            app.stop()

    app = Application(
        broker_address=job.servers,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        commit_interval=FLUSH_SECONDS,
        state_dir=job.out / "state",
        on_message_processed=count,
        loglevel="WARNING",
    )
    sink = LocalFileSink(directory=str(job.out), format="parquet")

    def event(provider: str):
        def read(body, key, timestamp, headers):
            if not job.times:
                job.begins()  # nothing is fetched before the state is ready
            return event_of(provider, body, headers)

        return read

    def fold(event, state):
        call = state.get("call", {})
        changed = apply(call, event)
        state.set("call", call)
        return [{name: row[name] for name in SCHEMA.names} for row in changed]

    for name in job.topics:
        topic = app.topic(name, key_deserializer="str", value_deserializer="bytes")
        frame = app.dataframe(topic).apply(event(name.rpartition(".")[2]), metadata=True)
        frame = frame.filter(lambda event: event is not None).apply(fold, stateful=True, expand=True)
        frame.sink(sink)
    app.run()
    job.ends()


if __name__ == "__main__":
    main()

"""Puts a stream application together: how it joins its group, and how much it fetches and holds."""

from collections.abc import Mapping

from pipeline.settings import Settings
from pipeline.stream.app import StreamApp
from pipeline.stream.connection import faust_credentials
from pipeline.stream.handler import BatchHandler
from pipeline.topic_names import worker_group

#: batches that may wait in one agent's queue before the partition is no longer fetched
QUEUED_BATCHES = 4
FETCH_RECORDS = 20_000
#: of one partition and fetch; Faust takes half a millisecond a batch, however large
FETCH_BYTES = 4 * 1024 * 1024
#: after so long without a heartbeat a worker counts as dead and its partitions go to the others
SESSION_SECONDS = 10.0
#: A broker that has just started may not know a topic yet, and the group then divides what it knows: nobody would
#: read the rest until the next look at the topics, which aiokafka takes every five minutes.
TOPICS_LOOK_SECONDS = 10.0


def build_app(
    settings: Settings,
    broker_url: str,
    handlers: Mapping[str | tuple[str, ...], BatchHandler] | None = None,
    *,
    session_seconds: float = SESSION_SECONDS,
) -> StreamApp:
    """A worker of the group `<prefix>-worker`; handlers may also be added with `handle`.

    Topics must exist (`create_missing_topics`). Call it inside the running loop that is to run the worker.
    """
    app = StreamApp(
        worker_group(settings.topic_prefix),
        settings=settings,
        broker=broker_url,
        broker_credentials=faust_credentials(settings),
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_metadata_max_age_ms=round(TOPICS_LOOK_SECONDS * 1000),
        broker_max_poll_records=FETCH_RECORDS,
        broker_session_timeout=session_seconds,
        broker_heartbeat_interval=session_seconds / 6,
        # Handlers hold batches on purpose; waiting for them is what `drain` is for.
        stream_wait_empty=False,
        stream_buffer_maxsize=QUEUED_BATCHES,
    )
    app.every(app.watch.interval, app.watch.look, may_last=True)
    for topics, handler in (handlers or {}).items():
        app.handle(topics, handler)
    return app

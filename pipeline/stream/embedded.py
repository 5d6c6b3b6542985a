"""A broker inside this process, for the demo, the tests and a laptop: librdkafka's own.

It speaks the real protocol and needs neither Java nor Docker. Its limits: everything is in memory and gone
with the process, every topic has four partitions, a partition keeps only its newest 5 MB (so whoever produces
must hold back while the worker is behind), and a consumer group has room for one member only.
"""

from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer

from pipeline.errors import CallfoldError

PARTITIONS = 4
#: what one partition keeps, in bytes of record batches; older ones vanish without a word
PARTITION_BYTES = 5 * 1024 * 1024


class EmbeddedBroker:
    """Runs the broker between `start` and `stop`, or for the time of a `with` block."""

    def __init__(self) -> None:
        self._owner: Producer | None = None
        self.url = ""

    def start(self) -> Self:
        """Start it on a free port of 127.0.0.1; `url` says where."""
        # It lives as long as the producer that asked for it, and librdkafka notes its start at level 5.
        self._owner = Producer({"test.mock.num.brokers": 1, "log_level": 3})
        try:
            broker = next(iter(self._owner.list_topics(timeout=10).brokers.values()))
        except KafkaException as problem:
            raise CallfoldError(f"the embedded broker did not start: {problem}") from problem
        self.url = f"kafka://{broker.host}:{broker.port}"
        return self

    def stop(self) -> None:
        """Stop it, and forget everything it held."""
        self._owner = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

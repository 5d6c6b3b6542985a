"""Bytewax: its Kafka source, a stateful operator keyed by call, a Parquet sink, its recovery store (SQLite).

Bytewax commits no offsets to Kafka: where it goes on is in the recovery store, together with the calls. The sink writes
its file when it is asked for its part of the same snapshot, so a file is there before its offsets are.
"""

from datetime import timedelta

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from plain import FLUSH_SECONDS, CallFiles, Job, apply
from webhooks import event_of


class CallsPartition(StatefulSinkPartition):
    """Collects what changed, and writes it at each snapshot."""

    def __init__(self, files: CallFiles) -> None:
        self.files = files

    def write_batch(self, values: list) -> None:
        self.files.add(values)

    def snapshot(self) -> int:
        self.files.flush()
        return self.files.number

    def close(self) -> None:
        self.files.flush()


class CallsSink(FixedPartitionedSink):
    """All calls in one part."""

    def __init__(self, files: CallFiles) -> None:
        self.files = files

    def list_parts(self) -> list[str]:
        return ["calls"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> CallsPartition:
        return CallsPartition(self.files)


def main() -> None:
    job = Job()

    def read(message):
        return event_of(message.topic.rpartition(".")[2], message.value, message.headers)

    def fold(state, event):
        state = {} if state is None else state
        return state, apply(state, event)

    flow = Dataflow("calls")
    webhooks = op.input("webhooks", flow, KafkaSource([job.servers], job.topics, tail=False))
    events = op.filter_map("events", webhooks, read)
    keyed = op.key_on("by_call", events, lambda event: f"{event.provider}:{event.stream}")
    calls = op.stateful_flat_map("fold", keyed, fold)
    op.output("calls", calls, CallsSink(CallFiles(job.out)))
    recovery = job.out / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 1)
    epoch = timedelta(seconds=FLUSH_SECONDS)
    # Its consumers fetch from the moment that they are built, which is in there.
    job.begins()
    cli_main(flow, epoch_interval=epoch, recovery_config=RecoveryConfig(str(recovery), timedelta(0)))
    job.ends()


if __name__ == "__main__":
    main()

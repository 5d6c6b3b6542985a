"""A worker that takes every batch and acknowledges none; the tests kill it."""

import sys
from typing import Any

from pipeline.settings import load_settings
from pipeline.stream.app import StreamApp
from pipeline.stream.build import build_app
from pipeline.stream.handler import Partitions, RecordBatch
from pipeline.stream.transport import BatchConsumer, BatchTransport
from pipeline.stream.worker import run_worker


class Hoarder:
    def __init__(self) -> None:
        self.batches: list[RecordBatch] = []
        self.taken = 0

    async def take(self, batch: RecordBatch) -> None:
        self.batches.append(batch)
        self.taken += len(batch.records)
        print(f"taken {self.taken}", flush=True)

    async def assigned(self, partitions: Partitions) -> None:
        """No state."""

    async def revoked(self, partitions: Partitions) -> None:
        """No state."""

    async def drain(self) -> None:
        for batch in self.batches:
            batch.ack()


class TellingConsumer(BatchConsumer):
    """Says when Faust has asked for a commit, which it does by itself every few seconds."""

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        has_committed = await super().force_commit(topics, start_new_transaction)
        print("commit asked for", flush=True)
        return has_committed


def build() -> StreamApp:
    broker_url, prefix, topic = sys.argv[1:]
    settings = load_settings({"topics.prefix": prefix}, {})
    return build_app(settings, broker_url, {topic: Hoarder()}, session_seconds=6)


if __name__ == "__main__":
    BatchTransport.Consumer = TellingConsumer
    run_worker(build, on_ready=lambda: print("ready", flush=True))

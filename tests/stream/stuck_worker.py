"""`callfold work` with a fault: `stuck_worker.py FAULT work ...`."""

import asyncio
import os
import sys
import time
from typing import Any

from pipeline.cli import main
from pipeline.stream import transport, work
from pipeline.stream.assemble_step import AssembleStep
from pipeline.stream.handler import RecordBatch
from pipeline.stream.steps import WorkerSteps


async def take_for_ever(self: WorkerSteps, batch: RecordBatch) -> None:
    await asyncio.Event().wait()


async def take_in_a_thread_for_ever(self: WorkerSteps, batch: RecordBatch) -> None:
    await asyncio.to_thread(time.sleep, 10_000)


async def take_and_block(self: WorkerSteps, batch: RecordBatch) -> None:
    time.sleep(10_000)  # noqa: ASYNC251  that is the fault


async def flush_for_ever(self: AssembleStep) -> None:
    await asyncio.Event().wait()


async def take_slowly(self: WorkerSteps, batch: RecordBatch) -> None:
    await asyncio.sleep(float(os.environ["CALLFOLD_STUCK_SECONDS"]) / 2)
    await TAKE(self, batch)


TAKE = WorkerSteps.take


def stop_fetching() -> None:
    """From the first batch on nothing more is fetched, as if there were nothing."""
    getmany = transport.BatchConsumer.getmany

    async def once(self: Any, timeout: float) -> Any:  # noqa: ASYNC109  Faust's signature
        async for found in getmany(self, timeout):
            yield found
            consumer = self._thread._consumer
            consumer.pause(*consumer.assignment())

    transport.BatchConsumer.getmany = once  # type: ignore[method-assign]


FAULTS = {
    "take": lambda: setattr(WorkerSteps, "take", take_for_ever),
    "thread": lambda: setattr(WorkerSteps, "take", take_in_a_thread_for_ever),
    "block": lambda: setattr(WorkerSteps, "take", take_and_block),
    "flush": lambda: setattr(AssembleStep, "flush", flush_for_ever),
    "slow": lambda: setattr(WorkerSteps, "take", take_slowly),
    "fetch": stop_fetching,
    "small": lambda: vars(work).update(EVENTS_A_FLUSH=500, MOST_WAITING_BYTES=500_000),
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))

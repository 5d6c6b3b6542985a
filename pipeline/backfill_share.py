"""One of several processes of a backfill: folds the calls of its share, and flushes when it is told to.

What it is sent, in this order and again: batches of webhooks, then an empty message, a mark. It answers the mark with
`Reached`, waits for `Go`, and writes. So all processes flush behind the same webhook, at one data's time, and an event
that came to the wrong one is with the right one before any flush that it belongs to.
"""

import contextlib
import os
import signal
import traceback
from multiprocessing.connection import Connection
from typing import NamedTuple

import msgspec

from pipeline.backfill_pass import Pass
from pipeline.backfill_route import Share
from pipeline.backfill_summary import Summary
from pipeline.errors import CallfoldError
from pipeline.garbage import rarely_searched
from pipeline.lake import Lake
from pipeline.logs import LogSetup, set_up_logging
from pipeline.model import CallEvent, Webhook
from pipeline.settings import Settings

decode_batch = msgspec.msgpack.Decoder(list[Webhook]).decode
encode_batch = msgspec.msgpack.Encoder().encode


class Reached(NamedTuple):
    """A mark has been reached: what the others have to know before anybody flushes."""

    data_us: int
    """The data's time as far as this process has seen it."""
    strays: list[CallEvent]
    """Events of others' streams."""


class Go(NamedTuple):
    """What to do now that all have reached the mark."""

    as_of_us: int
    strays: list[CallEvent]
    """Events of this process's streams that others came across."""
    is_end: bool


class Job(NamedTuple):
    """What a process has to know. Bears being pickled."""

    settings: Settings
    share: Share
    archive: bool
    logs: LogSetup


def work(job: Job, webhooks: Connection, answers: Connection) -> None:
    """The process, until it has folded its share or the one that reads is gone. Does not return."""
    set_up_logging(job.logs)
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(OSError):
        answers.send(_told(job, webhooks, answers))
    # Nothing is left to be done; taking apart what is in memory would take a while.
    os._exit(0)


def _leave(*_: object) -> None:
    # As an exception: a file that is being written is removed on the way out.
    raise SystemExit(1)


def _told(job: Job, webhooks: Connection, answers: Connection) -> Summary | CallfoldError | None:
    """What was done, or why it could not be; None if there is nobody to be told."""
    try:
        with rarely_searched():
            return _fold(job, webhooks, answers)
    except (EOFError, BrokenPipeError):
        # What is written stays, and the rest is read again.
        return None
    except CallfoldError as error:
        return error
    except Exception as error:  # noqa: BLE001  whatever it is, it is told by the one that reads
        told = CallfoldError(f"{type(error).__name__}: {error} (--debug shows the traceback)")
        told.add_note(traceback.format_exc())
        return told


def _fold(job: Job, webhooks: Connection, answers: Connection) -> Summary:
    summary = Summary()
    share = Pass(job.settings, Lake(job.settings.lake), job.archive, summary, job.share)
    while True:
        batch = webhooks.recv_bytes()
        if batch:
            share.take(decode_batch(batch))
            continue
        answers.send(Reached(share.data_us, share.strays))
        go: Go = webhooks.recv()
        share.strays = []
        share.add(go.strays)
        if go.is_end:
            share.finish(go.as_of_us)
            return summary
        share.flush(go.as_of_us)

"""One of several processes of a backfill: folds the calls of its share, and flushes when it is told to.

What it is sent, in this order and again: batches of webhooks, then an empty message, a mark. It answers the mark with
`Reached`, waits for `Go`, and writes. So all processes flush behind the same webhook, at one data's time, and an event
that came to the wrong one is with the right one before any flush that it belongs to.
"""

import contextlib
import os
import signal
import traceback
import zlib
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from pipeline.backfill import Pass, Summary
from pipeline.errors import CallfoldError
from pipeline.garbage import rarely_searched
from pipeline.lake import Lake
from pipeline.logs import LogSetup, set_up_logging
from pipeline.model import CallEvent, Webhook
from pipeline.providers import Provider
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
    share: int
    shares: int
    archive: bool
    logs: LogSetup


def share_of(key: str, shares: int) -> int:
    """The process that folds a stream; by the end of its key, which is the provider's own id."""
    return zlib.crc32(key.rpartition(":")[2].encode("utf-8", "replace")) % shares


class Route:
    """Finds the process that a webhook goes to. It is only a guess, made cheaply: a wrong one gives a stray.

    All receipts that may be one webhook go to one process, or it would not be told which of them was read last.
    """

    def __init__(self, providers: Mapping[str, Provider], shares: int) -> None:
        self._shares = shares
        self._ids = {name: _id_reader(p.redacted.keys[0]) for name, p in providers.items() if p.redacted.keys}
        self._keys = {name: provider.stream_key for name, provider in providers.items()}

    def __call__(self, webhook: Webhook) -> int:
        """The process, from 0."""
        try:
            # Of a webhook as it should be, only the id is decoded: 1.1 µs, where `stream_key` takes 5.1.
            key: str | None = self._ids[webhook.provider](webhook.body)
        except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            key = self._key(webhook)
        if key is None:
            return zlib.crc32(b"%d" % webhook.received_us) % self._shares
        return share_of(key, self._shares)

    def _key(self, webhook: Webhook) -> str | None:
        try:
            return self._keys[webhook.provider](webhook.body, webhook.query)
        except Exception:  # noqa: BLE001  whoever normalises it says what is wrong with it
            return None


def _id_reader(path: tuple[str, ...]) -> Callable[[bytes], str]:
    """Reads the text or whole number at the end of a path of names, and nothing else of a body."""
    shape: Any = str | int
    for name in reversed(path):
        shape = msgspec.defstruct("Level", [("below", shape, msgspec.field(name=name))], gc=False)
    decode, end = msgspec.json.Decoder(shape).decode, attrgetter(".".join(["below"] * len(path)))
    return lambda body: str(end(decode(body)))


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
    def is_own(key: str) -> bool:
        return share_of(key, job.shares) == job.share

    summary = Summary()
    share = Pass(job.settings, Lake(job.settings.lake), job.archive, summary, is_own)
    while True:
        batch = webhooks.recv_bytes()
        if batch:
            for webhook in decode_batch(batch):
                share.take(webhook)
            continue
        answers.send(Reached(share.data_us, share.strays))
        go: Go = webhooks.recv()
        share.strays = []
        share.add(go.strays)
        if go.is_end:
            share.finish(go.as_of_us)
            return summary
        share.flush(go.as_of_us)

"""What was erased from the lake and may not come back into it: `callfold forget` writes the list, sinks honour it.

The list holds hashes of 64 bits, of call keys, event ids and webhook ids, and no telephone number in any form: a number
has so few digits that its hash could be tried out, and a person who calls again is another call.
"""

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from pipeline.lake.files import Lake
from pipeline.lake.rows import StoredRejection, key_hash
from pipeline.model import CallEvent, CallRecord, Rejection, Webhook
from pipeline.providers import providers

FOLDER: Final = "_forgotten"
_SCHEMA: Final = pa.schema([("key_hash", pa.uint64())], metadata={"callfold.dataset": "forgotten"})


class Forgotten:
    """The list as it is now: whoever asks sees also what another process has just added to it."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._names: frozenset[str] = frozenset()
        self._hashes: frozenset[int] = frozenset()

    def hashes(self) -> frozenset[int]:
        """Every hash on the list; one listing of a folder, and no more as long as nothing is added."""
        files = self._lake.listed(self._lake.root / FOLDER)
        names = frozenset(file.name for file in files)
        if names != self._names:
            tables = [self._lake.read(file) for file in files]
            self._hashes = frozenset(h for table in tables for h in table.column("key_hash").to_pylist())
            self._names = names
        return self._hashes

    def add(self, hashes: Iterable[int]) -> int:
        """Puts those on the list that are not there yet; how many. Durable when it returns."""
        new = sorted(set(hashes) - self.hashes())
        if new:
            folder = self._lake.root / FOLDER
            self._lake.store.lay_out(folder)
            name = f"{time.time_ns() // 1_000:017d}-{uuid.uuid4().hex[:8]}.parquet"
            self._lake.write(pa.table([pa.array(new, pa.uint64())], schema=_SCHEMA), folder / name)
        return len(new)

    def events(
        self, placed: Sequence[tuple[CallEvent, str | None]]
    ) -> Sequence[tuple[CallEvent, str | None]]:
        """Those that are not of a forgotten call, nor forgotten themselves."""
        gone = self.hashes()
        if not gone:
            return placed
        return [
            (event, call)
            for event, call in placed
            if key_hash(call or event.stream_key) not in gone and key_hash(event.event_id) not in gone
        ]

    def records(self, records: Sequence[tuple[str, CallRecord]]) -> Sequence[tuple[str, CallRecord]]:
        """Those of calls that are not forgotten."""
        gone = self.hashes()
        return [pair for pair in records if key_hash(pair[1].call_key) not in gone] if gone else records

    def webhooks(self, webhooks: Sequence[tuple[str, Webhook]]) -> Sequence[tuple[str, Webhook]]:
        """Those that are not forgotten, nor about a call that is."""
        gone = self.hashes()
        return [pair for pair in webhooks if not _is_about(*pair, gone)] if gone else webhooks

    def rejections(self, stored: Sequence[StoredRejection]) -> Sequence[StoredRejection]:
        """Those of webhooks that are not forgotten, nor about a call that is."""
        gone = self.hashes()
        return [one for one in stored if not _is_about(one.webhook_id, one.webhook, gone)] if gone else stored


def _is_about(webhook_id: str, webhook: Webhook, gone: frozenset[int]) -> bool:
    """Whether a webhook was forgotten itself, or comes after that, about a call or an event that was."""
    if key_hash(webhook_id) in gone:
        return True
    provider = providers().get(webhook.provider)
    try:
        if provider is None:
            return False
        if provider.keyed_by == "call":
            key = provider.stream_key(webhook.body, webhook.query)
            return key is not None and key_hash(key) in gone
        events = provider.events(webhook)
    except Exception:  # noqa: BLE001  what cannot be read is in quarantine by now, and not here to be judged
        return False
    return not isinstance(events, Rejection) and any(key_hash(event.event_id) in gone for event in events)

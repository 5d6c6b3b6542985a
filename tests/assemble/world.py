"""What tests of the fold and of the lake share: traffic with its truth, and a history that is a list in memory."""

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from pipeline.assemble.assembler import Assembler, Changes
from pipeline.lake.rows import column_of
from pipeline.model import CallEvent, CallRecord, Rejection, Remembered, Webhook
from pipeline.normalise import Normaliser
from pipeline.normalise.redact import Privacy
from pipeline.providers import providers
from pipeline.simulate import Disturbance, traffic, truth
from pipeline.simulate.truth import instant

SECOND = 1_000_000
IDLE_US = 14_400 * SECOND
GRACE_US = 300 * SECOND
AGENT_PROVIDERS = [name for name, provider in providers().items() if provider.keyed_by == "agent"]
Line = Mapping[str, Any]


@cache
def simulated_truth(
    calls: int, seed: int, *shares: float, idle_us: int = IDLE_US
) -> dict[str, dict[str, Any]]:
    """What the simulated lines come to."""
    return expected(simulated(calls, seed, *shares), idle_us)


@cache
def simulated(calls: int, seed: int, *shares: float) -> list[dict[str, Any]]:
    """Archive lines, decoded, in the order of their receipt."""
    return [msgspec.json.decode(line) for line in traffic(calls, seed, disturbance=Disturbance(*shares))]


_known: dict[int, tuple[Line, list[CallEvent]]] = {}


def events_of(line: Line) -> list[CallEvent]:
    """The events of one archive line, read once."""
    if id(line) not in _known or _known[id(line)][0] is not line:
        _known[id(line)] = (line, _read(line))
    return _known[id(line)][1]


def webhook_of(line: Line) -> Webhook:
    """The archive line as the pipeline takes it."""
    received_us = instant.from_text(line["received_at"])
    assert received_us is not None
    body = msgspec.json.encode(line["body"])
    return Webhook(line["provider"], received_us, body, line.get("headers") or {}, line.get("query") or {})


_normaliser = Normaliser(providers(), Privacy())  # takes as long to make as a hundred lines to read


def _read(line: Line) -> list[CallEvent]:
    found = _normaliser.events(webhook_of(line))
    assert not isinstance(found, Rejection), found
    return found


def expected(lines: Iterable[Line], idle_us: int = IDLE_US, **options: Any) -> dict[str, dict[str, Any]]:
    """The oracle's records by call key."""
    records = truth((dict(line) for line in lines), idle_us / SECOND, **options)
    return {record["call_key"]: record for record in records}


def as_row(record: CallRecord) -> dict[str, Any]:
    """The record as the oracle writes one."""
    row: dict[str, Any] = {}
    for name in CallRecord.__struct_fields__:
        value = getattr(record, name)
        if name == "date_day":
            value = instant.to_date(value * 86_400 * SECOND)
        elif name.endswith("_us"):
            value = instant.to_text(value)
        row[column_of(name)] = value
    return row


def differences(
    found: Mapping[str, Mapping[str, Any]], true: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, Any, Any]]:
    """Call, column, what is found and what is true; a call that one side lacks differs in `call_key`."""
    nothing: dict[str, Any] = {}
    return [
        (key, column, found.get(key, nothing).get(column), true.get(key, nothing).get(column))
        for key in sorted(found.keys() | true.keys())
        for column in (found.get(key) or true[key])
        if found.get(key, nothing).get(column) != true.get(key, nothing).get(column)
    ]


def without(rows: Mapping[str, Mapping[str, Any]], *columns: str) -> dict[str, dict[str, Any]]:
    return {key: {k: v for k, v in row.items() if k not in columns} for key, row in rows.items()}


class MemoryLake:
    """A lake that is lists. What is written twice is there twice, as in the files."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, CallRecord, bool]] = []
        self.placed: dict[str, str | None] = {}
        """The call that each event was last written under."""
        self.asked: list[set[str]] = []
        """What had to be read again."""
        self._events: dict[str, dict[str, CallEvent]] = {}
        self._newest: dict[str, tuple[int, int]] = {}

    def write(self, changes: Changes, *, only_events: bool = False) -> None:
        for event, call in changes.events:
            known = self._events.setdefault(event.stream_key, {})
            before = known.get(event.event_id)
            if before is None or event.received_us <= before.received_us:
                known[event.event_id] = event
            self.placed[event.event_id] = call
        if not only_events:
            for key, record in changes.records:
                self._append(key, record, False)
            for key, record in changes.retracted:
                self._append(key, record, True)

    def _append(self, key: str, record: CallRecord, is_retracted: bool) -> None:
        rank = (record.revision, len(self.rows))
        self._newest[record.call_key] = max(self._newest.get(record.call_key, (0, 0)), rank)
        self.rows.append((key, record, is_retracted))

    def knows(self, stream_key: str) -> bool:
        return stream_key in self._events

    def remember(self, stream_keys: Collection[str]) -> Mapping[str, Remembered]:
        if stream_keys:
            self.asked.append(set(stream_keys))
        found = {
            key: Remembered(list(self._events[key].values()), [], self._retracted(key))
            for key in stream_keys
            if key in self._events
        }
        for key, record in self._standing():
            if key in found:
                found[key].records.append(record)
        return found

    def _standing(self) -> Iterator[tuple[str, CallRecord]]:
        for _, place in self._newest.values():
            key, record, is_retracted = self.rows[place]
            if not is_retracted:
                yield key, record

    def _retracted(self, stream_key: str) -> list[CallRecord]:
        newest = (self.rows[place] for _, place in self._newest.values())
        return [record for key, record, is_retracted in newest if is_retracted and key == stream_key]

    def calls(self) -> dict[str, dict[str, Any]]:
        """The newest row of each call by the rule of the views, as the oracle writes one."""
        return {record.call_key: as_row(record) for _, record in self._standing()}

    def open_streams(self) -> list[str]:
        return sorted({key for key, record in self._standing() if record.state != "ended"})


def assembler(history: Any, idle_us: int = IDLE_US, grace_us: int = GRACE_US) -> Assembler:
    return Assembler(idle_us=idle_us, grace_us=grace_us, agent_providers=AGENT_PROVIDERS, history=history)


@dataclass(frozen=True)
class Course:
    """How webhooks are taken in: at which of them a flush comes, and what becomes of it."""

    flushes: Mapping[int, str]
    """By place: `flush`, `restart` after it, `crash` (written, not committed), `torn` (events written, records not)."""
    lags_us: int = 0
    """How far the data's time trails the newest receipt."""


def run(
    lines: Sequence[Line],
    course: Course,
    idle_us: int = IDLE_US,
    grace_us: int = GRACE_US,
    lake: MemoryLake | None = None,
) -> MemoryLake:
    """Takes the lines in as a worker does: batch by batch, restarted and crashed on the way."""
    lake = MemoryLake() if lake is None else lake
    worker = _started(lake, idle_us, grace_us)
    batch: list[Line] = []
    newest_us = 0
    for place, line in enumerate(lines):
        batch.append(line)
        happening = course.flushes.get(place)
        worker.add(0, events_of(line))
        newest_us = max(newest_us, instant.from_text(line["received_at"]) or 0)
        if happening is None:
            continue
        as_of_us = newest_us - course.lags_us
        lake.write(worker.collect(lambda _, at=as_of_us: at), only_events=happening == "torn")  # type: ignore[misc]
        if happening != "flush":
            worker = _started(lake, idle_us, grace_us)
        if happening in ("crash", "torn"):
            # Not committed: the whole batch comes again.
            for again in batch:
                worker.add(0, events_of(again))
            lake.write(worker.collect(lambda _, at=as_of_us: at))  # type: ignore[misc]
        batch = []
    lake.write(worker.collect(lambda _: newest_us))
    return lake


def _started(lake: MemoryLake, idle_us: int, grace_us: int) -> Assembler:
    worker = assembler(lake, idle_us, grace_us)
    worker.restore(0, lake.remember(lake.open_streams()))
    return worker


def shuffled(lines: Sequence[Line], seed: int, repeats: float = 0.0) -> list[Line]:
    """The lines in another order, some of them several times."""
    dice = random.Random(seed)
    found = [line for line in lines for _ in range(1 + (dice.random() < repeats))]
    dice.shuffle(found)
    return found


BUS_WORDS = (
    "DIALING", "INCOMING", "connecting", "accepting", "ringing", "connected", "hanging", "mandatoryTagging",
    "ended", "idle", "merging", "SYNC", "ringing/warmTransfer", "away",
)  # fmt: skip


def bus_line(
    word: str,
    seq: int,
    at_us: int,
    received_us: int,
    *,
    uuid: str | None = None,
    session: str | None = "s",
    agent: int = 7,
) -> dict[str, Any]:
    """A line of the bus: a status with its flow, or the beginning or the details of a call."""
    payload: dict[str, Any]
    if word in ("DIALING", "INCOMING"):
        kind, payload = f"DIALER.{word}", {"from": f"+331{seq:07d}", "to": f"+332{seq:07d}"}
        if uuid is not None and word == "INCOMING":
            payload["callUuid"] = uuid
    elif word == "SYNC":
        kind, payload = "DIALER.SYNC", {"metadata": {"callUuid": uuid, "from": f"+339{seq:07d}"}}
    elif word == "away":
        kind, payload = "USER.AVAILABILITY_CHANGED", {"status": "away", "updatedAt": at_us}
    else:
        status, _, flow = word.partition("/")
        kind, payload = "DIALER.CALL_STATUS", {"status": status, "flow": flow or "regular"}
    told = {"type": kind, "payload": payload}
    line: dict[str, Any] = {"provider": "aircall_bus", "received_at": instant.to_text(received_us)}
    if session is None:
        return line | {"query": {"agent_id": str(agent)}, "body": told}
    envelope = {"agent_id": agent, "session_id": session, "seq": seq, "sent_at": instant.to_text(at_us)}
    return line | {"body": envelope | {"event": told}}

"""Whom `forget` is about, as rows: which calls, which events of agents' streams, which webhooks.

What was forgotten before is found again by its hash, so that a run that was stopped, or something that came back by a
way of its own, is completed by the next run, whomever that one is about.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.lake import Lake
from pipeline.lake.erase import batches, files_of, schema_of
from pipeline.lake.rows import key_hash
from pipeline.model import FORGOTTEN, Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.providers import providers
from pipeline.traces import Traces

NUMBER_COLUMNS: Final = frozenset({"from_number", "to_number"})
OUR_HASHES: Final = frozenset({"event_id", "webhook_id"})
OF_CALLS: Final = ("calls", "call_revisions", "call_events")
_ID_COLUMNS: Final = ("call_key", "provider", "call_id", "provider_call_id", "parent_call_id", "key_hash")


@dataclass
class Found:
    """What is to go."""

    calls: set[str] = field(default_factory=set)
    """Call keys, those of the legs of these calls among them."""
    ids: set[str] = field(default_factory=set)
    """`provider:id` of these calls, by every id that the provider has for them."""
    events: set[str] = field(default_factory=set)
    """Event ids of agents' streams."""
    webhooks: set[str] = field(default_factory=set)
    """Webhook ids, also of the quarantine."""
    newest: dict[str, tuple[int, int, bool]] = field(default_factory=dict)
    """By call: revision and time of its newest row, and whether it was going on then."""

    @property
    def open_calls(self) -> list[str]:
        """Those of the calls that were going on when they were last written."""
        return sorted(call for call, (_, _, is_open) in self.newest.items() if is_open)

    def hashes(self) -> set[int]:
        """What `Forgotten` is to keep."""
        return {key_hash(key) for key in (*self.calls, *self.events, *self.webhooks)}


def agent_providers() -> frozenset[str]:
    """Providers whose calls are cut out of agents' streams."""
    return frozenset(name for name, provider in providers().items() if provider.keyed_by == "agent")


def is_in(column: pa.Array, values: Collection[object]) -> pa.Array:
    """Which values of the column are among these; NULL is not."""
    return pc.is_in(column, pa.array(list(values), column.type), skip_nulls=True)


def traced(batch: pa.RecordBatch, traces: Traces) -> pa.Array:
    """The rows with a trace in any column."""
    # The id of an event is a hash of our own, in which digits stand by chance.
    mask = traces.in_rows([column for name, column in named(batch) if name not in OUR_HASHES])
    for name, column in named(batch):
        if name in NUMBER_COLUMNS:
            mask = pc.or_(mask, traces.number_in_column(column))
    return mask


def named(batch: pa.RecordBatch) -> list[tuple[str, pa.Array]]:
    """The columns with their names."""
    return list(zip(batch.schema.names, batch.columns, strict=True))


class Finder:
    """Reads the lake for what is to go."""

    def __init__(self, lake: Lake, traces: Traces, gone: frozenset[int], normaliser: Normaliser) -> None:
        self._lake = lake
        self._traces = traces
        self._gone = gone
        self._normaliser = normaliser
        self._agents = agent_providers()

    def find(self, wanted: Collection[str]) -> Found:
        """The calls of these keys, and all that the numbers stand in."""
        found = Found(calls=set(wanted), ids=set(wanted))
        self._find_calls(found)
        self._find_events(found)
        self._find_webhooks(found)
        return found

    def _rows(self, *datasets: str) -> Iterator[tuple[str, pa.RecordBatch]]:
        for dataset in datasets:
            for file in files_of(self._lake, dataset):
                for batch in batches(self._lake, file, schema_of(dataset)):
                    yield dataset, batch

    def _find_calls(self, found: Found) -> None:
        is_first, before = True, -1
        # A leg names its parent, and may itself be one: until nothing is added.
        while len(found.ids) + len(found.calls) > before:
            before = len(found.ids) + len(found.calls)
            for dataset, batch in self._rows(*OF_CALLS):
                mask = self._of_calls(batch, found)
                if is_first:
                    mask = pc.or_(mask, traced(batch, self._traces))
                if pc.any(mask).as_py():
                    self._take(found, dataset, batch.filter(mask))
            is_first = False

    def _of_calls(self, batch: pa.RecordBatch, found: Found) -> pa.Array:
        mask = pc.or_(
            is_in(batch.column("call_key"), found.calls), is_in(batch.column("key_hash"), self._gone)
        )
        for name in ("parent_call_id", "provider_call_id"):
            told = pc.binary_join_element_wise(batch.column("provider"), batch.column(name), ":")
            mask = pc.or_(mask, is_in(told, found.ids))
        return mask

    @staticmethod
    def _take(found: Found, dataset: str, batch: pa.RecordBatch) -> None:
        names = [name for name in _ID_COLUMNS if name in batch.schema.names]
        for row in batch.select(names).to_pylist():
            if row["call_key"] is not None:
                found.calls.add(row["call_key"])
                own = (row["call_id"], row["provider_call_id"], row["call_key"].partition(":")[2])
                found.ids.update(f"{row['provider']}:{call_id}" for call_id in own if call_id)
        if dataset == "calls":
            columns = ("call_key", "revision", "published_at", "state", "is_retracted")
            for call, revision, at, state, is_retracted in zip(*_values(batch, columns), strict=True):
                row = (revision, at, state != "ended" and not is_retracted)
                found.newest[call] = max(found.newest.get(call, row), row)

    def _find_events(self, found: Found) -> None:
        """Events of agents' streams, by the call that each was last written under: borders may have moved."""
        mine: set[str] = set()
        for _, rows in self._rows("call_events"):
            batch = self._of_agents(rows)
            has_trace = pc.or_(traced(batch, self._traces), self._is_gone(batch.column("event_id")))
            found.events.update(batch.filter(has_trace).column("event_id").to_pylist())
            of_call = is_in(batch.column("call_key"), found.calls)
            mine.update(batch.filter(of_call).column("event_id").to_pylist())
        newest: dict[str, tuple[int, str | None]] = {}
        for _, rows in self._rows("call_events") if mine else ():
            batch = self._of_agents(rows)
            batch = batch.filter(is_in(batch.column("event_id"), mine))
            columns = ("event_id", "call_key", "published_at")
            for event_id, call, at_us in zip(*_values(batch, columns), strict=True):
                if event_id not in newest or at_us >= newest[event_id][0]:
                    newest[event_id] = (at_us, call)
        found.events |= {event_id for event_id, (_, call) in newest.items() if call in found.calls}

    def _is_gone(self, keys: pa.Array) -> pa.Array:
        """Which of these were forgotten before."""
        gone = self._gone
        return pa.array([bool(gone) and key_hash(key) in gone for key in keys.to_pylist()], pa.bool_())

    def _of_agents(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        is_theirs = is_in(batch.column("provider"), self._agents)
        is_left = pc.equal(batch.column("event_type"), FORGOTTEN)
        return batch.filter(pc.and_not(is_theirs, pc.fill_null(is_left, False)))

    def _find_webhooks(self, found: Found) -> None:
        own = {
            provider: Traces((), self._normaliser.privacy, ids) for provider, ids in _by_provider(found.ids)
        }
        for dataset, batch in self._rows("webhooks", "quarantine"):
            mask = traced(batch, self._traces)
            provider = batch.column("provider")
            for name, ids in own.items():
                # Whose a quarantined webhook is may not be known.
                is_theirs = pc.equal(provider, name) if dataset == "webhooks" else pc.is_valid(provider)
                mask = pc.or_(mask, pc.and_(is_theirs, traced(batch, ids)))
            webhook_ids = batch.column("webhook_id").to_pylist()
            hits = pc.or_(mask, self._is_gone(batch.column("webhook_id"))).to_pylist()
            if dataset == "webhooks" and (found.calls or found.events or self._gone):
                self._read_others(batch, hits, found)
            found.webhooks.update(w for w, is_hit in zip(webhook_ids, hits, strict=True) if is_hit)

    def _read_others(self, batch: pa.RecordBatch, hits: list[bool], found: Found) -> None:
        """Those that belong to a call without naming it as it is told: read as the stream reads them."""
        columns = _values(batch, ("provider", "body", "headers", "query", "received_at"))
        concerned = {key.partition(":")[0] for key in found.calls} | (self._agents if found.events else set())
        for place, (provider, body, headers, query, received_us) in enumerate(zip(*columns, strict=True)):
            if hits[place] or not (self._gone or provider in concerned):
                continue
            webhook = Webhook(
                provider, received_us, body.encode("utf-8", "replace"), _texts(headers), _texts(query)
            )
            events = self._normaliser.events(webhook)
            hits[place] = not isinstance(events, Rejection) and any(
                event.stream_key in found.calls
                or event.event_id in found.events
                or (bool(self._gone) and key_hash(event.stream_key) in self._gone)
                or (bool(self._gone) and key_hash(event.event_id) in self._gone)
                for event in events
            )


def _values(batch: pa.RecordBatch, names: Sequence[str]) -> list[list[Any]]:
    """Columns as values, instants as whole microseconds."""
    columns = (batch.column(name) for name in names)
    return [(c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c).to_pylist() for c in columns]


def _by_provider(ids: Collection[str]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for told in ids:
        provider, _, call_id = told.partition(":")
        found.setdefault(provider, []).append(call_id)
    return sorted(found.items())


def _texts(told: str | None) -> dict[str, str]:
    found: dict[str, str] = msgspec.json.decode(told) if told else {}
    return found

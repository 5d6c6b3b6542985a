"""Forget: erases a person, or single calls, from everything that the lake stores, and proves it.

Whole calls go, with their legs, their events and their webhooks: what is left of a call without its numbers would still
be this person's to whoever has seen it elsewhere. An event of an agent's stream leaves its place behind, without what
it said, because the calls beside it are cut by it.

First what is to go is written to the list of what is forgotten (`lake/forgotten.py`): from then on no sink brings it
back, and a run that was stopped is completed by the next one. Then the files are written anew, the old ones removed.
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CallfoldError, UserError
from pipeline.forget_find import Finder, Found, agent_providers, is_in
from pipeline.forget_prove import Proof, prove
from pipeline.lake import Lake
from pipeline.lake.compact import only_one
from pipeline.lake.erase import Change, Erased, datasets, erase, look_through, without
from pipeline.lake.forgotten import FOLDER, Forgotten
from pipeline.lake.removal import remove_noted
from pipeline.lake.rows import events_table
from pipeline.model import FORGOTTEN, CallEvent
from pipeline.normalise import Normaliser, Privacy
from pipeline.open_lake import open_lake
from pipeline.privacy import privacy_of
from pipeline.providers import provider_names, providers
from pipeline.settings import Settings
from pipeline.traces import Traces, numbers_of

WAIT_SECONDS: Final = 0.5
"""How often it is looked whether the readers' grace is over."""
_LEFT: Final = [
    "event_id", "provider", "stream_key", "at_source", "state", "provider_call_id", "cut", "session_id", "seq",
]  # fmt: skip
"""Columns that an emptied event keeps, besides its instants."""
TMP_SECONDS: Final = 60.0
"""Files that are not finished and older were left behind by a crash."""


class Wanted(NamedTuple):
    """Who is to be forgotten."""

    numbers: tuple[str, ...] = ()
    """Telephone numbers, however written."""
    calls: tuple[str, ...] = ()
    """Call keys."""


class Told(NamedTuple):
    """What was erased, or would be, and what is left of it."""

    found: Found
    erased: list[Erased]
    proof: Proof | None
    """None for a dry run."""


def forget(
    settings: Settings,
    wanted: Wanted,
    *,
    dry_run: bool = False,
    at_once: bool = False,
    force: bool = False,
    agreed: Callable[[Found, list[Erased]], None] = lambda found, erased: None,
    told_first: Callable[[Iterable[str]], None] = lambda calls: None,
    say: Callable[[str], None] = lambda line: None,
) -> Told:
    """Erases whatever the lake has of the numbers and calls. Idempotent; may be stopped anywhere and run again.

    `agreed` is asked once it is known what would go, and raises if it may not; `told_first` is given the call keys
    before any row is erased. `at_once` does not wait for readers of the old files. Raises UserError for what is no
    number or no call key, CallfoldError while a call is going on, unless `force`.
    """
    privacy = privacy_of(settings)
    traces = _traces(wanted, privacy)
    lake = Lake(settings.lake)
    if not lake.exists():
        raise UserError(f"no lake at {settings.lake} (name it with --lake)")
    lake = open_lake(settings.lake)
    with only_one(settings.lake, "compaction") as check:
        if not check:
            raise CallfoldError("the lake is being compacted at this moment: run it again when that is done")
        forgotten = Forgotten(lake)
        finder = Finder(lake, traces, forgotten.hashes(), Normaliser(providers(), privacy))
        found = finder.find(wanted.calls)
        changes = _changes(found, forgotten.hashes())
        looked = {name: look_through(lake, name, changes[name]) for name in datasets()}
        erased = [told for told, _ in looked.values()]
        if dry_run:
            return Told(found, erased, None)
        if found.open_calls and not force:
            raise CallfoldError(_going_on(found.open_calls))
        agreed(found, erased)
        # What is not there any more is remembered as well: an archive may hold it.
        forgotten.add(found.hashes())
        told_first(sorted(found.calls))
        names = [
            n for name, (_, held) in looked.items() for n in erase(lake, name, held, changes[name], check)
        ]
        _remove(lake, names, 0.0 if at_once else settings.compact_grace_seconds, say)
        lake.sweep(TMP_SECONDS)
        proof = prove(lake, _traces(wanted, privacy, found.ids), forgotten.hashes())
        _keep_account(lake, found, erased, proof)
    return Told(found, erased, proof)


def _traces(wanted: Wanted, privacy: Privacy, ids: Iterable[str] = ()) -> Traces:
    if wanted.numbers and privacy.numbers == "mask":
        raise UserError(
            "numbers are stored masked (privacy.numbers): four digits are not a person; "
            "name the calls with --call instead"
        )
    for key in wanted.calls:
        provider, _, call_id = key.partition(":")
        if provider not in provider_names() or not call_id:
            raise UserError(f"{key!r:.80} is no call key: it is provider:call_id, as in the column call_key")
    own = [told.partition(":")[2] for told in ids]
    return Traces(numbers_of(wanted.numbers, privacy.region), privacy, own)


def _going_on(calls: Iterable[str]) -> str:
    some = sorted(calls)
    more = f" and {len(some) - 3:,} more" if len(some) > 3 else ""
    return (
        f"{', '.join(some[:3])}{more} is still going on, and its next webhooks would come in all the same: wait for "
        "its end, or stop the collectors and workers and say --force, and run it again after its end"
    )


def _changes(found: Found, gone: frozenset[int]) -> dict[str, Change]:
    """What is taken out of each dataset."""
    hashes = gone | found.hashes()

    def calls(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        return without(
            batch,
            pc.or_(is_in(batch.column("call_key"), found.calls), is_in(batch.column("key_hash"), hashes)),
        )

    def webhooks(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        return without(batch, is_in(batch.column("webhook_id"), found.webhooks))

    return {
        "calls": calls,
        "call_revisions": calls,
        "call_events": partial(_without_events, found, hashes),
        "webhooks": webhooks,
        "quarantine": webhooks,
    }


def _without_events(
    found: Found, hashes: frozenset[int], batch: pa.RecordBatch
) -> tuple[pa.RecordBatch, int]:
    """Events of calls are dropped; those of agents' streams are emptied, and dropped where they stand a second time."""
    is_agents = is_in(batch.column("provider"), agent_providers())
    is_left = pc.fill_null(pc.equal(batch.column("event_type"), FORGOTTEN), False)
    of_call = pc.or_(is_in(batch.column("call_key"), found.calls), is_in(batch.column("key_hash"), hashes))
    emptied = pc.and_not(pc.and_(is_agents, is_in(batch.column("event_id"), found.events)), is_left)
    dropped = pc.and_not(pc.and_not(of_call, emptied), is_left)
    kept, count = without(batch, pc.or_(dropped, emptied))
    if pc.any(emptied).as_py():
        emptied_rows = _emptied(batch.filter(emptied))
        table = pa.Table.from_batches([kept, emptied_rows], batch.schema).combine_chunks()
        kept = table.to_batches()[0]
    return kept, count


def _emptied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """What the cut of an agent's stream into the other calls needs of these events, and no more."""
    rows = batch.select(_LEFT).to_pylist()
    at = batch.column("event_at").cast(pa.int64()).to_pylist()
    received = batch.column("received_at").cast(pa.int64()).to_pylist()
    left = [
        CallEvent(
            event_id=row["event_id"],
            provider=row["provider"],
            stream_key=row["stream_key"],
            event_type=FORGOTTEN,
            at_us=at[place],
            received_us=received[place],
            at_source=row["at_source"],
            state=row["state"],
            provider_call_id=_pseudonym(row["provider_call_id"]),
            cut=row["cut"],
            session_id=row["session_id"],
            seq=row["seq"],
        )
        for place, row in enumerate(rows)
    ]
    table = events_table([(event, None) for event in left], 0)
    place = table.schema.get_field_index("published_at")
    table = table.set_column(place, table.schema.field(place), batch.column("published_at"))
    return table.cast(batch.schema).combine_chunks().to_batches()[0]


def _pseudonym(provider_call_id: str | None) -> str | None:
    # Details that come late find their call by it; equal ids stay equal, and no id can be read from it.
    if provider_call_id is None:
        return None
    return (
        "forgotten-"
        + hashlib.blake2b(provider_call_id.encode("utf-8", "replace"), digest_size=16).hexdigest()
    )


def _remove(lake: Lake, names: list[str], grace_seconds: float, say: Callable[[str], None]) -> None:
    """Removes the old files once nobody can have them open any more."""
    old = [lake.root / name for name in names]
    if old and grace_seconds:
        say(f"waiting {grace_seconds:g} s for readers of {len(old):,} old files (--now removes them at once)")
    while grace_seconds and any(file.exists() for file in old):
        remove_noted(lake, grace_seconds)
        time.sleep(WAIT_SECONDS)
    for file in old:
        file.unlink(missing_ok=True)


def _keep_account(lake: Lake, found: Found, erased: list[Erased], proof: Proof) -> None:
    """When, and how much: nothing of whom."""
    now = datetime.now(UTC)
    told = {
        "at": now.isoformat(),
        "calls": len(found.newest),
        "rows": {one.dataset: one.rows for one in erased},
        "files_scanned": proof.files,
        "traces_left": proof.left,
    }
    folder = lake.root / FOLDER
    lake.store.lay_out(folder)
    lake.write_text(msgspec.json.encode(told).decode() + "\n", folder / f"{now:%Y%m%dT%H%M%S.%f}Z.json")

"""A lake of ninety days, ten million calls and 95 million events: a day folded by the real code, and its images.

    python benchmarks/big_lake.py FOLDER [--days 90] [--calls-a-day 111200]

The first day is `callfold simulate`'s, all five providers, folded by the real fold and written by the real sink at a
flush every ten seconds of the data's time, compacted by the real compaction as it goes. Its events come to ten a call,
as each is there again under another id. Each further day is that one under other ids and so many days later: the next
two in hot files that are compacted as well, the others straight in the layout that the compaction gave the first.
A folder that holds such a lake already is used as it is.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive import UnreadableLine, read_archive
from pipeline.durable import assembler_of
from pipeline.garbage import rarely_searched
from pipeline.lake import Lake, LakeHistory, LakeSink
from pipeline.lake.compact import compact
from pipeline.lake.files import SEALED_ONLY
from pipeline.lake.rows import key_hash
from pipeline.lake.schemas import SCHEMAS
from pipeline.lake.sealed import current_files, next_generation, publish, sealed_path, superseded
from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.normalise.redact import Privacy
from pipeline.open_lake import open_lake
from pipeline.providers import providers
from pipeline.settings import load_settings
from pipeline.simulate import generate
from pipeline.simulate.traffic import MONDAY

SEED = 1
FLUSH_US = 10_000_000
COMPACTED_US = 7_200_000_000
"""The first day is compacted every two hours of its time; every five minutes, as in life, would take long."""
GRACE_SECONDS = 86_400
"""Calls stay in memory all day: what is measured are the files, and no late event need look for its call in them."""
COMPACTED_DAYS = 3
"""Days that pass through the compaction."""
DAYS, CALLS_A_DAY = 90, 111_200
FIRST_DAY = MONDAY.date()
IDS = ("event_id", "call_key", "call_id", "stream_key", "provider_call_id", "parent_call_id")


class Made(NamedTuple):
    """What is in a lake, and how long it took to make."""

    calls: int
    events: int
    days: int
    hot_files_a_day: int
    seconds: float


def make(root: Path, calls_a_day: int, days: int, say: Callable[[str], None] = lambda text: None) -> Made:
    """The lake at `root`, made if it is not there yet."""
    note = root / "made.json"
    if note.exists():
        return Made(**json.loads(note.read_text("utf-8")))
    if root.exists() and any(root.iterdir()):
        raise SystemExit(f"{root} holds something else: name an empty folder")
    began = time.monotonic()
    say(f"the first day: {calls_a_day:,} calls")
    flushed = fold_day(root, calls_a_day)
    double_events(root)
    images = _Images(root)
    for number in range(1, days):
        say(f"day {number + 1} of {days}")
        images.write_day(number)
    for _ in range(2):
        compact(root, 0)  # carries open calls over under the images' manifests, and removes what came before
    for dataset in SCHEMAS | dict.fromkeys(SEALED_ONLY):
        for file in superseded(Lake(root), dataset):
            file.unlink()  # manifests that the images replaced, as a compaction with something to merge would
    with duckdb.connect() as connection:
        calls, events = (
            connection.execute(f"select count(*) from '{root}/{name}/sealed/date=*/*.parquet'").fetchall()[0][
                0
            ]
            for name in ("calls", "call_events")
        )
    made = Made(calls, events, days, flushed, round(time.monotonic() - began, 1))
    note.write_text(json.dumps(made._asdict()), "utf-8")
    return made


def fold_day(root: Path, calls: int) -> int:
    """Simulates, folds, writes and compacts one day; how many files its flushes wrote."""
    lake = open_lake(root)
    history, sink, normaliser = LakeHistory(lake), LakeSink(lake), Normaliser(providers(), Privacy())
    assembler = assembler_of(
        load_settings({"lake": str(root), "grace_seconds": GRACE_SECONDS}, environ={}), history
    )
    due_us = compacted_us = files = 0

    def flush(now_us: int) -> int:
        changes = assembler.collect(lambda _: now_us)
        sink.write_calls(changes.events, changes.records, changes.retracted, time.time_ns() // 1_000)
        history.note(key for key, _ in changes.records)
        return bool(changes.events) + bool(changes.records or changes.retracted)

    with rarely_searched():
        for webhook in _webhooks(root / "day.ndjson", calls):
            if webhook.received_us >= due_us:
                files += flush(webhook.received_us) if due_us else 0
                due_us = webhook.received_us + FLUSH_US
            if webhook.received_us >= compacted_us:
                compact(root, 0)
                compacted_us = webhook.received_us + COMPACTED_US
            found = normaliser.events(webhook)
            if not isinstance(found, Rejection):
                assembler.add(0, found)
        files += flush(due_us)
    for _ in range(2):
        compact(root, 0)
    return files


def double_events(root: Path) -> None:
    """Each event once more under another id, in hot files; all is compacted."""
    lake = Lake(root)
    for number, file in enumerate(current_files(lake, "call_events").values()):
        table = lake.read(file).select(SCHEMAS["call_events"].names)
        ids = pc.binary_join_element_wise(table["event_id"], "b", "")
        table = table.set_column(table.schema.get_field_index("event_id"), "event_id", ids)
        name = f"{time.time_ns() // 1_000:017d}-again{number}.parquet"
        lake.write(table.cast(SCHEMAS["call_events"]), lake.hot("call_events") / name)
    for _ in range(2):
        compact(root, 0)  # the second time removes what the first has merged


def _webhooks(file: Path, calls: int) -> Iterator[Webhook]:
    with file.open("wb") as archive:
        archive.writelines(line + b"\n" for line in generate(calls, SEED, days=1.0))
    for found in read_archive(file):
        if isinstance(found, UnreadableLine):
            raise SystemExit(f"the simulator's line cannot be read: {found}")
        yield found
    file.unlink()


class _Images:
    """The first day's sealed files, and how they become those of another day."""

    def __init__(self, root: Path) -> None:
        self._lake, self._root = Lake(root), root
        self._connection = duckdb.connect(config={"threads": 2})
        self._first = {
            dataset: {
                part: path
                for part, path in current_files(self._lake, dataset).items()
                if part.day == FIRST_DAY
            }
            for dataset in ("calls", "call_revisions", "call_events")
        }

    def write_day(self, number: int) -> None:
        """The image so many days later: in hot files that are compacted, or sealed as the first day is."""
        if number < COMPACTED_DAYS:
            for dataset in ("call_revisions", "call_events"):
                for path in self._first[dataset].values():
                    self._write_hot(dataset, self._image(dataset, path, number))
            compact(self._root, 0)
            return
        for dataset, paths in self._first.items():
            files = dict(current_files(self._lake, dataset))
            generation = next_generation(self._lake, dataset)
            for part, path in paths.items():
                image = part._replace(day=FIRST_DAY + timedelta(days=number))
                files[image] = sealed_path(self._lake, dataset, image, generation)
                table = self._image(dataset, path, number)
                generations = pa.array([generation] * len(table), pa.int64())
                self._lake.write(table.append_column("generation", generations), files[image])
                generation += 1
            publish(self._lake, dataset, files)

    def _write_hot(self, dataset: str, table: pa.Table) -> None:
        folder = self._lake.hot("calls" if dataset == "call_revisions" else dataset)
        self._lake.write(table, folder / f"{time.time_ns() // 1_000:017d}-image.parquet")

    def _image(self, dataset: str, path: Path, number: int) -> pa.Table:
        """A file's rows in their order, so many days later and under other ids."""
        schema = SCHEMAS["calls" if dataset == "call_revisions" else dataset]
        changed = {
            f.name: f"{f.name} + interval {number} day" for f in schema if pa.types.is_timestamp(f.type)
        }
        changed["date"] = f"cast(date + {number} as date)"
        changed |= {name: f"{name} || '{number:02x}'" for name in IDS if name in schema.names}
        # As good a number of 64 bits as the hash of the other key.
        changed["key_hash"] = f"xor(key_hash, {key_hash(str(number))}::ubigint)"
        replaced = ", ".join(f"{value} as {name}" for name, value in changed.items())
        table = self._connection.sql(
            f"select * replace ({replaced}) from read_parquet(?, hive_partitioning = false)",
            params=[str(path)],
        ).to_arrow_table()
        return table.select(schema.names).cast(schema)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calls-a-day", type=int, default=CALLS_A_DAY)
    parser.add_argument("--days", type=int, default=DAYS)
    options = parser.parse_args()
    made = make(options.folder, options.calls_a_day, options.days, lambda text: print(text, file=sys.stderr))
    print(f"{made.calls:,} calls, {made.events:,} events, {made.days} days, {made.seconds:,.0f} s")


if __name__ == "__main__":
    main()

"""Builds small lakes from the declared schemas, without any other part of the program."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from one_engine import engine

from pipeline.lake.schemas import CARRIED_CALLS, MANIFEST, SCHEMAS, sealed_schema
from pipeline.query.views import _references, _rooted, connect, models

Row = Mapping[str, Any]
DAY = datetime(2026, 3, 5, tzinfo=UTC)
FOLDERS = {
    "calls/hot": "calls",
    "calls/sealed": "calls",
    "call_revisions/sealed": "calls",
    **{
        f"{name}/{kind}": name
        for name in ("call_events", "webhooks", "quarantine")
        for kind in ("hot", "sealed")
    },
}


def at(clock: str, day: datetime = DAY) -> datetime:
    """An instant of the day: "09:21:19.5"."""
    hours, minutes, seconds = clock.split(":")
    return day + timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds))


def key_hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def call(call_id: str, **columns: Any) -> dict[str, Any]:
    """An ended, answered, completed root call of whippy, of a minute at nine; `columns` replace what is given."""
    start = columns.get("started_at", at("09:00:00"))
    row: dict[str, Any] = {
        "provider": "whippy",
        "call_id": call_id,
        "is_root": columns.get("parent_call_id") is None,
        "direction": "outbound",
        "channel": "phone",
        "state": "ended",
        "outcome": "completed",
        "end_trigger": "customer",
        "is_answered": True,
        "answered_by": "unknown",
        "is_transferred": False,
        "attempts": 1,
        "error_count": 0,
        "started_at": start,
        "time_source": "provider",
        "has_analysis": False,
        "first_event_at": start or at("09:00:00"),
        "last_event_at": max(at("10:00:00"), (start or DAY) + timedelta(minutes=1)),
        "event_count": 3,
        "revision": 3,
        "closed_by": "terminal",
        "published_at": at("12:00:00"),
        "is_retracted": False,
        **columns,
    }
    if row["state"] == "ended":
        row.setdefault("ended_at", (start or at("09:00:00")) + timedelta(minutes=1))
    row.setdefault("call_key", f"{row['provider']}:{call_id}")
    row.setdefault("date", (row["started_at"] or row["first_event_at"]).date())
    row.setdefault("key_hash", key_hash(row["call_key"]))
    row.setdefault("stream_key", row["call_key"])
    return row


class Lake:
    """A lake on disk that a test writes files into."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = 0
        for folder, dataset in FOLDERS.items():
            self.write(folder, [], name="0-schema.parquet", dataset=dataset)
        for name in (*SCHEMAS, "call_revisions"):
            manifest = self.root / name / "manifest" / "0-schema.parquet"
            manifest.parent.mkdir()
            pq.write_table(MANIFEST.empty_table(), manifest)

    def write(
        self, folder: str, rows: list[Row], name: str | None = None, dataset: str | None = None
    ) -> None:
        self._files += 1
        path = self.root / folder / (name or f"{self._files:017d}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        head, kind = "/".join(folder.split("/")[:2]), folder.split("/")[1]
        is_carried = any("unsealed_in" in row for row in rows)
        schema = CARRIED_CALLS if is_carried else SCHEMAS[dataset or FOLDERS[head]]
        generation = {"generation": self._files} if kind == "sealed" else {}
        if generation:
            schema = sealed_schema(schema)
        pq.write_table(pa.Table.from_pylist([dict(row) | generation for row in rows], schema=schema), path)
        if generation and name is None:
            self._let_count(folder.split("/", maxsplit=1)[0])

    def _let_count(self, dataset: str) -> None:
        """Every sealed file that was written so far counts."""
        rows = [
            {"version": self._files, "date": DAY.date(), "generation": generation}
            for generation in range(1, self._files + 1)
        ]
        manifest = self.root / dataset / "manifest" / f"{self._files:012d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST), manifest)

    def hot(self, *rows: Row) -> None:
        self.write("calls/hot", list(rows))

    def sealed(self, *rows: Row, day: date | None = None) -> None:
        self.write(f"calls/sealed/date={day or DAY.date()}", list(rows))

    def events_of(self, *rows: Row) -> None:
        """As many events for each of the calls as it says that it was folded from."""
        keys = [
            (row["call_key"], row["provider"], number) for row in rows for number in range(row["event_count"])
        ]
        self.write(
            "call_events/hot",
            [
                {"event_id": f"{key}#{number}", "call_key": key, "stream_key": key, "provider": provider}
                for key, provider, number in keys
            ],
        )

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with self.tables(sql) as connection:
            return connection.sql(sql).to_arrow_table().to_pylist()

    def tables(self, *sql: str) -> duckdb.DuckDBPyConnection:
        """A session with the views that these SELECTs name, each made once, as a table: a tenth of `connect`."""
        connection = engine().cursor()
        connection.execute("set timezone = 'UTC'")
        needed = set(re.findall(r"\w+", " ".join(sql)))
        for name, select in reversed(models().items()):
            needed |= _references(select) if name in needed else set()
        for name, select in models().items():
            if name in needed:
                connection.execute(f"create temp table {name} as {_rooted(select, str(self.root))}")
        return connection

    def column(self, sql: str) -> list[Any]:
        return [next(iter(row.values())) for row in self.rows(sql)]

    def connect(self) -> duckdb.DuckDBPyConnection:
        return connect(self.root)


@pytest.fixture
def make_lake(tmp_path: Path) -> Iterator[Callable[..., Lake]]:
    """Makes a lake; a name makes one more beside the first."""
    return lambda name="lake": Lake(tmp_path / name)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")

"""Every KPI view, row by row, against the oracle in plain Python: over simulated calls of all providers, and over
the same calls with their columns spoilt."""

import runpy
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from math import isclose
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from kpi_oracle import ORACLE, Row, data_quality

from pipeline.query.views import models
from pipeline.simulate import generate, truth

_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
CALLS = 2500
SHOWN = [*sorted(ORACLE), "data_quality"]
PUBLISHED = datetime(2026, 4, 1, tzinfo=UTC)
INSTANTS = [
    "queued_at",
    "ringing_at",
    "started_at",
    "answered_at",
    "ended_at",
    "first_event_at",
    "last_event_at",
]
MAY_BE_NULL = [
    "agent_id",
    "failure_reason",
    "end_trigger",
    "is_answered",
    "answered_by",
    "queued_at",
    "ringing_at",
    "started_at",
    "answered_at",
    "ended_at",
    "ring_seconds",
    "talk_seconds",
    "cost_total",
    "from_number",
    "to_number",
    "attempts",
    "is_transferred",
]


def _records(seed: int) -> list[Row]:
    lines = generate(CALLS, seed=seed, days=17, duplicates=0.05, shuffle=0.1, late=0.05, lose=0.03)
    records = truth(map(msgspec.json.decode, lines))
    for record in records:
        record |= {name: record[name] and datetime.fromisoformat(record[name]) for name in INSTANTS}
        record["date"] = date.fromisoformat(record["date"])
        _share_numbers(record)
    return records


def _share_numbers(record: Row) -> None:
    """Simulated callers call once: here they are a few hundred people, some of them masked."""
    for name in ("from_number", "to_number"):
        if record[name] is not None:
            person = sum(record[name].encode()) * 7 % 211
            record[name] = f"+1555010{person:04d}" if person % 10 else f"*******{person:04d}"


def _spoilt(records: list[Row]) -> list[Row]:
    """The same calls with values missing, swapped between calls, tied and turned round."""
    random = Random(5)
    spoilt = [dict(record) for record in records]
    for record in spoilt:
        if record["state"] != "ended":
            continue
        for name in MAY_BE_NULL:
            if random.random() < 0.08:
                record[name] = None
        for name in ("outcome", "is_answered", "direction", "is_transferred", "attempts", "answered_by"):
            if random.random() < 0.08:
                record[name] = random.choice(records)[name]
        if record["outcome"] is None:
            record["outcome"] = "unknown"
        if random.random() < 0.1:
            record["started_at"] = record["first_event_at"].replace(minute=0, second=0, microsecond=0)
        if random.random() < 0.05:
            record["cost_total"] = random.choice([-0.25, 0.0, 1e-9, 123456.789, float("nan"), float("inf")])
        if record["answered_at"] and random.random() < 0.1:
            record["answered_at"] = record["answered_at"] + timedelta(
                seconds=random.choice([-90, 0, 20, 60, 120])
            )
        record["date"] = (record["started_at"] or record["first_event_at"]).date()
    return spoilt


def _stored(record: Row, revision: int, **more: Any) -> Row:
    key = record["call_key"]
    bookkeeping = {"key_hash": _BUILDER["key_hash"](key), "stream_key": key, "is_retracted": False}
    return record | bookkeeping | {"revision": revision, "published_at": PUBLISHED} | more


class World:
    """A lake, the calls it holds, and what its views show of them."""

    def __init__(self, root: Path, records: list[Row]) -> None:
        self.lake, self.calls = _BUILDER["Lake"](root), records
        random = Random(9)
        self.revisions: Counter[str] = Counter()
        hot, sealed = [], []
        for record in records:
            earlier = random.choice([0, 0, 0, 1, 2])
            for number in range(earlier):
                is_open = number == 0 and earlier == 2
                state = "ringing" if is_open else record["state"]
                hot.append(_stored(record, number + 1, state=state, is_answered=None))
                self.revisions[record["call_key"]] += state == "ended"
            where = hot if earlier or record["state"] != "ended" or random.random() < 0.5 else sealed
            where.append(_stored(record, earlier + 1))
            # What compaction seals, it also keeps as a revision.
            self.revisions[record["call_key"]] += record["state"] == "ended"
        hot.append(_stored(records[0] | {"call_key": "whippy:never"}, 1) | {"is_retracted": True})
        self.lake.write("calls/hot", hot)
        self.lake.write("calls/sealed/date=2026-03-05", sealed)
        self.lake.write("call_revisions/sealed/date=2026-03-05", sealed)
        days = [records[0]["date"] + timedelta(days=number) for number in range(3)]
        self.quarantined = Counter({(days[0], "recho"): 2, (days[1], "whippy"): 1, (days[2], "recho"): 3})
        names = [(*key, number) for key, count in self.quarantined.items() for number in range(count)]
        self.lake.write(
            "quarantine/hot",
            [
                {"webhook_id": f"{name}", "provider": name[1], "date": name[0], "published_at": PUBLISHED}
                for name in names
            ],
        )

    @cached_property
    def shown(self) -> dict[str, list[Row]]:
        with self.lake.connect() as connection:
            return {view: _fetched(connection, view) for view in SHOWN}

    def expected(self, view: str) -> list[Row]:
        if view == "data_quality":
            return list(data_quality(self.calls, self.revisions, self.quarantined))
        return list(ORACLE[view](self.calls))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    records, made = _records(seed=23), dict[str, World]()

    def of(name: str) -> World:
        if name not in made:
            calls = records if name == "simulated" else _spoilt(records)
            made[name] = World(tmp_path_factory.mktemp(name) / "lake", calls)
        return made[name]

    return of


def _key(row: Row) -> str:
    return repr([(name, row[name]) for name in sorted(row) if not isinstance(row[name], float)])


def _same(shown: Any, expected: Any) -> bool:
    if isinstance(shown, float) and isinstance(expected, int | float):
        return isclose(shown, expected, rel_tol=1e-9, abs_tol=1e-6)
    return bool(shown == expected)


@pytest.mark.parametrize("view", SHOWN)
@pytest.mark.parametrize("kind", ["simulated", "spoilt"])
def test_a_view_shows_what_the_oracle_counts(world: Callable[[str], World], view: str, kind: str) -> None:
    made = world(kind)
    shown = made.shown[view]
    expected = sorted(made.expected(view), key=_key)
    assert shown
    assert len(shown) == len(expected)
    for row, right in zip(shown, expected, strict=True):
        wrong = {name: (row[name], right[name]) for name in right if not _same(row[name], right[name])}
        assert (wrong, row.keys() - right.keys()) == ({}, set()), _key(right)


@pytest.mark.parametrize("setting", ["timezone = 'Asia/Kathmandu'", "threads = 1"])
def test_neither_the_time_zone_nor_the_threads_change_a_digit(
    world: Callable[[str], World], setting: str
) -> None:
    spoilt = world("spoilt")
    with spoilt.lake.connect() as connection:
        connection.execute(f"set {setting}")
        assert {view: _fetched(connection, view) for view in SHOWN} == spoilt.shown


def _fetched(connection: Any, view: str) -> list[Row]:
    rows = connection.sql(f"select * from {view}").to_arrow_table().to_pylist()
    return sorted(({name: _in_utc(value) for name, value in row.items()} for row in rows), key=_key)


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def test_the_simulated_calls_hold_what_the_kpis_look_for(world: Callable[[str], World]) -> None:
    calls = world("simulated").calls
    assert len({call["provider"] for call in calls}) == 5
    counted = {
        "kpi_repeat_callers": "repeat_calls",
        "kpi_redial": "retries_answered",
        "kpi_transfer": "transferred",
        "kpi_cost": "costed_answered",
        "kpi_service_level": "answered_within",
        "kpi_week_over_week": "answered_before",
    }
    for view, column in counted.items():
        assert sum(row[column] for row in ORACLE[view](calls)) > 20, view


def test_every_kpi_has_its_oracle() -> None:
    assert {*ORACLE, "data_quality"} == {name for name in models() if name.startswith(("kpi_", "data_"))}

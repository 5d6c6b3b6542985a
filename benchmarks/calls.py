"""The calls that a program made of the webhooks, in a form in which all programs' calls can be compared."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from pipeline.query.values import rows_of
from pipeline.query.views import connect

COMPARED = ("outcome", "event_count", "talk_seconds")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Call = dict[str, Any]


def comparable_key(record: Call) -> str:
    """The call key; a call of the bus to which nothing gave an id is told by its agent and its start."""
    key = str(record["call_key"])
    if not key.startswith("aircall_bus:bus-"):
        return key
    started = record["started_at"]
    at = datetime.fromisoformat(started) if isinstance(started, str) else started
    return f"aircall_bus:{record['agent_id']}-{microseconds(at)}"


def microseconds(at: datetime) -> int:
    since = at - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def compared(record: Call) -> tuple[Any, ...]:
    """The columns that are compared, in their order; lengths to the millisecond."""
    values = (record[name] for name in COMPARED)
    return tuple(round(value, 3) if isinstance(value, float) else value for value in values)


def differences(wanted: dict[str, tuple[Any, ...]], found: dict[str, tuple[Any, ...]]) -> str | None:
    """What is wrong with the calls found, in one line; None if they are the same."""
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing or extra:
        return (
            f"{len(missing)} calls are missing and {len(extra)} are too many, such as {min(missing | extra)}"
        )
    wrong = sorted(key for key in wanted if wanted[key] != found[key])
    if wrong:
        key, names = wrong[0], ", ".join(COMPARED)
        return (
            f"{len(wrong)} calls differ, such as {key}: ({names}) is {found[key]} and should be {wanted[key]}"
        )
    return None


def calls_of_lake(lake: Path) -> dict[str, tuple[Any, ...]]:
    """The lake's calls by their comparable keys, ended or not."""
    with connect(lake) as connection:
        reader = connection.sql("from all_calls").to_arrow_reader()
        names = reader.schema.names
        rows = [dict(zip(names, row, strict=True)) for batch in reader for row in rows_of(batch)]
    return {comparable_key(row): compared(row) for row in rows}


def calls_of_files(folder: Path) -> dict[str, tuple[Any, ...]]:
    """A peer's calls: of each the row that has taken the most events."""
    with duckdb.connect() as connection:
        found = connection.execute(
            "select arg_max({'call_key': call_key, 'outcome': outcome, 'event_count': event_count,"
            " 'talk_seconds': talk_seconds::double}, event_count) from"
            " read_parquet(?, union_by_name = true) group by call_key",
            [f"{folder}/**/*.parquet"],
        ).fetchall()
    calls: list[Call] = [row[0] for row in found]
    return {call["call_key"]: compared(call) for call in calls}

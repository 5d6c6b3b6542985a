"""Which rows of the lake's files the views over calls show."""

import itertools
import random
import runpy
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]

SHOWN = "select call_key, revision, outcome from calls order by all"


def test_the_newest_revision_among_hot_files_is_shown(lake: Any) -> None:
    lake.hot(call("1", revision=3, outcome="failed"))
    lake.hot(call("1", revision=5, outcome="completed"), call("1", revision=4, outcome="unknown"))
    assert lake.rows(SHOWN) == [{"call_key": "whippy:1", "revision": 5, "outcome": "completed"}]


def test_one_row_in_two_hot_files_is_one_call(lake: Any) -> None:
    row = call("1")
    lake.hot(row)
    lake.hot(row)
    assert lake.column("select count(*) from calls") == [1]
    assert lake.column("select count(*) from call_revisions") == [1]


def test_of_two_rows_of_one_revision_the_later_published_is_right(lake: Any) -> None:
    lake.hot(call("1", outcome="failed", published_at=at("12:00:00")))
    lake.hot(call("1", outcome="busy", published_at=at("12:00:10")))
    assert lake.column("select outcome from calls") == ["busy"]


def test_a_newer_hot_row_wins_over_the_sealed_one(lake: Any) -> None:
    lake.sealed(call("1", revision=3, outcome="unknown"), call("2", revision=1))
    lake.hot(call("1", revision=4, outcome="completed"))
    assert lake.rows(SHOWN) == [
        {"call_key": "whippy:1", "revision": 4, "outcome": "completed"},
        {"call_key": "whippy:2", "revision": 1, "outcome": "completed"},
    ]


def test_a_sealed_row_wins_over_an_older_revision_published_again(lake: Any) -> None:
    lake.sealed(call("1", revision=4, outcome="completed", published_at=at("12:00:00")))
    lake.hot(call("1", revision=3, state="in_progress", outcome=None, published_at=at("13:00:00")))
    assert lake.rows(SHOWN) == [{"call_key": "whippy:1", "revision": 4, "outcome": "completed"}]
    assert lake.rows("select * from open_calls") == []


def test_the_same_row_sealed_and_still_hot_is_one_call(lake: Any) -> None:
    row = call("1")
    lake.sealed(row)
    lake.hot(row)
    lake.write("call_revisions/sealed/date=2026-03-05", [row])
    assert lake.column("select count(*) from calls") == [1]
    assert lake.column("select count(*) from call_revisions") == [1]


def test_a_call_is_open_until_its_latest_revision_has_ended(lake: Any) -> None:
    lake.hot(call("1", revision=1, state="ringing", outcome=None, closed_by=None, end_trigger=None))
    assert lake.column("select call_key from open_calls") == ["whippy:1"]
    assert lake.rows(SHOWN) == []
    lake.hot(call("1", revision=2))
    assert lake.rows("select * from open_calls") == []
    assert lake.column("select call_key from calls") == ["whippy:1"]


def test_a_retracted_call_is_in_neither_view(lake: Any) -> None:
    lake.sealed(call("1", revision=3))
    lake.hot(call("2", revision=1))
    lake.hot(call("1", revision=4, is_retracted=True), call("2", revision=2, is_retracted=True))
    assert lake.rows(SHOWN) == []
    assert lake.rows("select * from open_calls") == []
    assert lake.column("select max(revision) from call_revisions") == [1]


def test_revisions_come_from_hot_and_sealed_files(lake: Any) -> None:
    lake.write(
        "call_revisions/sealed/date=2026-03-05",
        [call("1", revision=1, state="ringing"), call("1", revision=2)],
    )
    lake.sealed(call("1", revision=2))
    lake.hot(call("1", revision=3))
    assert lake.column("select revision from call_revisions order by revision") == [1, 2, 3]


def test_an_event_is_shown_once_as_last_written(lake: Any) -> None:
    def event(event_id: str, raw_status: str, clock: str) -> dict[str, Any]:
        return {
            "event_id": event_id,
            "provider": "recho",
            "raw_status": raw_status,
            "published_at": at(clock),
        }

    lake.write("call_events/hot", [event("a", "old", "12:00:00"), event("a", "new", "12:00:01")])
    lake.write(
        "call_events/sealed/date=2026-03-05",
        [event("a", "older", "11:00:00"), event("b", "kept", "11:00:00")],
    )
    shown = lake.rows("select event_id, raw_status from call_events order by event_id")
    assert shown == [{"event_id": "a", "raw_status": "new"}, {"event_id": "b", "raw_status": "kept"}]


def test_a_webhook_is_shown_once(lake: Any) -> None:
    webhook = {
        "webhook_id": "w",
        "provider": "recho",
        "received_at": at("09:00:00"),
        "published_at": at("09:00:01"),
    }
    lake.write("webhooks/hot", [webhook, webhook])
    lake.write("webhooks/sealed/date=2026-03-05", [webhook, {**webhook, "webhook_id": "x"}])
    assert lake.column("select webhook_id from webhooks order by 1") == ["w", "x"]


def test_a_quarantined_webhook_leaves_once_it_is_resolved(lake: Any) -> None:
    webhook = {"webhook_id": "w", "code": "not_json", "body": b"\xff{", "is_resolved": False}
    lake.write("quarantine/sealed/date=2026-03-05", [{**webhook, "published_at": at("09:00:00")}])
    lake.write("quarantine/hot", [{**webhook, "webhook_id": "x", "published_at": at("09:00:00")}] * 2)
    assert lake.column("select webhook_id from quarantine order by 1") == ["w", "x"]
    assert lake.column("select body from quarantine") == [b"\xff{"] * 2
    lake.write("quarantine/hot", [{**webhook, "is_resolved": True, "published_at": at("10:00:00")}])
    assert lake.column("select webhook_id from quarantine") == ["x"]


def test_a_column_that_older_files_lack_is_null_there(lake: Any) -> None:
    lake.hot(call("1", cost_total=0.5))
    path = next(path for path in (lake.root / "calls/hot").glob("*.parquet") if "schema" not in path.name)
    pq.write_table(pq.read_table(path).drop_columns(["cost_total"]), path)
    assert lake.column("select cost_total from calls") == [None]


def test_a_carried_row_is_looked_for_in_the_sealed_files_of_any_other_manifest(lake: Any) -> None:
    lake.sealed(call("1", revision=4))
    checked = in_force(lake)
    lake.hot(call("2", revision=2, state="in_progress", unsealed_in=checked))
    assert lake.column("select call_key from all_calls order by 1") == ["whippy:1", "whippy:2"]
    # It ended and was sealed; whoever lists the hot files late, or reads a file that was brought back, has both.
    lake.sealed(call("2", revision=3))
    assert lake.rows("select call_key, revision from all_calls order by 1") == [
        {"call_key": "whippy:1", "revision": 4},
        {"call_key": "whippy:2", "revision": 3},
    ]
    # A number that two manifests had, because the first was removed, says nothing either.
    version = in_force(lake).partition("-")[0]
    lake.hot(call("1", revision=5, state="in_progress", unsealed_in=f"{version}-{'9' * 17}"))
    assert lake.column("select revision from all_calls where call_key = 'whippy:1'") == [5]


def in_force(lake: Any) -> str:
    """The newest manifest as carried rows name it."""
    manifest = max(
        (lake.root / "calls/manifest").glob("*.parquet"), key=lambda file: int(file.stem.split("-")[0])
    )
    rows = pq.read_table(manifest).to_pylist()
    return f"{rows[0]['version']}-{max(row['generation'] for row in rows)}" if rows else "0-0"


CHOICES = list(itertools.product("123", (1, 2, 3), ("12:00:00", "12:00:10", "12:00:20")))


@pytest.mark.parametrize("seed", range(12))
def test_of_hot_and_sealed_rows_the_furthest_counts_whatever_there_is(lake: Any, seed: int) -> None:
    dice = random.Random(seed)

    def rows(count: int, retracted: float = 0) -> list[dict[str, Any]]:
        return [
            call(
                key,
                revision=revision,
                published_at=at(clock),
                is_retracted=dice.random() < retracted,
                from_number=f"{dice.random()}",
            )
            for key, revision, clock in dice.sample(CHOICES, count)
        ]

    sealed = list({row["call_key"]: row for row in rows(dice.randrange(4))}.values())
    revisions = list({(row["call_key"], row["revision"]): row for row in rows(6)}.values())
    hot = rows(dice.randrange(1, 7), retracted=0.3)
    for row in sealed:
        lake.sealed(row)
    lake.write("call_revisions/sealed/date=2026-03-05", revisions)
    # What a compaction says of rows that it carried over may be true, or of another manifest, or not said.
    checked, is_sealed = in_force(lake), {row["call_key"] for row in sealed}
    for row in hot:
        said = ["7-7", None] if row["call_key"] in is_sealed else ["7-7", None, checked, checked]
        lake.hot(row | {"unsealed_in": dice.choice(said)})

    def shown(wins: Any, *kinds: list[dict[str, Any]], key: Any) -> list[str]:
        newest: dict[Any, dict[str, Any]] = {}
        for row in itertools.chain(*kinds):
            held = newest.get(key(row))
            if held is None or wins(row) > wins(held):
                newest[key(row)] = row
        return sorted(row["from_number"] for row in newest.values() if not row["is_retracted"])

    # Hot first: of two rows that are as far on, the hot one is shown.
    found = lake.column("select from_number from all_calls order by 1")
    assert found == shown(_furthest, hot, sealed, key=itemgetter("call_key"))
    found = lake.column("select from_number from call_revisions order by 1")
    assert found == shown(itemgetter("published_at"), hot, revisions, key=itemgetter("call_key", "revision"))


def _furthest(row: dict[str, Any]) -> Any:
    return row["revision"], row["published_at"]

"""The judge: whether what is in the lake and on the topics is what the accepted webhooks must come to.

The oracle is `pipeline.simulate.truth`, which shares no code with what is judged. It is given the webhooks found
in the lake, since an attempt may have been stored though its sender was never told.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from history import BUS, Archive, History
from topic_log import Place, TopicLog
from traffic import ACCEPTED, Traffic

from pipeline.query.values import rows_of
from pipeline.query.views import again, connect
from pipeline.simulate import truth

SHOWN = 12
"""Differences told of each kind; a hundred more say nothing new."""

Row = dict[str, Any]


class Stored:
    """The views of the lake, read once."""

    def __init__(self, lake: Path) -> None:
        with connect(lake) as connection:

            def rows(sql: str) -> list[Row]:
                reader = connection.sql(sql).to_arrow_reader()
                names = reader.schema.names
                return [dict(zip(names, row, strict=True)) for batch in reader for row in rows_of(batch)]

            self.webhooks = rows("select provider, received_at, query from webhooks")
            self.quarantine = rows("select query from quarantine")
            self.calls = rows("from all_calls")
            self.events = rows("select event_id, call_key, stream_key, received_at from call_events")
            self.revisions = rows("select call_key, revision from call_revisions")


def attempt_of(row: Row) -> str:
    """The name of the attempt that a stored webhook is."""
    return str(msgspec.json.decode(row["query"]).get("chaos"))


def judge(
    lake: Path,
    traffic: Traffic,
    log: TopicLog,
    vanished: dict[str, float],
    *,
    idle_seconds: float,
    are_all_closed: bool,
) -> list[str]:
    """Everything that is wrong after a round, told in words; nothing if all is right.

    `vanished` are the calls that a reader saw, and then did not see, with the second at which that was;
    `are_all_closed` says that calls without an end have been given the time to be closed by timeout.
    """
    stored = Stored(lake)
    archive = as_archive(stored, traffic)
    expected = {
        record["call_key"]: record
        for record in truth(archive.values(), idle_seconds, close_open=are_all_closed)
    }
    found = {row["call_key"]: row for row in stored.calls}
    history = History(archive, log, idle_seconds)
    checks = (
        webhooks_once(stored, traffic),
        never_refused(traffic),
        quarantine_right(stored, traffic),
        calls_true(stored, expected, streams_out_of_order(log), is_bus_cut_short=are_all_closed),
        events_right(stored, found, log),
        revisions_once(stored, found),
        records_right(found, log),
        (
            f"reader: {key} was not to be seen at {at:.1f} s, and is a call"
            for key, at in vanished.items()
            if key in expected and not history.was_gone(key)
        ),
    )
    return [problem for check in checks for problem in first_few(check)]


def first_few(problems: Iterator[str]) -> list[str]:
    """The first differences, and how many more there are."""
    every = list(problems)
    return every[:SHOWN] + ([f"… and {len(every) - SHOWN} more like it"] if len(every) > SHOWN else [])


def as_archive(stored: Stored, traffic: Traffic) -> Archive:
    """The stored webhooks as they were sent, each with its time of receipt."""
    archive: Archive = {}
    for row in stored.webhooks:
        name = attempt_of(row)
        sending = traffic.sendings[int(name.partition(".")[0])]
        if not sending.is_garbage:
            archive[name] = {"query": {}} | sending.told | {"received_at": row["received_at"]}
    return archive


def webhooks_once(stored: Stored, traffic: Traffic) -> Iterator[str]:
    """Every accepted attempt is there once, one that was not at most once, and nothing that was never sent."""
    there = Counter(map(attempt_of, stored.webhooks))
    for name in sorted(traffic.accepted() - there.keys()):
        yield f"webhook {name} was accepted and is not in the lake"
    for name, count in there.items():
        if count > 1:
            yield f"webhook {name} is in the lake {count} times"
        if name not in traffic.answers:
            yield f"webhook {name} is in the lake and was never sent"


def never_refused(traffic: Traffic) -> Iterator[str]:
    """A collector that runs takes everything: where Kafka is away, its spool is there."""
    for name, answer in traffic.answers.items():
        if answer not in {ACCEPTED, None}:
            yield f"webhook {name} was answered {answer}"


def quarantine_right(stored: Stored, traffic: Traffic) -> Iterator[str]:
    """Garbage is in quarantine once, and nothing else is."""
    there = Counter(map(attempt_of, stored.quarantine))
    garbage = {
        name
        for name in map(attempt_of, stored.webhooks)
        if traffic.sendings[int(name.partition(".")[0])].is_garbage
    }
    for name in sorted(garbage | there.keys()):
        if there[name] != (name in garbage):
            yield f"webhook {name} is {'garbage' if name in garbage else 'none'} and in quarantine {there[name]} times"


def streams_out_of_order(log: TopicLog) -> set[str]:
    """Streams of which an event arrived before one that had been received earlier.

    A retried delivery, or a clock that was set, can do that; the revision may then be higher than the events say.
    """
    newest: dict[str, int] = {}
    found = set()
    seen: dict[str, int] = {}
    places: dict[str, Place] = {}
    for place, event in log.events():
        if seen.get(event.event_id, event.received_us + 1) <= event.received_us:
            continue
        seen[event.event_id] = event.received_us
        stream = event.stream_key
        # While a broker was away another partition took its webhooks: nobody knows in which order they were read.
        if event.received_us < newest.get(stream, 0) or places.setdefault(stream, place) != place:
            found.add(stream)
        newest[stream] = max(event.received_us, newest.get(stream, 0))
    return found


def calls_true(
    stored: Stored, expected: dict[str, Row], disordered: set[str], *, is_bus_cut_short: bool
) -> Iterator[str]:
    """Every true call is there once and equal in every column, and no other is.

    `is_bus_cut_short`: agents' streams are cut at pauses of seconds, so that a late event may take others away from
    a call that was published with them.
    """
    loose = {event["call_key"] for event in stored.events if event["stream_key"] in disordered}
    if is_bus_cut_short:
        loose |= {key for key in expected if key.startswith(f"{BUS}:")}
    there = Counter(row["call_key"] for row in stored.calls)
    for key, count in there.items():
        if count > 1:
            yield f"{key} is in the lake {count} times"
        if key not in expected:
            yield f"{key} is in the lake and never was"
    for key in sorted(expected.keys() - there.keys()):
        yield f"{key} is not in the lake"
    for row in stored.calls:
        key = row["call_key"]
        for column, value in expected.get(key, {}).items():
            if same(row[column], value):
                continue
            # It never goes down, whatever receipts out of order make of it.
            if column == "revision" and key in loose:
                continue
            yield f"{key}: {column} is {row[column]!r} and should be {value!r}"


def same(found: Any, true: Any) -> bool:
    """Equal, lengths of time to the microsecond."""
    if isinstance(true, float) and isinstance(found, int | float):
        return abs(found - true) < 1e-6
    return bool(found == true)


def events_right(stored: Stored, found: dict[str, Row], log: TopicLog) -> Iterator[str]:
    """One row for each event of the webhooks on Kafka, and as many of each call as its record says."""
    there = Counter(row["event_id"] for row in stored.events)
    sent = {event.event_id for _, event in log.events()}
    for event_id in sorted(sent ^ there.keys()):
        yield f"event {event_id} is {'not in the lake' if event_id in sent else 'in the lake and on no topic'}"
    for event, count in there.items():
        if count > 1:
            yield f"event {event} is in the lake {count} times"
    counts = Counter(row["call_key"] for row in stored.events if row["call_key"] is not None)
    for key in sorted(counts.keys() | found.keys()):
        told = found[key]["event_count"] if key in found else 0
        if counts[key] != told:
            yield f"{key}: {counts[key]} rows in call_events, and its event_count is {told}"


def revisions_once(stored: Stored, found: dict[str, Row]) -> Iterator[str]:
    """No revision is told twice, and the newest is the call's."""
    newest: dict[str, int] = {}
    for (key, revision), count in Counter((r["call_key"], r["revision"]) for r in stored.revisions).items():
        newest[key] = max(revision, newest.get(key, 0))
        if count > 1:
            yield f"{key}: revision {revision} is in call_revisions {count} times"
    for key, row in found.items():
        if newest.get(key) != row["revision"]:
            yield f"{key}: its revision is {row['revision']}, the newest of call_revisions {newest.get(key)}"


def records_right(found: dict[str, Row], log: TopicLog) -> Iterator[str]:
    """On `call-records` the highest revision of a call is the lake's; one that never was ends in a tombstone."""
    best: dict[str | None, Row] = {}
    last: dict[str | None, Row | None] = {}
    for entry in log.in_order(log.records_topic):
        last[entry.key] = entry.told
        if entry.told and entry.told["revision"] >= best.get(entry.key, entry.told)["revision"]:
            best[entry.key] = entry.told
    for key, record in last.items():
        if (record is None) == (key in found):
            yield f"{key}: its last message is {'a tombstone' if record is None else 'a record'} on call-records"
    for key, row in found.items():
        if best.get(key) != row:
            told = best.get(key) or {}
            other = [name for name in row if told.get(name) != row[name]]
            yield f"{key}: on call-records its highest revision differs in {', '.join(other)}"


def durable_before_committed(lake: Path, log: TopicLog) -> list[str]:
    """Whether everything below the committed offsets, read first, is in the lake."""
    committed: dict[Place, int] = log.committed()
    log.read_to(committed)
    if not (lake / "views.sql").exists():
        return ["there is no lake, but offsets are committed"] if any(committed.values()) else []
    with connect(lake) as connection:

        def column(sql: str) -> list[str]:
            # As the README tells analysts: once more if a file that was merged is gone since it was listed.
            return [value for (value,) in again(lambda: connection.execute(sql).fetchall())]

        webhooks = {attempt_of({"query": query}) for query in column("select query from webhooks")}
        events = set(column("select event_id from call_events"))
    missing = [
        f"webhook {entry.told} is below the committed offset and not in the lake"
        for entry in log.below(log.webhook_topics, committed)
        if entry.told not in webhooks
    ]
    missing += [
        f"event {event.event_id} of webhook {entry.told} is below the committed offset and not in the lake"
        for entry in log.below(log.webhook_topics, committed)
        if entry.is_home
        for event in entry.events
        if event.event_id not in events
    ]
    missing += [
        f"event {entry.told['event_id']} is below the committed offset and not in the lake"
        for entry in log.below([log.events_topic], committed)
        if entry.told["event_id"] not in events
    ]
    return first_few(iter(missing))

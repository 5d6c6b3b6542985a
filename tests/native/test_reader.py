"""The compiled reader gives the events that Python's reader and normaliser give, and says what it leaves to them."""

import json
import random
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from bent_webhooks import SIGNATURE, SIGNATURES, archived, bent, simulated

from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.normalise.credentials import without_credentials
from pipeline.providers import provider_names, providers
from pipeline.stream.messages import WebhookReader
from pipeline.topic_names import home_partition

native = pytest.importorskip("pipeline.native._native")
NAMES = provider_names()
COMPILED = ("aircall_bus", "freeclimb")
OWN = ("our-own-secret",)
NORMALISER = Normaliser(providers(), Privacy(own_secrets=OWN))


def clean(text: str) -> str:
    return without_credentials(text, OWN)


def iso(us: int) -> bytes:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()


def record_of(webhook: Webhook) -> SimpleNamespace:
    """The record that the collector makes of it."""
    headers = [("provider", webhook.provider.encode()), ("received-at", iso(webhook.received_us))]
    if webhook.query:
        headers.append(("query", json.dumps(webhook.query).encode()))
    headers += [(f"http.{name}", value.encode()) for name, value in webhook.headers.items()]
    return SimpleNamespace(value=webhook.body, headers=headers, timestamp=webhook.received_us // 1000)


def told(events: Sequence[CallEvent]) -> list[str]:
    """`repr`, so that 0, 0.0 and False are three things."""
    return [repr(event) for event in events]


def in_python(webhooks: Sequence[Webhook]) -> tuple[list[CallEvent], int]:
    events: list[CallEvent] = []
    others = 0
    for webhook in webhooks:
        found = NORMALISER.events(webhook)
        assert not isinstance(found, Rejection), found
        events += found
        others += not found
    return events, others


def check(found: Any, webhooks: Sequence[Webhook]) -> int:
    """How many of the webhooks were read; of those the events are Python's."""
    events, left = found
    assert left == sorted(set(left))
    taken = [webhook for place, webhook in enumerate(webhooks) if place not in set(left)]
    expected, others = in_python(taken)
    assert told(events.to_python()) == told(expected)
    assert (len(events), events.others) == (len(expected), others)
    assert events.unknown == sum(event.is_unknown for event in expected)
    assert events.newest_us == max((event.received_us for event in expected), default=None)
    return len(taken)


def check_records(reader: Any, provider: str, records: list[Any]) -> int:
    return check(reader.read(records), [WebhookReader(provider).webhook(record) for record in records])


@pytest.mark.parametrize("provider", NAMES)
def test_undisturbed_traffic_is_read(provider: str, tmp_path: Path) -> None:
    webhooks = simulated(provider, 600, 5, tmp_path)
    assert len(webhooks) > 100
    reader = native.Reader(provider, clean, OWN)
    read = check_records(reader, provider, [record_of(webhook) for webhook in webhooks])
    assert read == check(reader.read_webhooks(webhooks), webhooks)
    if provider in COMPILED:
        assert read > 0.99 * len(webhooks)


INSTANTS = (
    *(b"2026-05-12T09:00:00.000000Z", b"2026-05-12T09:00:00.999999Z", b"2099-12-31T23:59:59.999999Z"),
    *(b"2026-05-12T09:00:00.000Z", b"2026-05-12T09:00:00Z", b"2026-05-12 09:00:00.000000Z", b"", None, b"\xff" * 27),
    *(b"2026-05-12T09:00:60.000000Z", b"2026-02-29T09:00:00.000000Z", b"1999-12-31T23:59:59.999999Z", b"1778576400"),
    *(b"2026-05-12T09:00:00.00000+Z", b"2026-05-12T09:00:00.000000z", b"2026-05-12T09:00:00,000000Z", b"yesterday"),
    *(b"2026-05-12T09:00:00.12+01:00", b"2026-05-12T09:00:00.00+01:0", "2026-05-12T09:00:00.00000٣Z".encode()[:27]),
)  # fmt: skip
TIMESTAMPS = (None, 0, -1, 1778576400000, 1778576400, 2**53, -(2**53))
HEADERS: tuple[tuple[str, bytes | None], ...] = (
    *(("query", b'{"agent_id":"7"}'), ("query", b"\xff{"), ("query", None), ("provider", b"nobody"), ("x", None)),
    *(("http.x", b"\xff"), ("", b""), ("http.", b"1"), ("HTTP.x", b"1"), ("Received-At", INSTANTS[0]), ("é", b"1")),
    *(("http.received-at", INSTANTS[0]), ("received-at", INSTANTS[1])),
    *((f"{start}{SIGNATURE}", told.encode()) for start in ("http.", "", "http.http.") for told in SIGNATURES),
    *((f"http.{SIGNATURE.upper()}", b"t=1778576401"), (f"HTTP.{SIGNATURE}", b"t=1778576402")),
    *((SIGNATURE.title(), b"t=1778576403"), (f"http.{SIGNATURE}", None), (f"http.{SIGNATURE}", b"t=\xff")),
    *((f"http.{SIGNATURE}", b"t=1778576404,\xff"), ("http.K\u212a\u0130", b"1")),
)  # fmt: skip


def odd_record(webhook: Webhook, dice: random.Random) -> SimpleNamespace:
    """A record that somebody else produced, or nobody."""
    record = record_of(webhook)
    if dice.random() < 0.4:
        record.headers = [header for header in record.headers if dice.random() < 0.7]
    for _ in range(dice.choice([0, 0, 1, 2, 4])):
        record.headers.insert(dice.randrange(len(record.headers) + 1), dice.choice(HEADERS))
    if dice.random() < 0.3:
        record.headers.append(("received-at", dice.choice(INSTANTS)))
    record.headers = dice.choice([list, list, tuple])(record.headers)
    if dice.random() < 0.05:
        record.headers = dice.choice([None, (), []])
    if dice.random() < 0.3:
        record.timestamp = dice.choice(TIMESTAMPS)
    if dice.random() < 0.05:
        record.value = dice.choice([None, b"", b"\xff", b"{}", b"[]"])
    return record


@pytest.mark.parametrize("provider", NAMES)
def test_odd_records_are_read_alike_or_left(provider: str) -> None:
    dice, reader, read = random.Random(f"odd {provider}"), native.Reader(provider, clean, OWN), 0
    for _ in range(120):
        webhooks = [dice.choice(archived(provider)) for _ in range(12)]
        webhooks = [bent(webhook, dice) if dice.random() < 0.2 else webhook for webhook in webhooks]
        # The collector's form of an instant has no other years.
        webhooks = [w for w in webhooks if 0 <= w.received_us < 2**53]
        read += check_records(reader, provider, [odd_record(webhook, dice) for webhook in webhooks])
    assert provider not in COMPILED or read > 300


@pytest.mark.parametrize("provider", NAMES)
def test_odd_webhooks_are_read_alike_or_left(provider: str) -> None:
    dice, reader = random.Random(f"webhooks {provider}"), native.Reader(provider, clean, OWN)
    webhooks = [bent(dice.choice(archived(provider)), dice) for _ in range(1_000)]
    read = check(reader.read_webhooks(webhooks), webhooks)
    assert provider not in COMPILED or read > 100


def test_webhooks_of_others_are_left() -> None:
    ours, others = archived("freeclimb")[:5], archived("recho")[:5]
    _, left = native.Reader("freeclimb", clean, OWN).read_webhooks([*others, *ours])
    assert set(range(5)) <= set(left) < set(range(10))


def test_of_an_unknown_provider_everything_is_left() -> None:
    webhooks = [msgspec.structs.replace(webhook, provider="nobody") for webhook in archived("freeclimb")]
    reader = native.Reader("nobody", clean, OWN)
    for found in (reader.read_webhooks(webhooks), reader.read([record_of(webhook) for webhook in webhooks])):
        events, left = found
        assert (len(events), events.others, events.newest_us, left) == (
            0,
            0,
            None,
            list(range(len(webhooks))),
        )


@pytest.mark.parametrize(
    "record",
    [
        SimpleNamespace(),
        SimpleNamespace(value=b"{}", headers=5),
        SimpleNamespace(value="{}", headers=[("received-at", INSTANTS[0])]),
        SimpleNamespace(value=b"{}", headers=[("received-at", "2026-05-12T09:00:00.000000Z")]),
        SimpleNamespace(value=b"{}", headers=[["received-at", INSTANTS[0]]]),
        SimpleNamespace(value=b"{}", headers=[("received-at", INSTANTS[0], 1)]),
        SimpleNamespace(value=b"{}", headers=[("\ud800", b""), ("received-at", INSTANTS[0])]),
        None,
    ],
)
def test_what_is_no_record_is_left(record: Any) -> None:
    good = record_of(next(webhook for webhook in archived("freeclimb") if webhook.headers))
    events, left = native.Reader("freeclimb", clean, OWN).read([good, record, good])
    assert (len(events), left) == (2, [1])


def ended(reason: str | None = None, url: str | None = None) -> Webhook:
    body = {"callId": "c", "requestType": "callStatus", "callStatus": "failed"}
    body |= {"callEndedReason": reason} if reason is not None else {}
    body |= {"recordingUrl": url} if url is not None else {}
    return Webhook("freeclimb", 1_778_576_400_000_000, json.dumps(body).encode())


def test_texts_of_the_senders_hold_no_credentials() -> None:
    texts = [
        "failed",
        "token=abcdefgh1234",
        f"it is {OWN[0]}!",
        "x" * 900 + " secret: abcdefgh",
        "é: bearer abcdefgh",
    ]
    urls = ["https://u:pass@host/x?sig=abcdefgh", "https://host/x", OWN[0]]
    webhooks = [*map(ended, texts), *(ended(url=url) for url in urls), ended(texts[1], urls[0])] * 2
    reader = native.Reader("freeclimb", clean, OWN)
    assert check(reader.read_webhooks(webhooks), webhooks) == len(webhooks)
    found = repr(reader.read_webhooks(webhooks)[0].to_python())
    assert "abcdefgh" not in found
    assert OWN[0] not in found


def test_where_the_cleaning_fails_the_webhook_is_left() -> None:
    def broken(text: str) -> str:
        raise LookupError(text)

    for fails in (broken, lambda _: 5):
        ringing = {"callId": "c", "requestType": "callStatus", "callStatus": "ringing"}
        other = Webhook("freeclimb", 1_778_576_400_000_000, json.dumps(ringing).encode())
        webhooks = [ended("token: internalError"), other, ended(url="https://host/x?key=y"), ended("busy")]
        events, left = native.Reader("freeclimb", fails).read_webhooks(webhooks)
        assert (len(events), left) == (2, [0, 2])

    def interrupted(text: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        native.Reader("freeclimb", interrupted).read_webhooks([ended("token: internalError")])


def some_events() -> list[CallEvent]:
    return [event for name in NAMES for event in in_python(ordinary(name))[0]]


def ordinary(provider: str) -> list[Webhook]:
    return [w for w in archived(provider) if not isinstance(NORMALISER.events(w), Rejection)]


def test_events_go_there_and_back_and_together() -> None:
    events = some_events()
    found = native.Events.of(events)
    assert told(found.to_python()) == told(events)
    assert (len(found), found.others) == (len(events), 0)
    more, _ = native.Reader("freeclimb", clean, OWN).read_webhooks(ordinary("freeclimb"))
    both = told(events) + told(more.to_python())
    found.extend(more)
    assert told(found.to_python()) == both
    assert (len(more), more.others, more.newest_us) == (0, 0, None)
    assert (len(native.Events.of([])), native.Events.of([]).newest_us) == (0, None)


def test_what_is_no_event_is_an_error() -> None:
    event = some_events()[0]
    with pytest.raises(TypeError):
        native.Events.of([msgspec.structs.replace(event, at_us="x")])
    with pytest.raises(TypeError):
        native.Events.of([msgspec.structs.replace(event, errors=(5,))])
    with pytest.raises(OverflowError):
        native.Events.of([msgspec.structs.replace(event, at_us=2**70)])
    with pytest.raises(AttributeError):
        native.Events.of([None])


@pytest.mark.parametrize("partitions", [1, 4, 7])
def test_events_are_split_by_their_home(partitions: int) -> None:
    events = some_events()
    for number in range(partitions):
        found = native.Events.of(events)
        strays = found.split(partitions, number)
        at_home = [home_partition(event.stream_key.encode(), partitions) == number for event in events]
        assert told(found.to_python()) == told([e for e, home in zip(events, at_home, strict=True) if home])
        assert told(strays) == told([e for e, home in zip(events, at_home, strict=True) if not home])
        assert all(zlib.crc32(event.stream_key.encode()) % partitions != number for event in strays)
    with pytest.raises(ZeroDivisionError):
        native.Events.of(events).split(0, 0)

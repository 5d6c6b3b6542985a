"""Real payloads, broken in every way: nothing raises, nothing is `internal_error`, and what comes out can be stored."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.archive import read_archive
from pipeline.assemble.cut import fold_stream
from pipeline.assemble.fold import fold
from pipeline.lake.rows import calls_table, events_table, webhooks_table
from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.providers import providers
from pipeline.stream.messages import event_from, event_message

NAMES = tuple(providers())
NORMALISER = Normaliser(providers(), Privacy("mask"))
SENDERS_FAULT = {"empty_body", "bad_encoding", "not_json", "too_deep", "bad_shape", "missing_field"}
IDLE_US = 14_400_000_000

ODD: list[Any] = [
    *(None, True, False, 0, -1, 7.5, 1e308, -1e15, 999_999_999_999_999, 10**30, 2**63, -(2**63)),
    *(
        "",
        " ",
        "x",
        "12",
        "-5",
        "1e999",
        "nan",
        "0x10",
        "1_000",
        "٣",
        "\x00",
        "\ud800",
        "a\ud83d",
        "x" * 3000,
    ),
    *("2026-13-45T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01", "2026-05-12", "20260512", "P1D"),
    *([], {}, [None], [[]], {"a": None}, ["+15551234567"], {"id": "c1"}, [{"code": []}, 5, None]),
    *(float("nan"), float("inf"), json.loads("[" * 300 + "]" * 300)),
    *(
        "finished",
        "ongoing",
        "call.ended",
        "OUTBOUND_CALL_ERROR",
        "connected",
        "merging",
        "completed",
        "warmTransfer",
    ),
]


def _archived(provider: str) -> list[Webhook]:
    files = sorted((Path(__file__).parent.parent / "fixtures" / provider).glob("*/webhooks.ndjson"))
    return [webhook for file in files for webhook in read_archive(file) if isinstance(webhook, Webhook)]


ARCHIVED = {name: _archived(name) for name in NAMES}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in below for found in _paths(item, (*path, key)))]


def _changed(whole: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None], odd: Any) -> Any:
    if not path:
        return odd
    part = whole
    for key in path[:-1]:
        part = part[key]
    change(part, path[-1])
    return whole


@st.composite
def broken(draw: st.DrawFn, provider: str) -> Webhook:
    """A webhook of the provider's with up to three values replaced, taken out or doubled, or with torn bytes."""
    webhook = draw(st.sampled_from(ARCHIVED[provider]))
    payload = json.loads(webhook.body)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(_paths(payload)))
        odd = copy.deepcopy(draw(st.sampled_from(ODD)))

        def replace(part: Any, key: Any, odd: Any = odd) -> None:
            part[key] = odd

        def remove(part: Any, key: Any) -> None:
            del part[key]

        payload = _changed(payload, path, draw(st.sampled_from([replace, replace, remove])), odd)
    body = json.dumps(payload).encode()
    if draw(st.integers(0, 9)) == 0 and body:
        place, torn = draw(st.integers(0, len(body))), draw(st.binary(max_size=4))
        body = body[:place] + torn + body[place + draw(st.integers(0, 3)) :]
    received_us = webhook.received_us + draw(st.integers(-(10**6), 10**6))
    return msgspec.structs.replace(webhook, body=body, received_us=received_us)


def _check(webhook: Webhook) -> list[CallEvent]:
    found = NORMALISER.events(webhook)
    stored = NORMALISER.stored(webhook)
    webhooks_table([stored], webhook.received_us)
    key = providers()[webhook.provider].stream_key(webhook.body, webhook.query)
    if isinstance(found, Rejection):
        assert found.code in SENDERS_FAULT, found
        return []
    for event in found:
        assert event.stream_key == key
        assert len(event.event_id) == 32
        assert event_from(event_message(event)) == event
    return found


@pytest.mark.parametrize("provider", NAMES)
@settings(max_examples=125, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_broken_payloads_become_events_or_the_senders_fault(provider: str, data: st.DataObject) -> None:
    webhooks = data.draw(st.lists(broken(provider), min_size=1, max_size=4))
    events: dict[str, dict[str, CallEvent]] = {}
    for webhook in webhooks:
        for event in _check(webhook):
            events.setdefault(event.stream_key, {})[event.event_id] = event
    for stream in events.values():
        members = list(stream.values())
        if providers()[provider].keyed_by == "agent":
            records = [r for r, _ in fold_stream(members, as_of_us=2**62, idle_us=IDLE_US)]
        else:
            records = [fold(members, as_of_us=2**62, idle_us=IDLE_US)]
        calls_table([(record.call_key, record) for record in records], [], 0)
        events_table([(event, None) for event in members], 0)


@pytest.mark.parametrize("provider", NAMES)
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    body=st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))
    )
)
def test_arbitrary_bytes_are_the_senders_fault(provider: str, body: bytes) -> None:
    assert _check(Webhook(provider, 1_778_576_400_000_000, body)) == []


@pytest.mark.parametrize("provider", NAMES)
@settings(max_examples=75, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_event_is_the_same_however_its_json_is_written(provider: str, data: st.DataObject) -> None:
    webhook = data.draw(broken(provider))
    events = NORMALISER.events(webhook)
    if isinstance(events, Rejection):
        return
    try:
        payload = json.loads(webhook.body)
    except ValueError:
        return
    for style in ({"indent": 3}, {"sort_keys": True}, {"separators": (",", ":")}):
        again = msgspec.structs.replace(webhook, body=json.dumps(payload, **style).encode())
        assert NORMALISER.events(again) == events
    turned = msgspec.structs.replace(webhook, body=json.dumps(_turned(payload)).encode())
    assert NORMALISER.events(turned) == events


def _turned(value: Any) -> Any:
    """The same value with the keys of all objects in the opposite order."""
    if isinstance(value, dict):
        return {key: _turned(item) for key, item in reversed(value.items())}
    return [_turned(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    endpoint=st.sampled_from(ODD), auth=st.sampled_from(ODD), place=st.integers(0, len(ARCHIVED["recho"]) - 1)
)
def test_the_endpoint_of_a_recho_event_is_not_part_of_it(endpoint: Any, auth: Any, place: int) -> None:
    webhook = ARCHIVED["recho"][place]
    payload = {**json.loads(webhook.body), "webhookEndpoint": endpoint, "authConfig": auth}
    assert NORMALISER.events(
        msgspec.structs.replace(webhook, body=json.dumps(payload).encode())
    ) == NORMALISER.events(webhook)


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize("numbers", ["keep", "mask", "hmac"])
def test_a_kept_webhook_gives_the_same_events_again(provider: str, numbers: Any) -> None:
    normaliser = Normaliser(providers(), Privacy(numbers, b"key"))
    for webhook in ARCHIVED[provider]:
        kept = normaliser.stored(webhook).webhook
        assert normaliser.events(kept) == normaliser.events(webhook)
        assert normaliser.stored(kept).webhook == kept

"""A provider's fast way gives what its plain way gives, for whatever is sent, and is the one that webhooks go."""

import copy
import importlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.archive import read_archive
from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.providers import providers
from pipeline.simulate import generate

FIXTURES = Path(__file__).parent.parent / "fixtures"
Events = Callable[[Webhook], list[CallEvent] | Rejection]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"pipeline.providers.{name}")


MODULES = {name: _module(name) for name in providers()}
FAST = {name: module for name, module in MODULES.items() if hasattr(module, "_plain_events")}
"""A provider need not have a fast way."""


def _webhooks(file: Path) -> list[Webhook]:
    return [webhook for webhook in read_archive(file) if isinstance(webhook, Webhook)]


ARCHIVED = {
    name: [w for file in sorted(FIXTURES.glob(f"{name}/*/webhooks.ndjson")) for w in _webhooks(file)]
    for name in FAST
}


def _gone_the_plain_way(name: str, webhooks: list[Webhook]) -> list[Webhook]:
    gone: list[Webhook] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FAST[name], "_plain_events", lambda webhook: gone.append(webhook) or [])
        for webhook in webhooks:
            FAST[name].events(webhook)
    return gone


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Webhook]]:
    file = tmp_path_factory.mktemp("traffic") / "webhooks.ndjson"
    file.write_bytes(b"\n".join(generate(400, seed=3, duplicates=0.05, shuffle=0.1)))
    found = _webhooks(file)
    return {name: [webhook for webhook in found if webhook.provider == name] for name in FAST}


def check(webhook: Webhook) -> None:
    """`repr`, so that 0, 0.0 and False are three things."""
    module = FAST[webhook.provider]
    assert repr(module.events(webhook)) == repr(module._plain_events(webhook))


def with_body(webhook: Webhook, body: bytes) -> Webhook:
    return msgspec.structs.replace(webhook, body=body)


def test_the_five_providers_have_a_fast_way() -> None:
    assert set(FAST) >= {"aircall_bus", "freeclimb", "interactly", "recho", "whippy"}


@pytest.mark.parametrize("provider", FAST)
def test_fixtures_and_traffic_give_the_same_either_way(
    provider: str, traffic: dict[str, list[Webhook]]
) -> None:
    assert len(traffic[provider]) > 20
    for webhook in (*ARCHIVED[provider], *traffic[provider]):
        check(webhook)


@pytest.mark.parametrize("numbers", ["keep", "mask", "hmac"])
@pytest.mark.parametrize("provider", FAST)
def test_privacy_settings_change_the_same_either_way(
    provider: str, numbers: Any, traffic: dict[str, list[Webhook]]
) -> None:
    fast, known = Normaliser(providers(), Privacy(numbers, b"key")), providers()[provider]
    plain = Normaliser(
        {**providers(), provider: known._replace(events=FAST[provider]._plain_events)},
        Privacy(numbers, b"key"),
    )
    for webhook in (*ARCHIVED[provider], *traffic[provider]):
        assert repr(fast.events(webhook)) == repr(plain.events(webhook))


@pytest.mark.parametrize("provider", FAST)
def test_nearly_all_traffic_goes_the_fast_way(provider: str, traffic: dict[str, list[Webhook]]) -> None:
    gone = _gone_the_plain_way(provider, traffic[provider])
    # Events of the bus that come without the relay's envelope, and Recho's that tell of errors.
    assert len(gone) < len(traffic[provider]) * 0.25


# The identities of events are in lakes: these were told before there was a fast way.
PINNED = {
    ("aircall_bus", "bare_events"): "b702dfe014277cb8121d19a2b388896c",
    ("aircall_bus", "documented_outgoing"): "74c5863ce0f3e4af6073acc79c6d905e",
    ("freeclimb", "documented_signature"): "2aa039d91bc7f232df5769317f6ce140",
    ("freeclimb", "durations"): "24ef14544a7848b2d15e9341f986c840",
    ("interactly", "documented_trio"): "8c444fbdb43ccc9cb3f13ffb3b861443",
    ("interactly", "report_alone"): "3c8d528cbf56e1ad42ee4fce4b8142d2",
    ("recho", "documented_sample"): "75e5e3b4abd1f2bdc0a8036a77966f81",
    ("recho", "completed_with_errors"): "40e64fc6bdae0a25a470a82c2688b238",
    ("whippy", "documented_2023"): "1695b48f6d11243f94dcdf0e73821c13",
    ("whippy", "documented_2024"): "d944701702213dddfc4accc46be32e2b",
}


@pytest.mark.parametrize(("provider", "case"), PINNED)
def test_identities_are_what_they_always_were(provider: str, case: str) -> None:
    webhook = _webhooks(FIXTURES / provider / case / "webhooks.ndjson")[-1]
    told = [events(webhook) for events in (MODULES[provider].events, FAST[provider]._plain_events)]
    assert [event.event_id for found in told for event in found] == [PINNED[provider, case]] * 2


LONG = "é" * 1024
DEEP = json.loads("[" * 150 + "]" * 150)
ODD: list[Any] = [
    *(None, True, False, 0, -1, 7.5, 3.0, 1e308, -1e15, 10**18, 10**30, 2**53, 2**53 + 1, -(2**63)),
    *(1772409715, 1772409715445, 1772409715445000, 1772409715.5, "1772409715", "1772409715445", "177240971५"),
    *("", " ", "\t\n", "\u00a0", "\u2003", "\x85", "\x1f", "x", "12", "1e999", "nan", "٣", "\x00", "\ud800"),
    *(LONG, LONG + "é", " " * 1025, "20260512", "2000010112345", "2026-W10-1", "2026-03-02T00:01:55+05:30"),
    *("2026-03-02T00:01:55.0289999Z", "1999-12-31T23:59:59Z", "2026-13-45T00:00:00Z"),
    *([], {}, [None], {"a": None}, [{"code": "E", "message": "token: abc", "phase": " "}, 5], DEEP),
    *({"totalCost": 1, "callDuration": "3"}, {"s3Bucket": " ", "path": 5}, {"successEvaluation": " "}),
    *({"callUuid": "u", "from": "client:1", "to": 5}, {"duration": 5.5, "type": "web_call", "agent_id": 7}),
    *([{"content_type": "audio/x", "url": "https://f/x?sig=abc"}], float("nan"), float("inf")),
    *("finished", "forwarded", "call.ended", "call.other", "OUTBOUND_CALL_ERROR", "ended", "busy", "error"),
    *("end-of-call-report", "DIALER.SYNC", "DIALER.INCOMING", "DIALER.OTHER", "web-Anna", "client:12"),
]
# Put in front of an object's fields: a key that stands there, or one that nobody knows.
RAW = (
    *(b"1e400", b"-1e400", b"9" * 1020, b"9" * 1500, b"9" * 4400, b"01", b"1.", b"-0", b"1E5", b"NaN"),
    *(b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\u0000"', b'"\n"', b'"\\q"', b'{"\xff":1}', b"tru"),
    *(b"[" * n + b"]" * n for n in (197, 198, 199, 200, 201, 300, 1200)),
)
KEYS = (
    *(
        "id",
        "callId",
        "status",
        "type",
        "event",
        "metadata",
        "seq",
        "session_id",
        "agent_id",
        "zz",
        "callSid",
    ),
    *("user_id", "data", "body", "payload", "message", "call", "errors", "cost", "authConfig", "duration"),
)


def _fast_one(provider: str) -> Webhook:
    """The last archived webhook that goes the fast way, so that what makes it leave it is seen."""
    gone = _gone_the_plain_way(provider, ARCHIVED[provider])
    return [webhook for webhook in ARCHIVED[provider] if webhook not in gone][-1]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in below for found in _paths(item, (*path, key)))]


def _part(whole: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        whole = whole[key]
    return whole


@st.composite
def broken(draw: st.DrawFn, provider: str) -> Webhook:
    """A webhook with values replaced, taken out and added, and with bytes that no serialiser would write."""
    webhook = draw(st.sampled_from(ARCHIVED[provider]))
    payload = json.loads(webhook.body)
    dice = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 2))):
        path = dice.choice(_paths(payload)[1:] or [()])
        if not path:
            break
        part, odd = _part(payload, path[:-1]), copy.deepcopy(dice.choice(ODD))
        kind = dice.randrange(4)
        if kind < 2:
            part[path[-1]] = odd
        elif kind == 2:
            del part[path[-1]]
        elif isinstance(part, dict):
            part[dice.choice(KEYS)] = odd
    style: dict[str, Any] = dice.choice([{}, {"separators": (",", ":")}, {"indent": 2}, {"sort_keys": True}])
    body = json.dumps(payload, ensure_ascii=dice.random() < 0.5, **style).encode("utf-8", "surrogatepass")
    kind = dice.randrange(12)
    place = dice.randrange(len(body) + 1)
    opening = body.find(b"{", place)
    if kind < 3 and opening >= 0:
        field = b'"' + dice.choice(KEYS).encode() + b'":' + dice.choice(RAW)
        comma = b"" if body[opening + 1 :].lstrip().startswith(b"}") else b","
        body = body[: opening + 1] + field + comma + body[opening + 1 :]
    elif kind == 3:
        body = body[:place] + dice.randbytes(dice.randrange(4)) + body[place + dice.randrange(3) :]
    elif kind == 4:
        body = body.decode("utf-8", "replace").encode(
            dice.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1"]), "replace"
        )
    elif kind == 5:
        key = dice.choice(KEYS)
        body = body.replace(f'"{key}"'.encode(), f'"\\u{ord(key[0]):04x}{key[1:]}"'.encode())
    query = dice.choice([webhook.query, {}, {"agent_id": "7"}, {"agent_id": " "}])
    return msgspec.structs.replace(webhook, body=body, query=query)


@pytest.mark.parametrize("provider", FAST)
@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_broken_payloads_give_the_same_either_way(provider: str, data: st.DataObject) -> None:
    check(data.draw(broken(provider)))


@pytest.mark.parametrize("provider", FAST)
def test_any_value_in_any_place_gives_the_same_either_way(provider: str) -> None:
    for webhook in (ARCHIVED[provider][0], _fast_one(provider)):
        payload = json.loads(webhook.body)
        for path in _paths(payload)[1:]:
            for odd in ODD:
                whole = copy.deepcopy(payload)
                _part(whole, path[:-1])[path[-1]] = odd
                check(with_body(webhook, json.dumps(whole).encode()))
            whole = copy.deepcopy(payload)
            del _part(whole, path[:-1])[path[-1]]
            check(with_body(webhook, json.dumps(whole).encode()))


@pytest.mark.parametrize("provider", FAST)
def test_any_raw_value_in_any_object_gives_the_same_either_way(provider: str) -> None:
    webhook = _fast_one(provider)
    body = json.dumps(json.loads(webhook.body), separators=(",", ":")).encode()
    openings = [place for place in range(len(body)) if body[place : place + 2] == b'{"']
    for place in openings:
        for raw in RAW:
            for key in ("zz", *KEYS[:4]):
                field = b'"' + key.encode() + b'":' + raw + b","
                check(with_body(webhook, body[: place + 1] + field + body[place + 1 :]))


@pytest.mark.parametrize("provider", FAST)
def test_a_body_cut_anywhere_gives_the_same_either_way(provider: str) -> None:
    webhook = min(ARCHIVED[provider], key=lambda webhook: len(webhook.body))
    for end in range(len(webhook.body)):
        check(with_body(webhook, webhook.body[:end]))

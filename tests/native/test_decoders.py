"""The compiled decoders give what the modules of providers give, or nothing: for ordinary webhooks and broken ones."""

import copy
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.archive import read_archive
from pipeline.model import CallEvent, Webhook
from pipeline.providers import providers, read_instant
from pipeline.simulate import generate

native = pytest.importorskip("pipeline.native._native")

FIXTURES = Path(__file__).parent.parent / "fixtures"
DECODED = ("interactly", "recho", "whippy")


class _Line(msgspec.Struct):
    """A line of an archive."""

    provider: str
    received_at: str
    body: msgspec.Raw
    headers: dict[str, str] = {}


def compiled(webhook: Webhook) -> CallEvent | None:
    """What the compiled decoder gives; None if it leaves the webhook to Python."""
    found: CallEvent | None = native.decode(
        webhook.provider, webhook.received_us, webhook.body, webhook.headers
    )
    return found


def is_taken(webhook: Webhook) -> bool:
    """Whether it is decoded; checks that it is to the same event then. `repr` tells 0, 0.0, -0.0 and False apart."""
    found = compiled(webhook)
    if found is None:
        return False
    meant = providers()[webhook.provider].events(webhook)
    assert isinstance(meant, list), (webhook, meant)
    assert len(meant) == 1, webhook
    told, told_by_python = msgspec.structs.astuple(found), msgspec.structs.astuple(meant[0])
    assert repr(told) == repr(told_by_python), webhook
    assert [type(x) for x in told] == [type(x) for x in told_by_python], webhook
    return True


@cache
def simulated(provider: str) -> list[Webhook]:
    return [webhook for webhook in _simulated() if webhook.provider == provider]


@cache
def _simulated() -> list[Webhook]:
    lines = map(msgspec.json.Decoder(_Line).decode, generate(600, seed=11))
    return [
        Webhook(line.provider, read_instant(line.received_at) or 0, bytes(line.body), line.headers)
        for line in lines
    ]


@cache
def archived(provider: str) -> list[Webhook]:
    files = sorted(FIXTURES.glob(f"{provider}/*/webhooks.ndjson"))
    return [w for file in files for w in read_archive(file) if isinstance(w, Webhook)]


def with_body(webhook: Webhook, body: bytes) -> Webhook:
    return msgspec.structs.replace(webhook, body=body)


@pytest.mark.parametrize("provider", DECODED)
def test_nearly_all_traffic_is_decoded_to_the_same_events(provider: str) -> None:
    about_calls = [w for w in simulated(provider) if providers()[provider].events(w) != []]
    taken = sum(map(is_taken, about_calls))
    assert len(about_calls) > 200
    assert taken > 0.95 * len(about_calls)


@pytest.mark.parametrize("provider", DECODED)
def test_most_fixtures_are_decoded_to_the_same_events(provider: str) -> None:
    # What is odd is in fixtures as well, and what is no call.
    assert sum(map(is_taken, archived(provider))) > 0.85 * len(archived(provider))


def test_no_other_provider_is_decoded() -> None:
    webhook = simulated("whippy")[0]
    assert native.decode("nobody", webhook.received_us, webhook.body, {}) is None


LONG = "é" * 1024
DEEP = json.loads("[" * 150 + "]" * 150)
ODD: list[Any] = [
    *(None, True, False, 0, -1, 7.5, 3.0, 0.0, -0.0, 1e308, 1e16, 1e-5, 5e-324, -1e15, 10**18, 10**30),
    *(2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 1e18, 123456789.123456789, 0.1 + 0.2),
    *(1772409715, 1772409715445, 1772409715445000, 1772409715.5, "1772409715", "1772409715445", "177240971५"),
    *(946684800, 946684799, 4102444800000, 4102444799999, "0946684800", "4102444800", "0000000000"),
    *("", " ", "\t\n", "\u00a0", "\u2003", "\x85", "\x1f", "\u200b", "x", "12", "1e999", "nan", "٣", "\x00"),
    *("\ud800", "\ud83d\ude00", '"', "\\", "/", "\x7f", "\u2028", "a\x1fb", "\b\f\r", "12.5", "1.2.3", "-5"),
    *(LONG, LONG + "é", "x" * 1024, "x" * 1025, " " * 1025, "20260512", "2000010112345", "2026-W10-1"),
    *("2026-03-02T00:01:55+05:30", "2026-03-02T00:01:55", "2026-03-02 00:01:55Z", "2026-03-02T00:01:55.1Z"),
    *("2026-03-02T00:01:55.0289999Z", "1999-12-31T23:59:59Z", "2026-13-45T00:00:00Z", "2024-02-29T23:59:59Z"),
    *(
        "2026-02-29T00:00:00Z",
        "2026-03-02T00:01:55.028999-23:59",
        "2100-01-01T00:00:00Z",
        "2026-03-02T24:00Z",
    ),
    *([], {}, [None], [[]], {"a": None}, [{"code": "E", "message": "m", "phase": " "}, 5], DEEP),
    *(
        {"totalCost": 1, "callDuration": "3"},
        {"totalCost": 0.00001},
        {"callDuration": 0},
        {"totalCost": -0.0},
    ),
    *({"s3Bucket": " ", "path": 5}, {"s3Bucket": "b", "path": 5}, {"s3Bucket": "", "path": 5.5}),
    *(
        {"successEvaluation": " "},
        {"successEvaluation": 3},
        {"summary": "x"},
        {"summary": {}},
        {"outcome": 5},
    ),
    *({"type": "e", "code": 5, "message": "m"}, {"code": None}, {"message": '"\u00e9\n\x01'}, {"code": 1.0}),
    *({"duration": 5.5, "type": "web_call", "agent_id": 7}, {"duration": "5", "type": 5.0, "agent_id": " "}),
    *([{"content_type": "audio/x", "url": "https://f/x?sig=abc"}], [{"content_type": "audio/x", "url": ""}]),
    *(
        [{"content_type": 5}, {"content_type": "audio/x", "url": LONG * 2}],
        [{"content_type": "audio/"}, None],
    ),
    *("finished", "forwarded", "queued", "ongoing", "in-progress", "completed", "busy", "no-answer", "bot"),
    *(
        "web",
        "phone",
        "web_call",
        "inbound",
        "OUTBOUND",
        "ınbound",
        "Inbound",
        "web-Anna",
        "call.",
        "call.ended",
    ),
    *("call.analyzed", "call.other", "message.sent", "call_completed.user_hangup", "call_completed.error_x"),
    *("x.call_transfer", "a.b.c", "x.", "OUTBOUND_CALL_ERROR", "INBOUND_CALL_ERROR", "INBOUND", "INBOUND_X"),
    *("OUTBOUND_CALL_REQUESTED", "INBOUND_CALL_CLOSING", "LIMIT_REACHED", "VOICEMAIL_REACHED"),
    *("end-of-call-report", "status-update", "hang", "error", float("nan"), float("inf")),
]
# Put in front of an object's fields.
RAW = (
    *(b"1e400", b"-1e400", b"1e-400", b"9" * 19, b"9" * 20, b"9" * 400, b"01", b"1.", b"-0", b"-0.0", b"1E5"),
    *(b"NaN", b"-", b"1e", b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"'),
    *(
        b'"\n"',
        b'"\\q"',
        b'"\\/"',
        b'{"\xff":1}',
        b'{"a":1,"a":2}',
        b"tru",
        b'"' + b"[{" * 201 + b'"',
        b"[,]",
    ),
    *(b"[" * n + b"]" * n for n in (120, 130, 196, 197, 198, 199, 200, 201, 300)),
    *(b'{"":' * n + b"1" + b"}" * n for n in (197, 198, 199)),
    b'["2026",null,{}]',
)
KEYS = (
    *(
        "id",
        "callId",
        "status",
        "type",
        "event",
        "metadata",
        "agent_id",
        "zz",
        "callSid",
        "clientId",
        "subject",
    ),
    *("user_id", "data", "body", "message", "call", "errors", "cost", "authConfig", "duration", "projectId"),
    *(
        "timestamp",
        "error",
        "analysis",
        "recording",
        "created_at",
        "updated_at",
        "attachments",
        "webhookEndpoint",
    ),
    *("direction", "from", "startAt", "endAt", "assistantCallDuration", "totalCost", "callDuration", "text"),
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is a value in the value."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in below for found in paths(item, (*path, key)))]


def _part(whole: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        whole = whole[key]
    return whole


def _of_values(payload: Any, dice: random.Random) -> None:
    """One value replaced, taken out, added, renamed, or as an array what was an object."""
    path = dice.choice(paths(payload)[1:] or [()])
    if not path:
        return
    part, odd = _part(payload, path[:-1]), copy.deepcopy(dice.choice(ODD))
    kind = dice.randrange(7)
    if kind < 3:
        part[path[-1]] = odd
    elif kind == 3:
        del part[path[-1]]
    elif kind == 4 and isinstance(part[path[-1]], dict):
        part[path[-1]] = list(part[path[-1]].values())
    elif isinstance(part, dict) and kind == 5:
        part[dice.choice(KEYS)] = part.pop(path[-1])
    elif isinstance(part, dict):
        part[dice.choice(KEYS)] = odd


def _with_field(body: bytes, dice: random.Random) -> bytes:
    opening = body.find(b"{", dice.randrange(len(body) + 1))
    if opening < 0:
        return body
    comma = b"" if body[opening + 1 :].lstrip().startswith(b"}") else b","
    key, raw = dice.choice(KEYS).encode(), dice.choice(RAW)
    return body[: opening + 1] + b'"' + key + b'":' + raw + comma + body[opening + 1 :]


def _with_other_bytes(body: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(body) + 1)
    torn = dice.choice([dice.randbytes(dice.randrange(4)), b"\\", b'"', b"}", b" \n", b"0", b"\\u00e9"])
    return body[:place] + torn + body[place + dice.randrange(3) :]


def _with_escapes(body: bytes, dice: random.Random) -> bytes:
    key = dice.choice(KEYS)
    return body.replace(f'"{key}"'.encode(), f'"\\u{ord(key[0]):04x}{key[1:]}"'.encode())


def _with_value(body: bytes, dice: random.Random) -> bytes:
    """A value in the place of a scalar, as no serialiser writes it."""
    colon = body.find(b":", dice.randrange(len(body) + 1))
    ends = [at for at in (body.find(b",", colon), body.find(b"}", colon)) if at >= 0]
    if colon < 0 or not ends:
        return body
    return body[: colon + 1] + dice.choice(RAW) + body[min(ends) :]


def _in_another_encoding(body: bytes, dice: random.Random) -> bytes:
    encoding = dice.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1"])
    return body.decode("utf-8", "replace").encode(encoding, "replace")


BENT: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_with_field, _with_field, _with_other_bytes, _with_escapes, _with_value, _with_value),
    *(_in_another_encoding, lambda body, dice: body[: dice.randrange(len(body) + 1)]),
)


def broken(webhook: Webhook, dice: random.Random) -> Webhook:
    """The webhook with values changed in it, and bytes."""
    payload = json.loads(webhook.body)
    for _ in range(dice.randrange(4)):
        _of_values(payload, dice)
    style: dict[str, Any] = dice.choice([{}, {"separators": (",", ":")}, {"indent": 2}, {"sort_keys": True}])
    body = json.dumps(payload, ensure_ascii=dice.random() < 0.5, **style).encode("utf-8", "surrogatepass")
    if dice.random() < 0.4:
        body = dice.choice(BENT)(body, dice)
    return with_body(webhook, body)


@pytest.mark.parametrize("provider", DECODED)
def test_broken_payloads_give_the_same_or_nothing(provider: str) -> None:
    dice = random.Random(5)
    webhooks = [*archived(provider), *simulated(provider)]
    taken = sum(is_taken(broken(dice.choice(webhooks), dice)) for _ in range(4000))
    assert taken > 1000


@pytest.mark.parametrize("provider", DECODED)
def test_any_value_in_any_place_gives_the_same_or_nothing(provider: str) -> None:
    webhook = min((w for w in simulated(provider) if is_taken(w)), key=lambda w: len(w.body))
    payload = json.loads(webhook.body)
    for path in paths(payload)[1:]:
        for odd in ODD:
            whole = copy.deepcopy(payload)
            _part(whole, path[:-1])[path[-1]] = odd
            is_taken(with_body(webhook, json.dumps(whole).encode()))
        whole = copy.deepcopy(payload)
        del _part(whole, path[:-1])[path[-1]]
        is_taken(with_body(webhook, json.dumps(whole).encode()))


@pytest.mark.parametrize("provider", DECODED)
def test_any_raw_value_in_any_object_gives_the_same_or_nothing(provider: str) -> None:
    webhook = min((w for w in simulated(provider) if is_taken(w)), key=lambda w: len(w.body))
    body = webhook.body
    for place in (place for place in range(len(body)) if body[place : place + 2] == b'{"'):
        for raw in RAW:
            for key in KEYS:
                field = b'"' + key.encode() + b'":' + raw + b","
                is_taken(with_body(webhook, body[: place + 1] + field + body[place + 1 :]))


@pytest.mark.parametrize("provider", DECODED)
def test_a_body_cut_anywhere_is_left_to_python(provider: str) -> None:
    webhook = min((w for w in simulated(provider) if is_taken(w)), key=lambda w: len(w.body))
    assert not any(is_taken(with_body(webhook, webhook.body[:end])) for end in range(len(webhook.body)))


def test_every_character_tells_of_itself_in_an_identity() -> None:
    webhook = next(w for w in simulated("recho") if is_taken(w))
    payload = json.loads(webhook.body)
    for start in range(0, 0x11000, 0x40):
        points = (point for point in range(start, start + 0x40) if not 0xD800 <= point < 0xE000)
        payload["body"]["text"] = "".join(map(chr, points))
        for is_escaped in (True, False):
            assert is_taken(with_body(webhook, json.dumps(payload, ensure_ascii=is_escaped).encode()))


def test_errors_are_told_alike() -> None:
    dice, taken = random.Random(9), 0
    webhook = next(w for w in simulated("recho") if b'"OUTBOUND_CALL_ERROR"' in w.body)
    names = ("code", "message", "timestamp", "where", "phase", "stacktrace")
    texts = (
        "PROVIDER_ERROR",
        "",
        'é\n"/\\\x01\x7f',
        "Carrier rejected",
        "x" * 1024,
        "2026-03-02T00:04:41.343Z",
    )
    rare: tuple[Any, ...] = (" ", "x" * 1025, 5, 1.5, True, [], {}, "\ud800")

    def error() -> Any:
        told = {name: dice.choice((*texts, None)) for name in names if dice.random() < 0.7}
        if dice.random() < 0.05:
            told[dice.choice((*names, "zz"))] = dice.choice(rare)
        shuffled = dict(dice.sample(list(told.items()), len(told)))
        return shuffled if dice.random() < 0.97 else dice.choice([*rare, None])

    for _ in range(5_000):
        payload = json.loads(webhook.body)
        payload["body"]["errors"] = [error() for _ in range(dice.randrange(4))]
        payload["eventType"] = dice.choice(
            ["OUTBOUND_CALL_ERROR", "INBOUND_CALL_ERROR", "OUTBOUND_CALL_CALLING"]
        )
        payload["body"]["data"]["callStatus"] = dice.choice(["ERROR", "VOICEMAIL_REACHED", None])
        body = json.dumps(payload, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
        taken += is_taken(with_body(webhook, body))
    assert 3_500 < taken < 5_000

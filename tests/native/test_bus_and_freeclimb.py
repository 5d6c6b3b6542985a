"""The compiled decoders of the bus and of FreeClimb give what the modules in Python give, or nothing."""

import importlib
import json
import random
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from bent_webhooks import DEEP, ODD, RAW, archived, bent, simulated

from pipeline.model import Webhook

native = pytest.importorskip("pipeline.native._native")
NAMES = ("aircall_bus", "freeclimb")
MODULES = {name: importlib.import_module(f"pipeline.providers.{name}") for name in NAMES}


def check(webhook: Webhook) -> bool:
    """Whether an event is given; `repr`, so that 0, 0.0 and -0.0 are three things."""
    told = (webhook.provider, webhook.received_us, webhook.body, webhook.headers, webhook.query)
    event = native.decode(*told)
    if event is None:
        return False
    assert repr([event]) == repr(MODULES[webhook.provider].events(webhook)), webhook
    return True


def share_given(webhooks: Iterable[Webhook]) -> float:
    given = [check(webhook) for webhook in webhooks]
    return sum(given) / len(given)


@pytest.mark.parametrize("provider", NAMES)
def test_undisturbed_traffic_is_decoded(provider: str, tmp_path: Path) -> None:
    webhooks = simulated(provider, 1500, 11, tmp_path)
    assert len(webhooks) > 200
    assert share_given(webhooks) > 0.999


@pytest.mark.parametrize("provider", NAMES)
def test_the_fixtures_are_decoded_as_in_python(provider: str) -> None:
    assert share_given(archived(provider)) > 0.5


@pytest.mark.parametrize("provider", NAMES)
def test_bent_webhooks_give_the_same_or_nothing(provider: str) -> None:
    dice = random.Random(f"bent {provider}")
    given = sum(check(bent(dice.choice(archived(provider)), dice)) for _ in range(6_000))
    assert given > 1_000


def _written_with(body: bytes, path: tuple[str, ...], value: bytes) -> bytes:
    payload = json.loads(body)
    part = payload
    for key in path[:-1]:
        part = part.setdefault(key, {})
    part[path[-1]] = "@here@"
    return json.dumps(payload).encode().replace(b'"@here@"', value)


PLACES = {
    "aircall_bus": (
        *(("agent_id",), ("session_id",), ("seq",), ("sent_at",), ("zz",), ("event",), ("event", "type")),
        *(("event", "payload"), ("event", "zz")),
        *(("event", "payload", name) for name in ("status", "flow", "type", "callUuid", "from", "to", "metadata")),
        *(("event", "payload", "metadata", name) for name in ("callUuid", "from", "to", "zz")),
    ),
    "freeclimb": tuple(
        (name,)
        for name in (
            *("requestType", "callId", "accountId", "from", "to", "callStatus", "direction", "callEndedReason"),
            *("parentCallId", "recordingUrl", "callDuration", "zz"),
        )
    ),
}  # fmt: skip
VALUES = (*(json.dumps(odd).encode() for odd in (*ODD, *DEEP)), *RAW)


@pytest.mark.parametrize("provider", NAMES)
def test_any_value_in_any_place_gives_the_same_or_nothing(provider: str) -> None:
    ends = {"aircall_bus": b"DIALER.SYNC", "freeclimb": b'"completed"'}[provider]
    webhook = next(w for w in archived(provider) if ends in w.body and check(w))
    for path in PLACES[provider]:
        for value in VALUES:
            check(msgspec.structs.replace(webhook, body=_written_with(webhook.body, path, value)))


@pytest.mark.parametrize("provider", NAMES)
def test_a_body_cut_anywhere_gives_nothing(provider: str) -> None:
    webhook = next(webhook for webhook in archived(provider) if check(webhook))
    for end in range(len(webhook.body)):
        assert not check(msgspec.structs.replace(webhook, body=webhook.body[:end]))


@pytest.mark.parametrize("provider", NAMES)
def test_an_array_of_the_values_is_no_object(provider: str) -> None:
    webhook = next(webhook for webhook in archived(provider) if check(webhook))
    values = list(json.loads(webhook.body).values())
    assert not check(msgspec.structs.replace(webhook, body=json.dumps(values).encode()))


def test_what_is_skipped_may_not_be_nested_too_deep() -> None:
    webhook = archived("freeclimb")[0]
    for levels, is_given in ((198, True), (199, True), (200, False), (5_000, False)):
        deep = b'{"zz":' + b"[" * levels + b"]" * levels + b"," + webhook.body.lstrip()[1:]
        assert check(msgspec.structs.replace(webhook, body=deep)) is is_given
    # Brackets in texts are none; a quote behind a backslash ends no text, but for one behind two of them.
    for texts in (b'"\\"' + b"[{" * 500 + b'"', b'["' + b'\\\\","[' * 500 + b'"]'):
        told = b'{"zz":' + texts + b"," + webhook.body.lstrip()[1:]
        assert check(msgspec.structs.replace(webhook, body=told))


def test_of_others_nothing_is_decoded() -> None:
    body = archived("freeclimb")[0].body
    assert native.decode("nobody", 0, body, {}) is None
    assert native.decode("freeclimb", 0, b"\xff", {}) is None


def enveloped(payload: str, kind: str = "DIALER.SYNC", **fields: str) -> Webhook:
    event = f'{{"type":"{kind}","payload":{payload}}}'
    told = {"agent_id": "41123", "session_id": '"s"', "seq": "5", "event": event} | fields
    body = "{" + ",".join(f'"{name}":{value}' for name, value in told.items()) + "}"
    return Webhook("aircall_bus", 1_778_576_400_000_000, body.encode())


def test_the_payload_tells_what_the_metadata_cannot() -> None:
    own = '"callUuid":"own","from":"+1555","to":"client:7"'
    for metadata in (
        "null",
        "{}",
        "{ }",
        "{\n\t}",
        "[]",
        "5",
        '"x"',
        '[{"callUuid":"u"}]',
        '{"a":1}',
        '{"to":"+1"}',
    ):
        assert check(enveloped(f'{{{own},"metadata":{metadata}}}'))
    assert check(enveloped(f'{{{own},"metadata":{{"callUuid":"{{}}","from":5,"to":null}}}}'))


@pytest.mark.parametrize(
    "webhook",
    [
        enveloped("{}", agent_id="41123.0"),
        enveloped("{}", agent_id=str(2**53 + 1)),
        enveloped("{}", agent_id=str(-(2**53) - 1)),
        enveloped("{}", agent_id='" "'),
        enveloped("{}", agent_id="true"),
        enveloped("{}", seq="5.0"),
        enveloped("{}", seq=str(2**53 + 1)),
        enveloped("{}", seq="-0"),
        enveloped("{}", session_id="null"),
        enveloped("{}", sent_at="1778576400.5"),
        enveloped("null"),
        enveloped("[]"),
        enveloped("{}", agent_id='"é"'),
        enveloped("{}", zz='"' + "x" * 1024 + '"'),
    ],
)
def test_what_the_exact_way_of_the_bus_is_not_for_is_left(webhook: Webhook) -> None:
    assert check(enveloped("{}"))
    assert not check(webhook)


def bare(body: str, agent_id: str | None = "41123") -> Webhook:
    query = {} if agent_id is None else {"agent_id": agent_id}
    return Webhook("aircall_bus", 1_778_576_400_000_000, body.encode(), {}, query)


def any_value(dice: random.Random, levels: int = 3) -> str:
    """A JSON value, with numbers of telephones in it under the names that they have, and fields twice."""
    kind = dice.randrange(8)
    if levels and kind < 3:
        names = (
            "from",
            "to",
            "number",
            "normalized",
            "external",
            "transferer",
            "status",
            "é",
            "From",
            "z",
            "\\u0061",
            "",
        )
        fields = (f'"{dice.choice(names)}" : {any_value(dice, levels - 1)}' for _ in range(dice.randrange(5)))
        return "{" + ",".join(fields) + "}"
    if levels and kind == 3:
        return "[" + ", ".join(any_value(dice, levels - 1) for _ in range(dice.randrange(3))) + "]"
    scalars = (
        *(
            "null",
            "true",
            "false",
            "0",
            "-1",
            "5",
            str(2**53),
            str(2**63),
            str(2**64 - 1),
            '""',
            '"client:7"',
        ),
        *('"+4930"', '"\\n\\u0001\\u00e9\\/\\\\"', '"\x7f"', '"connected"', '"warmTransfer"'),
    )
    rare = ("1.5", "1e3", "-0", "-0.0", str(2**64), '"\\ud800"', '"é"', "1E400", "01")
    return dice.choice(scalars if dice.random() < 0.95 else rare)


KINDS = (
    *("CALL_STATUS", "CALL_STATUS", "DIALING", "INCOMING", "SYNC", "OTHER"),
    *(" ", "\\u0041"),
)


def test_events_without_the_relays_envelope_are_the_same_or_left() -> None:
    dice, given = random.Random("bare"), 0
    for _ in range(20_000):
        fields = [f'"type":"DIALER.{dice.choice(KINDS)}"', f'"payload":{any_value(dice)}']
        while dice.random() < 0.3:
            name = dice.choice(["from", "session_id", "seq", "sent_at", "zz", "number", "A", "é"])
            fields.append(f'"{name}":{any_value(dice)}')
        dice.shuffle(fields)
        given += check(bare("{" + ",".join(fields) + "}", dice.choice(["41123", "é", " 7 "])))
    assert given > 3_000


SYNC = '{"type":"DIALER.SYNC","payload":{"from":"+1","metadata":{"callUuid":"u"}}}'


@pytest.mark.parametrize(
    "webhook",
    [
        bare(SYNC, None),
        bare(SYNC, ""),
        bare(SYNC, " "),
        bare(SYNC, "x" * 1025),
        bare(SYNC[:-1] + ',"agent_id":null}'),
        bare(SYNC[:-1] + ',"agent_id":"8"}'),
        bare(SYNC[:-1] + ',"event":null}'),
        bare(SYNC[:-1] + ',"event":{"type":"DIALER.SYNC","payload":{}}}'),
        bare(SYNC[:-1] + ',"zz":1.5}'),
        bare('{"type":"DIALER.SYNC"}'),
        bare('{"type":"","payload":{}}'),
        bare('{"type":"DIALER.SYNC","payload":null}'),
        bare('{"type":"DIALER.SYNC","payload":{"status":"é"}}'),
    ],
)
def test_without_the_envelope_what_is_odd_is_left(webhook: Webhook) -> None:
    assert check(bare(SYNC))
    assert not check(webhook)


def test_the_query_is_read_wherever_it_stands() -> None:
    headers = [("received-at", b"2026-05-12T09:00:00.000000Z")]
    agent = b'{"agent_id":"41123"}'
    found = native.Reader("aircall_bus", str).read(
        [
            SimpleNamespace(value=SYNC.encode(), headers=[*headers, *(("query", query) for query in queries)])
            for queries in (
                [agent],
                [b"{}", agent],
                [agent, b"{}"],
                [],
                [agent, b"{"],
                [b'{"agent_id":7}'],
                [None],
            )
        ]
    )
    (meant,) = MODULES["aircall_bus"].events(bare(SYNC))
    assert repr(found[0].to_python()) == repr([meant, meant])
    assert found[1] == [2, 3, 4, 5, 6]
    line = b'{"provider":"aircall_bus","received_at":"2026-05-12T09:00:00Z","body":%b,"query":%b}'
    lines = [line % (SYNC.encode(), query) for query in (agent, b"{}", b"null", b"[]", b'{"agent_id":7}')]
    taken = native.LineReader(["aircall_bus"], str).read(b"", b"\n".join([*lines, b""]))
    assert repr(taken.events.to_python()) == repr([meant])
    assert [place for place, _ in taken.left] == [1, 2, 3, 4]

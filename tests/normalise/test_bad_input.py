"""Whatever a body is, it becomes events or a rejection that names what is wrong, and never an exception."""

import json
from typing import Any

import pytest

from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.model.rejection import DEEPEST
from pipeline.normalise import Normaliser, Privacy
from pipeline.providers import providers

NAMES = tuple(providers())
RECEIVED_US = 1_778_576_400_000_000  # 2026-05-12T09:00:00Z
NORMALISER = Normaliser(providers(), Privacy())
LONG = "x" * 1_000_000

GOOD: dict[str, dict[str, Any]] = {
    "interactly": {"message": {"type": "status-update", "call": {"id": "c1", "status": "queued"}}},
    "recho": {"eventType": "OUTBOUND_CALL_PENDING", "body": {"data": {"callId": "c1"}, "errors": []}},
    "whippy": {"event": "call.started", "data": {"id": "c1"}},
    "aircall_bus": {
        "agent_id": 1,
        "session_id": "s",
        "seq": 1,
        "event": {"type": "DIALER.DIALING", "payload": {}},
    },
    "freeclimb": {"requestType": "callStatus", "callId": "c1", "callStatus": "completed"},
}
ID_FIELD = {
    "interactly": "message.call.id",
    "recho": "body.data.callId",
    "whippy": "data.id",
    "aircall_bus": "agent_id",
    "freeclimb": "callId",
}
SHAPE_FIELD = {"interactly": "message", "recho": "body", "whippy": "event", "aircall_bus": "event.type"}


def read(provider: str, body: bytes) -> list[CallEvent] | Rejection:
    webhook = Webhook(provider, RECEIVED_US, body)
    NORMALISER.stored(webhook)
    providers()[provider].stream_key(body, {})
    return NORMALISER.events(webhook)


def reason(provider: str, body: bytes) -> tuple[str, str | None]:
    found = read(provider, body)
    assert isinstance(found, Rejection), found
    assert (found.stage, bool(found.message)) == ("normalise", True)
    return found.code, found.field


def only_event(provider: str, body: bytes) -> CallEvent:
    found = read(provider, body)
    assert isinstance(found, list), found
    (event,) = found
    return event


def with_id(provider: str, value: Any) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(json.dumps(GOOD[provider]))
    *path, last = ID_FIELD[provider].split(".")
    part = whole
    for name in path:
        part = part[name]
    part[last] = value
    return whole


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{",
        b'{"callId": "c1"',
        b"{'callId': 'c1'}",
        b"callId=c1&callStatus=completed",
        b"\x00",
        b"<html></html>",
        b'{"a": 1}{"b": 2}',
        b"[" * DEEPEST,
        b"]" * 1000 + b"[" * 1000,
        b'\x00\x00{"callId": "c1"}',
    ],
    ids=lambda body: repr(body[:16]),
)
def test_what_no_parser_reads_is_not_json(provider: str, body: bytes) -> None:
    assert reason(provider, body) == ("not_json", None)


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize("body", [b"", b" \n\t ", b"\r\n"])
def test_a_body_of_nothing_is_told_as_empty(provider: str, body: bytes) -> None:
    assert reason(provider, body) == ("empty_body", None)


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe\xfd",
        b"\x1f\x8b\x08\x00\x01\x02\x03\x04compressed",
        '{"name": "M\xfcller"'.encode("latin-1"),
        b"{broken \xff",
    ],
    ids=repr,
)
def test_what_is_no_unicode_is_told_as_its_encoding(provider: str, body: bytes) -> None:
    assert reason(provider, body) == ("bad_encoding", None)


def test_the_first_byte_at_fault_is_named() -> None:
    found = read("recho", b'{"a": "\xff"}')
    assert isinstance(found, Rejection)
    assert found.message == "not UTF-8: invalid start byte at byte 7"


def nested(levels: int, kind: str) -> str:
    return "[" * levels + "]" * levels if kind == "arrays" else '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize("kind", ["arrays", "objects"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_how_deep_a_body_may_be_is_one_number(provider: str, kind: str, encoding: str) -> None:
    text = json.dumps(GOOD[provider])
    good = only_event(provider, text.encode())
    for levels in (10, DEEPEST):
        body = f'{{"extra": {nested(levels - 1, kind)}, {text[1:]}'.encode(encoding)
        assert only_event(provider, body).stream_key == good.stream_key
    for levels in (DEEPEST + 1, 300, 1000, 5000):
        body = f'{{"extra": {nested(levels - 1, kind)}, {text[1:]}'.encode(encoding)
        assert reason(provider, body) == ("too_deep", None)


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize("kind", ["arrays", "objects"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("is_torn", [False, True])
def test_no_depth_brings_a_reader_down(provider: str, kind: str, encoding: str, is_torn: bool) -> None:
    body = nested(100_000, kind)[: 500_000 if is_torn else None].encode(encoding)
    found = NORMALISER.events(Webhook(provider, RECEIVED_US, body))
    assert isinstance(found, Rejection)
    assert found.code == "too_deep"
    assert providers()[provider].stream_key(body, {}) is None


@pytest.mark.parametrize("kind", ["arrays", "objects"])
def test_what_is_too_deep_can_be_stored(kind: str) -> None:
    body = nested(100_000, kind).encode()
    assert NORMALISER.stored(Webhook("freeclimb", RECEIVED_US, body)).webhook.body == body
    assert NORMALISER.stored(Webhook("nobody", RECEIVED_US, body)).webhook.body


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize("quoted", ["[" * 1000, r"\"[[\\" * 300, r"{\\\"" * 300, "[]" * 1000])
def test_brackets_in_texts_or_side_by_side_are_no_depth(provider: str, quoted: str) -> None:
    text = json.dumps(GOOD[provider])
    for extra in (f'"{quoted}"', "[" + "[],{}," * 500 + "0]"):
        event = only_event(provider, f'{{"extra": {extra}, {text[1:]}'.encode())
        assert event.stream_key == only_event(provider, text.encode()).stream_key


def stack_left(levels: int, provider: str, body: bytes) -> Any:
    return (
        NORMALISER.events(Webhook(provider, RECEIVED_US, body))
        if not levels
        else stack_left(levels - 1, provider, body)
    )


@pytest.mark.parametrize("provider", NAMES)
def test_who_calls_does_not_decide_whether_a_body_is_understood(provider: str) -> None:
    text = json.dumps(GOOD[provider])
    for levels in (DEEPEST, DEEPEST + 1, 700):
        # A lone surrogate sends it down the slow way.
        body = f'{{"odd": "\\ud800", "extra": {nested(levels - 1, "arrays")}, {text[1:]}'.encode()
        assert stack_left(300, provider, body) == NORMALISER.events(Webhook(provider, RECEIVED_US, body))


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize(
    "body",
    [b"[]", b'["c1"]', b'"text"', b"5", b"-1.5e300", b"null", b"true", b"NaN", b'"' + LONG.encode() + b'"'],
)
def test_json_that_is_no_object_has_a_bad_shape(provider: str, body: bytes) -> None:
    code, field = reason(provider, body)
    assert code == "bad_shape"
    assert field in (None, SHAPE_FIELD.get(provider))


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize(
    "body", [{}, {"": None}, {"x": [[None]]}, {"message": None, "body": None, "data": None, "event": None}]
)
def test_an_object_of_another_kind_names_the_field_that_was_expected(provider: str, body: Any) -> None:
    assert reason(provider, json.dumps(body).encode()) == ("bad_shape", SHAPE_FIELD.get(provider))


@pytest.mark.parametrize(
    ("provider", "body", "field"),
    [
        ("interactly", {"message": []}, "message"),
        ("interactly", {"message": "x"}, "message"),
        ("interactly", {"message": {}}, "message.call"),
        ("interactly", {"message": {"call": None}}, "message.call"),
        ("interactly", {"message": {"call": ["c1"]}}, "message.call"),
        ("recho", {"body": "x"}, "body"),
        ("recho", {"body": {}}, "body.data"),
        ("recho", {"body": {"data": [1]}}, "body.data"),
        ("whippy", {"data": {"id": "c1"}}, "event"),
        ("whippy", {"event": "call.ended"}, "data"),
        ("whippy", {"event": "call.ended", "data": [{"id": "c1"}]}, "data"),
        ("aircall_bus", {"agent_id": 1, "event": "DIALER.DIALING"}, "event.type"),
        ("aircall_bus", {"agent_id": 1, "event": {"type": None}}, "event.type"),
        ("aircall_bus", {"agent_id": 1}, "event.type"),
    ],
)
def test_a_part_of_the_wrong_kind_is_named(provider: str, body: Any, field: str) -> None:
    assert reason(provider, json.dumps(body).encode()) == ("bad_shape", field)


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize(
    "value", [None, "", "   ", [], ["c1"], {}, {"id": "c1"}, True, False, "x" * 2000, LONG]
)
def test_without_a_usable_id_the_id_is_the_missing_field(provider: str, value: Any) -> None:
    assert reason(provider, json.dumps(with_id(provider, value)).encode()) == (
        "missing_field",
        ID_FIELD[provider],
    )


@pytest.mark.parametrize("provider", NAMES)
def test_an_id_that_is_a_number_is_the_same_as_its_digits(provider: str) -> None:
    as_number, as_text = (only_event(provider, json.dumps(with_id(provider, v)).encode()) for v in (77, "77"))
    assert as_number.stream_key == as_text.stream_key
    assert as_number.stream_key.endswith(":77")


@pytest.mark.parametrize("provider", NAMES)
def test_a_byte_order_mark_other_encodings_and_repeated_keys_change_nothing(provider: str) -> None:
    text = json.dumps(GOOD[provider])
    plain = only_event(provider, text.encode())
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32"):
        assert only_event(provider, text.encode(encoding)) == plain
    first = next(iter(GOOD[provider]))
    assert only_event(provider, f'{{"{first}": null, {text[1:]}'.encode()) == plain


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize(
    "extra",
    [
        r'"\ud800"',
        r'"\udfff\ud800"',
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 400,
        "9" * 5000,
        "-" + "9" * 100_000,
        '"' + LONG + '"',
        "[" * 150 + "]" * 150,
    ],
)
def test_odd_values_beside_the_fields_that_count_are_no_reason_to_reject(provider: str, extra: str) -> None:
    text = json.dumps(GOOD[provider])
    event = only_event(provider, f'{{"extra": {extra}, {text[1:]}'.encode())
    assert event.stream_key == only_event(provider, text.encode()).stream_key


@pytest.mark.parametrize("provider", NAMES)
def test_invalid_utf8_is_an_event_or_told_as_its_encoding(provider: str) -> None:
    text = json.dumps(GOOD[provider]).encode()
    found = read(provider, b'{"extra": "\xff", ' + text[1:])
    assert isinstance(found, list) or found.code == "bad_encoding"


@pytest.mark.parametrize(
    ("provider", "field", "value"),
    [
        ("interactly", "timestamp", value)
        for value in (
            "",
            "soon",
            -1,
            0,
            1e300,
            "9" * 30,
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59-23:59",
            [],
            {},
            True,
        )
    ],
)
def test_a_time_that_is_none_is_replaced_by_the_receipt(provider: str, field: str, value: Any) -> None:
    body = {"message": {**GOOD[provider]["message"], field: value}}
    event = only_event(provider, json.dumps(body).encode())
    assert (event.at_us, event.at_source) == (RECEIVED_US, "received")


@pytest.mark.parametrize(
    "value",
    [
        1_778_576_400,
        1_778_576_400_000,
        1_778_576_400_000_000,
        "1778576400000",
        "2026-05-12T09:00:00Z",
        "2026-05-12T11:00:00+02:00",
        "2026-05-12 09:00:00",
    ],
)
def test_a_time_is_read_in_every_way_that_providers_write_it(value: Any) -> None:
    body = {"message": {**GOOD["interactly"]["message"], "timestamp": value}}
    event = only_event("interactly", json.dumps(body).encode())
    assert (event.at_us, event.at_source) == (RECEIVED_US, "provider")


def test_a_bare_bus_event_needs_its_agent_in_the_address() -> None:
    body = json.dumps(GOOD["aircall_bus"]["event"]).encode()
    assert reason("aircall_bus", body) == ("missing_field", "agent_id")
    found = NORMALISER.events(Webhook("aircall_bus", RECEIVED_US, body, {}, {"agent_id": "9"}))
    assert isinstance(found, list)
    assert found[0].agent_id == "9"
    assert providers()["aircall_bus"].stream_key(body, {"agent_id": "9"}) == found[0].stream_key


@pytest.mark.parametrize("name", ["", "nobody", "INTERACTLY", "_payload", "x" * 5000])
def test_an_unknown_provider_is_told_and_stored(name: str) -> None:
    webhook = Webhook(name, RECEIVED_US, b'{"assistantServer": {"secret": "s3cr3t"}, "a": 1}')
    found = NORMALISER.events(webhook)
    assert isinstance(found, Rejection)
    assert (found.code, found.field) == ("unknown_provider", "provider")
    assert NORMALISER.stored(webhook).webhook.body == b'{"a":1}'


def test_a_fault_of_ours_is_told_as_one_and_loses_nothing() -> None:
    def fail(webhook: Webhook) -> list[CallEvent]:
        raise KeyError(webhook.provider)

    broken = {"recho": providers()["recho"]._replace(events=fail)}
    found = Normaliser(broken, Privacy()).events(Webhook("recho", RECEIVED_US, b"{}"))
    assert isinstance(found, Rejection)
    assert (found.code, found.field) == ("internal_error", None)
    assert found.message.startswith("KeyError in fail, line")

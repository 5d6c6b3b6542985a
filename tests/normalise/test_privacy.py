"""What may not be stored is looked for in every byte of the lake, as an analyst or a thief would."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.backfill import backfill
from pipeline.model import Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.normalise.numbers import mask
from pipeline.providers import providers
from pipeline.query.views import connect
from pipeline.settings import load_settings

AT = "2026-05-12T09:00:00.000Z"
TOKEN, NUMBER, OTHER, SAID = ("tok3n-of-theirs", "+14155550123", "+14155550987", "we-said-this")
KEY = "k3y"


def interactly(call_id: str, /, **message: Any) -> dict[str, Any]:
    server = {"url": "https://x", "secret": TOKEN, "headers": {"Authorization": f"Bearer {TOKEN}"}}
    parties = {"userNumber": NUMBER, "assistantNumber": OTHER, "assistantId": "a1", "direction": "outbound"}
    return {
        "message": {
            "type": "status-update",
            "timestamp": 1_778_576_400_000,
            "call": {"id": call_id, "status": "ongoing", **parties},
            "assistant": {"assistantServer": server, "assistantSystemPrompt": SAID, "welcomeMessage": SAID},
            "customer": {"number": NUMBER},
            "messages": [{"role": "user", "text": SAID}],
            "analysis": {"summary": SAID, "structuredData": {"Name": SAID}},
            **message,
        }
    }


def whippy() -> dict[str, Any]:
    metadata = {"placeholders_data": {"x": SAID}, "analysis": {"summary": SAID}}
    data = {
        "id": "w1",
        "body": SAID,
        "translated_body": SAID,
        "from": NUMBER,
        "to": OTHER,
        "metadata": metadata,
    }
    return {"event": "call.started", "data": data}


def bus() -> dict[str, Any]:
    line = {"id": 1, "number": OTHER, "normalized": OTHER}
    parties = {
        "from": NUMBER,
        "to": OTHER,
        "external": NUMBER,
        "line": line,
        "numbers": {"to": [NUMBER, {"from": OTHER}]},
    }
    incoming = {"type": "DIALER.INCOMING", "payload": {"callUuid": "u1", "type": "external", **parties}}
    return {"agent_id": 1, "session_id": "s", "seq": 1, "sent_at": AT, "event": incoming}


WHOLE = interactly("i1")
TEXT = json.dumps(WHOLE)
UNPARSABLE = [
    TEXT[:-3],
    TEXT.replace("assistantServer", r"assistant\u0053erver")[:-1],
    TEXT.replace("assistantServer", r"\u0061ssistantServer").replace("Authorization", r"Auth\u006Frization")[
        :-1
    ],
    "{" + TEXT,
    TEXT.replace('"', "'"),
    f"assistantServer={{secret:{TOKEN},headers:{{Authorization:Bearer {TOKEN}}}}}",
    f"Authorization: Bearer {TOKEN}",
    json.dumps({"log": TEXT})[:-1],
]
PARSABLE = [
    WHOLE,
    TEXT.replace("assistantServer", r"assistant\u0053erver"),
    TEXT.replace("assistantServer", "AssistantSERVER"),
    TEXT.replace('"status-update"', r'"\ud800"'),
    TEXT.replace('"timestamp": 1778576400000', '"timestamp": NaN'),
    f'{{"message": {json.dumps(WHOLE["message"])}, {json.dumps(interactly("i2", assistant={}))[1:]}',
    interactly("", call={}),
    {"message": "none", "raw": {"deep": [[{"assistantServer": {"secret": TOKEN}}]]}},
    interactly("i3", raw=json.dumps({"assistantServer": {"secret": TOKEN}})),
    interactly("i4", assistant=json.loads("[" * 150 + json.dumps(WHOLE) + "]" * 150)),
    "\ufeff" + TEXT,
]


def lines() -> list[dict[str, Any]]:
    credentials = {
        "Authorization": f"Bearer {TOKEN}",
        "X-Interactly-Secret": TOKEN,
        "Cookie": TOKEN,
        "X-Fine": "fine",
    }
    bodies = [("interactly", body) for body in (*PARSABLE, *UNPARSABLE)]
    bodies += [("whippy", whippy()), ("whippy", json.dumps(whippy())[:-1]), ("aircall_bus", bus())]
    bodies += [("freeclimb", {"requestType": "callStatus", "callId": "f1", "from": NUMBER, "to": OTHER})]
    bodies += [
        ("recho", {"body": {"data": {"callId": "r1"}}, "authConfig": {"authType": "BEARER", "token": TOKEN}})
    ]
    bodies += [("nobody", WHOLE), ("nobody", whippy()), ("nobody", TEXT[:-1])]
    query = {"token": TOKEN, "agent_id": "7"}
    return [
        {"provider": p, "received_at": AT, "headers": credentials, "query": query, "body": body}
        for p, body in bodies
    ]


def stored(folder: Path, **privacy: str) -> str:
    """All text of all files of a lake filled under these settings."""
    archive = folder / "a.ndjson"
    told = [json.dumps(line) for line in lines()]
    archive.write_text("\n".join(told), encoding="utf-8")
    environ = {"CALLFOLD_PRIVACY_KEY": KEY} if privacy.get("privacy.numbers") == "hmac" else {}
    settings = load_settings({"lake": folder / "lake", **privacy}, environ, None, providers())
    summary = backfill(settings, [archive])
    assert (summary.webhooks, summary.unreadable) == (len(told), 0)
    texts = []
    for file in (folder / "lake").rglob("*"):
        if file.suffix == ".parquet":
            texts += [str(row) for row in pq.ParquetFile(file).read().to_pylist()]
        if file.is_file():
            texts.append(file.read_bytes().decode("latin-1"))
    return "\n".join(texts)


def test_by_default_no_secret_and_nothing_that_was_said_is_stored(tmp_path: Path) -> None:
    found = stored(tmp_path)
    assert TOKEN not in found
    assert SAID not in found
    assert NUMBER in found
    assert "fine" in found


def test_transcripts_are_kept_when_asked_for_and_secrets_still_are_not(tmp_path: Path) -> None:
    found = stored(tmp_path, **{"privacy.transcripts": "keep"})
    assert TOKEN not in found
    assert SAID in found


def test_masked_numbers_keep_their_last_four_digits_and_nothing_else(tmp_path: Path) -> None:
    found = stored(tmp_path, **{"privacy.numbers": "mask", "privacy.transcripts": "keep"})
    for number in (NUMBER, OTHER):
        assert number not in found
        assert number[1:-4] not in found
    assert TOKEN not in found
    with connect(tmp_path / "lake") as lake:
        parties = lake.sql(
            "select distinct from_number, to_number from open_calls where provider = 'whippy'"
        ).fetchall()
    assert parties == [("+*******0123", "+*******0987")]


def test_hashed_numbers_are_the_keyed_hash_everywhere(tmp_path: Path) -> None:
    found = stored(tmp_path, **{"privacy.numbers": "hmac", "privacy.transcripts": "keep"})
    assert NUMBER not in found
    assert NUMBER[1:] not in found
    assert KEY not in found.replace("call_key", "").replace("stream_key", "")
    expected = "hmac:" + hmac.new(KEY.encode(), NUMBER.encode(), hashlib.sha256).hexdigest()
    with connect(tmp_path / "lake") as lake:
        rows = lake.sql(
            "select provider, from_number, to_number from open_calls where call_id <> 'r1'"
        ).fetchall()
        bodies = lake.sql("select body from webhooks where provider = 'freeclimb'").fetchall()
    assert {provider for provider, *_ in rows} == {"interactly", "whippy", "aircall_bus", "freeclimb"}
    assert all(expected in parties for parties in rows)
    assert json.loads(bodies[0][0])["from"] == expected


def test_a_secret_in_another_encoding_is_a_secret() -> None:
    normaliser = Normaliser(providers(), Privacy())
    for encoding in ("utf-16", "utf-16-be", "utf-32"):
        for text in (TEXT, TEXT[:-2]):
            kept = normaliser.stored(Webhook("interactly", 0, text.encode(encoding))).webhook.body
            assert TOKEN.encode() not in kept.replace(b"\0", b"")
            assert SAID.encode() not in kept.replace(b"\0", b"")


def test_broken_text_hides_no_secret() -> None:
    normaliser = Normaliser(providers(), Privacy("mask"))
    body = TEXT.encode().replace(b"status-update", b"status\xffupdate")
    kept = normaliser.stored(Webhook("interactly", 0, body)).webhook.body
    for planted in (TOKEN, SAID, NUMBER):
        assert planted.encode() not in kept


def test_what_holds_nothing_to_take_out_is_kept_to_the_letter() -> None:
    normaliser = Normaliser(providers(), Privacy())
    for body in (
        b' {"callId" :"c1", "x":1.0}\n',
        b"not json, to: x",
        b"",
        b"\xff\x00",
        b'{"callId": "from: to"',
        b"[" * 9999,
    ):
        assert normaliser.stored(Webhook("freeclimb", 0, body)).webhook.body == body
    for body in (b'{"message":{"call":{"id":"c1"}}}', b"hello secretary"):
        assert normaliser.stored(Webhook("interactly", 0, body)).webhook.body == body


def test_long_broken_bodies_are_cut_in_reasonable_time() -> None:
    normaliser = Normaliser(providers(), Privacy("mask"))
    for unit in (
        b'"secret":1,',
        b'"secret":{',
        b'"number":"',
        b"secret=",
        b'\\\\\\"secret',
        b'"assistantServer":[}',
        b"\\",
        b'\\"',
        b"+1 1 1 1 1 1 1 1 1 1 1 1 ",
    ):
        normaliser.stored(Webhook("interactly", 0, b"{" + unit * (300_000 // len(unit))))


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+14155550123", "+*******0123"),
        ("(415) 555-0123", "(***) ***-0123"),
        ("12345", "*2345"),
        ("1234", "****"),
        ("Jo Doe", "******"),
        ("sip:desk12345@example.com", "********"),
        ("", ""),
    ],
)
def test_a_mask_leaves_four_digits_of_a_number_and_nothing_of_a_name(number: str, masked: str) -> None:
    assert mask(number) == masked
    assert mask(masked) == masked

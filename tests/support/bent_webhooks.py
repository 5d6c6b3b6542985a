"""Webhooks of every provider, as they are sent and bent in every way: what the compiled path is tried with."""

import copy
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.archive import read_archive
from pipeline.model import Webhook
from pipeline.simulate import generate

FIXTURES: Final = Path(__file__).parent.parent / "fixtures"
SIGNATURE: Final = "freeclimb-signature"


@cache
def archived(provider: str) -> list[Webhook]:
    """The webhooks of the provider's fixtures."""
    files = sorted((FIXTURES / provider).glob("*/webhooks.ndjson"))
    return [found for file in files for found in read_archive(file) if isinstance(found, Webhook)]


@cache
def simulated(provider: str, calls: int, seed: int, folder: Path) -> list[Webhook]:
    """The provider's undisturbed traffic; `folder` is for the archive that it is read from."""
    file = folder / f"simulated-{calls}-{seed}.ndjson"
    if not file.exists():
        file.write_bytes(b"\n".join(generate(calls, seed)))
    return [w for w in read_archive(file) if isinstance(w, Webhook) and w.provider == provider]


ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 7.5, 3.0, 41123.0, 0.1, 1e-5, 0.0001125, 0.0001135, 1e16, 1e308, -1e15, 10**18),
    *(10**30, -(2**63), 2**63),
    *(2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 2**64, 12, 600, 9_007_199_254_740_993, 1772409715, 1772409715445),
    *(1772409715445000, 1772409715.5, "1772409715", "1772409715445", "177240971५", "0000000000", "9999999999"),
    *("", " ", "\t\n", "\u00a0", "\u2003", "\x85", "\x1f", "\x1c", "\u200b", "x", "12", "007", "1.5", "1.", ".5"),
    *("-3", "+3", " 3", "1_0", "1e5", "1e999", "nan", "inf", "0x10", "٣", "\x00", "\ud800", "a\x1fb", "é", "\u2028"),
    *("é" * 1024, "é" * 1025, "x" * 1024, "x" * 1025, "é" * 512, " " * 1025, "20260512", "2000010112345"),
    *("999999999999999", "9999999999999999", "12.34.5", "123456789012.345", "0.30000000000000004"),
    *("2026-W10-1", "2026-03-02T00:01:55+05:30", "2026-03-02T00:01:55.0289999Z", "2026-03-02T00:01:55-00:00"),
    *("2026-03-02T00:01:55", "2026-03-02t00:01:55z", "2026-03-02 00:01:55Z", "2026-02-29T00:00:00Z"),
    *("2028-02-29T00:00:00.5Z", "2028-02-29T23:59:59.999Z", "2026-03-02T24:00:00Z", "2026-03-02T00:01:60Z"),
    *("2000-01-01T00:00:00+00:01", "2000-01-01T00:00:00Z", "2099-12-31T23:59:59.999999Z", "2100-01-01T00:00:00Z"),
    *("1999-12-31T23:59:59Z", "2026-13-45T00:00:00Z", "0000-01-01T00:00:00Z", "2026-03-02T00:01:55+24:00"),
    *([], {}, [None], ["a"], {"a": None}, [{"code": "E", "message": "token: abc", "phase": " "}, 5]),
    *({"totalCost": 1, "callDuration": "3"}, {"s3Bucket": " ", "path": 5}, {"successEvaluation": " "}),
    *({"callUuid": "u", "from": "client:1", "to": 5}, {"callUuid": None}, {"from": 7.0}, {"to": ["x"]}),
    *([{"content_type": "audio/x", "url": "https://f/x?sig=abc"}], float("nan"), float("inf")),
    *("finished", "forwarded", "call.ended", "call.other", "OUTBOUND_CALL_ERROR", "busy", "error", "web-Anna"),
    *("end-of-call-report", "DIALER.CALL_STATUS", "DIALER.SYNC", "DIALER.INCOMING", "DIALER.DIALING"),
    *("DIALER.OTHER", "USER.AVAILABILITY_CHANGED", "connecting", "accepting", "ringing", "connected", "hanging"),
    *("mandatoryTagging", "merging", "ended", "idle", "swapping", "startingWarmTransfer", "warmTransfer", "regular"),
    *("internal", "external", "client:12", "client:", "callStatus", "inboundCall", "completed", "noAnswer", "failed"),
    *("canceled", "queued", "inProgress", "machineDetected", "farEndHangup", "appReject", "outboundDial", "outbound"),
    *("token=abcdefgh1234", "https://u:pass@host/x", "Authorization: Bearer abcdefgh1234", "bearer abcdefgh1234"),
)  # fmt: skip
DEEP: Final = tuple(json.loads("[" * levels + "]" * levels) for levels in (150, 197, 198, 199, 200, 201, 300))
"""Around the number of levels that is allowed; seldom, for nothing else is tried with them."""
RAW: Final = (
    *(b"-0", b"-0.0", b"0.0", b"0e5", b"-0e1", b"1e400", b"-1e400", b"9" * 1020, b"9" * 4400, b"01", b"1.", b"1E5"),
    *(b"41123.0", b"5e-324", b"18446744073709551615", b"18446744073709551616", b"9223372036854775808", b"NaN", b"tru"),
    *(b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\n"', b'"\\q"', b'"\\/"'),
    *(b'{"\xff":1}', b'{"\\ud800":1}', b'{"a":1,"a":2}', b"{ }", b"[ ]", b"{\n\t}", b'["\\ud800"]', b"[1e400]", b""),
    *(b'"\x7f"', b'"\\u0063ompleted"', b"61.0", b"1e2", b"0.1e1", b"-61", b"1234567890123456789"),
    b"0.1234567890123456789",
)  # fmt: skip
KEYS: Final = (
    *("id", "callId", "callStatus", "callDuration", "callEndedReason", "requestType", "accountId", "direction"),
    *("from", "to", "parentCallId", "recordingUrl", "status", "flow", "type", "event", "payload", "metadata", "seq"),
    *("callUuid", "session_id", "agent_id", "sent_at", "zz", "callSid", "user_id", "data", "body", "message", "call"),
    *("errors", "cost", "authConfig", "duration", "created_at", "userId", "", "event_id", "Type", "call_id"),
)  # fmt: skip
SIGNATURES: Final = (
    *("t=1778576400,v1=00aa", "v1=00aa,t=1778576400", " t=1778576400 , v1=1", "t=1778576400", "t=,v1=1", "", ",", "t"),
    *("t=1,t=1778576400", "T=1778576400", "t =1778576400", "t= 1778576400", "t=1778576400.5", "t=1778576400445"),
    *("t=17785764०0", "\u00a0t=1778576400", "\x1ft=1778576400", "\tt=1778576400", "t=2026-05-12T09:00:00Z", "x=1"),
    *("t=0000000000", "t=9999999999", "t==1778576400", "t=-5", "t=abc,t=1778576400", "v1=" + "a" * 3000, "t=é"),
)  # fmt: skip

QUERIES: Final[tuple[dict[str, str], ...]] = (
    *(
        {},
        {"agent_id": "7"},
        {"agent_id": ""},
        {"agent_id": " "},
        {"agent_id": "\x1f"},
        {"agent_id": "é" * 600},
    ),
    *({"agent_id": "x" * 1025}, {"agent": "7"}, {"Agent_id": "7"}, {"a": "b", "agent_id": "41123.0"}),
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in below for found in _paths(item, (*path, key)))]


def _bend(payload: Any, dice: random.Random) -> Any:
    """One value replaced, taken out, added, made an array of what it holds, or marked to be written raw."""
    path = dice.choice(_paths(payload))
    kind, odd = dice.randrange(9), copy.deepcopy(dice.choice(ODD if dice.random() < 0.99 else DEEP))
    if not path:
        if kind == 0:
            return list(payload.values()) if isinstance(payload, dict) else odd
        if isinstance(payload, dict):
            payload[dice.choice(KEYS)] = odd
        return payload
    part = payload
    for key in path[:-1]:
        part = part[key]
    key = path[-1]
    if kind < 4:
        part[key] = odd
    elif kind == 4:
        del part[key]
    elif kind == 5:
        found = part[key]
        part[key] = list(found.values()) if isinstance(found, dict) else [found]
    elif kind == 6:
        part[key] = f"@raw{dice.randrange(len(RAW))}@"
    elif isinstance(part, dict):
        part[dice.choice(KEYS)] = odd if kind == 7 else part.pop(key)
    return payload


def _written(payload: Any, dice: random.Random) -> bytes:
    style: dict[str, Any] = dice.choice([{}, {"separators": (",", ":")}, {"indent": 2}, {"sort_keys": True}])
    body = json.dumps(payload, ensure_ascii=dice.random() < 0.7, **style).encode("utf-8", "surrogatepass")
    if b"@raw" in body:
        for place, raw in enumerate(RAW):
            body = body.replace(b'"@raw%d@"' % place, raw)
    return body


def _put_in(body: bytes, dice: random.Random) -> bytes:
    """The body with a field before the others of an object: one that is there already, or one that nobody knows."""
    opening = body.find(b"{", dice.randrange(len(body) + 1))
    if opening < 0:
        return body
    field = b'"%b":%b' % (dice.choice(KEYS).encode(), dice.choice(RAW))
    comma = b"" if body[opening + 1 :].lstrip().startswith(b"}") else b","
    return body[: opening + 1] + field + comma + body[opening + 1 :]


def _tear(body: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(body) + 1)
    return body[:place] + dice.randbytes(dice.randrange(4)) + body[place + dice.randrange(3) :]


def _recode(body: bytes, dice: random.Random) -> bytes:
    coding = dice.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1"])
    return body.decode("utf-8", "replace").encode(coding, "replace")


def _escape_a_key(body: bytes, dice: random.Random) -> bytes:
    key = dice.choice(KEYS) or "id"
    return body.replace(f'"{key}"'.encode(), f'"\\u{ord(key[0]):04x}{key[1:]}"'.encode())


def _add_around(body: bytes, dice: random.Random) -> bytes:
    return (
        dice.choice([b" ", b"\n", b"\x00", b"\xef\xbb\xbf", b"", b"\x0b"])
        + body
        + dice.choice([b" ", b"\r\n", b"\x00", b"{}", b",", b"", b"\xa0"])
    )


_BYTES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    *(_put_in, _put_in, _put_in),
    *(_tear, _recode, _escape_a_key, _add_around),
)


def bent(webhook: Webhook, dice: random.Random) -> Webhook:
    """The webhook with up to three values bent, some bytes, its headers, its query and its time."""
    payload = json.loads(webhook.body)
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3])):
        payload = _bend(payload, dice)
    body = _written(payload, dice)
    if dice.random() < 0.3:
        body = dice.choice(_BYTES)(body, dice)
    headers = dict(webhook.headers)
    if dice.random() < 0.2:
        headers[SIGNATURE] = dice.choice(SIGNATURES)
    elif dice.random() < 0.1:
        headers.pop(SIGNATURE, None)
    query = dice.choice(QUERIES) if dice.random() < 0.1 else webhook.query
    received_us = webhook.received_us
    if dice.random() < 0.1:
        received_us = dice.choice(
            [0, -1, 1, 946_684_800_000_000, 4_102_444_800_000_000, 2**53, 2**63 - 1, -(2**63)]
        )
    return msgspec.structs.replace(webhook, body=body, headers=headers, query=query, received_us=received_us)

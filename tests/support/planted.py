"""Webhooks of all providers with what nobody may find again planted wherever a sender could put it."""

import base64
import hashlib
import hmac
import itertools
import json
import re
import time
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

TOKEN, SAID, NAME, OURS = "tok3n-of-theirs", "we-s4id-this", "Pl4nted-Person", "0ur-own-secret"
"""A sender's secret, conversation, somebody's name, and the start of every secret of ours."""
AREA = "4155550"
"""In every planted number, and in nothing that is left of one: a mask shows four digits, a hash none."""
AT = "2026-05-12T09:00:00.000Z"
AT_MS = 1_778_576_400_000


def number(place: int) -> str:
    """The number planted in one place."""
    return f"+1{AREA}{100 + place}"


NUMBERS = [number(place) for place in range(64)]
N = NUMBERS


class Post(NamedTuple):
    """One request as a sender makes it."""

    provider: str
    body: bytes
    query: Mapping[str, str] = {}


def encoded(payload: Any) -> bytes:
    """The payload as JSON."""
    return json.dumps(payload).encode()


def anywhere(first: int) -> dict[str, Any]:
    """Numbers in fields that nobody has told of: texts, keys, links, payloads in texts. Takes nine of them."""
    n = N[first : first + 9]
    return {
        "note": f"call me at {n[0]} or tel:{n[1]}",
        "log": f"sip:{n[2]}@10.0.0.1:5060 gave 486",
        "link": f"https://u:{TOKEN}@files.example/r.wav?to=%2B{n[3][1:]}&token={TOKEN}&X-Amz-Signature={TOKEN}",
        "list": [[{"deep": f"+1 ({n[4][2:5]}) {n[4][5:8]}-{n[4][8:]}"}]],
        n[5]: "a key",
        "raw": json.dumps({"from": n[6][2:], "assistantServer": {"secret": TOKEN}, "transcript": SAID}),
        "callback": {"phoneNumber": n[7][2:]},
        "wide": "".join(chr(ord(c) + 0xFEE0) for c in n[8]),
        "problem": f"401 for Authorization: Bearer {TOKEN} (secret={TOKEN}), sent with {OURS}-interactly",
    }


def interactly(call_id: str, **message: Any) -> dict[str, Any]:
    server = {
        "url": "https://x",
        "secret": TOKEN,
        "headers": {"Authorization": f"Bearer {TOKEN}", "x": TOKEN},
    }
    return {
        "message": {
            "type": "error",
            "timestamp": AT_MS,
            "call": {
                "id": call_id,
                "status": "ongoing",
                "direction": "outbound",
                "userNumber": N[0],
                "assistantNumber": N[1],
                "assistantId": "a1",
                "phoneCallStatusReason": f"ringing {N[2]}",
                "assistantOverrides": {"dynamicVariables": {"name": SAID, N[3]: SAID}},
                "recording": {"s3Bucket": "b", "path": f"{N[4]}.mp3"},
                "AssistantServer": server,
            },
            "assistant": {"assistantServer": server, "assistantSystemPrompt": SAID, "welcomeMessage": SAID},
            "customer": {"number": f"web-{NAME}"},
            "messages": [{"role": "user", "text": SAID}],
            "analysis": {"summary": SAID, "structuredData": {"Name": SAID, "phone number": N[5]}},
            "error": {"type": "stt_error", "code": "x", "message": f"no route to {N[6]}"},
            **anywhere(7),
            **message,
        }
    }


def recho(**body: Any) -> dict[str, Any]:
    error = {"code": f"E {N[16]}", "message": f"{N[17]}: Bearer {TOKEN}", "stacktrace": f"at dial({N[18]})"}
    data = {"callId": "r1", "callStatus": "ERROR", "callSid": "CA1", "clientId": "c"}
    told = {
        "subject": f"call to {N[19]}",
        "text": f"to: {N[20]}\nTime: x",
        "data": data,
        "errors": [error],
        **body,
    }
    auth = {"authType": "BEARER", "token": TOKEN}
    return {"projectId": "p", "eventType": "OUTBOUND_CALL_ERROR", "body": told, "authConfig": auth}


def whippy() -> dict[str, Any]:
    metadata = {"type": "phone", "placeholders_data": {"x": SAID}, "analysis": {"summary": SAID}}
    attachment = {
        "content_type": "audio/wav",
        "url": f"https://x/{N[21]}.wav?X-Amz-Credential={TOKEN}&X-Amz-Signature={TOKEN}",
    }
    return {
        "event": "call.ended",
        "request_id": "q1",
        "created_at": AT,
        "data": {
            "id": "w1",
            "delivery_status": f"call_completed.error_{N[22]}",
            "body": SAID,
            "translated_body": SAID,
            "from": N[23],
            "to": f"({N[24][2:5]}) {N[24][5:8]}-{N[24][8:]}",
            "metadata": metadata,
            "attachments": [attachment],
        },
    }


def bus() -> dict[str, Any]:
    payload = {
        "callUuid": "u1",
        "type": "external",
        "from": N[25],
        "to": f"sip:{N[26]}@pbx.example",
        "external": {"number": N[27]},
        "line": {"id": 1, "number": N[28], "normalized": N[28]},
        "activeParticipant": {"external": N[29], "note": N[30]},
    }
    event = {"type": "DIALER.INCOMING", "payload": payload}
    return {"agent_id": 1, "session_id": "s", "seq": 1, "sent_at": AT, "event": event}


def freeclimb(kind: str = "callStatus", **fields: Any) -> dict[str, Any]:
    told = {
        "requestType": kind,
        "callId": "f1",
        "callStatus": "completed",
        "from": N[31],
        "to": f"sip:{N[32]}@x",
    }
    told |= {"callEndedReason": f"to {N[33]}", "recordingUrl": f"https://u:{TOKEN}@x/r?token={TOKEN}"}
    return told | fields


def posts() -> Iterator[Post]:
    """Webhooks that are understood, and such as end in quarantine."""
    yield Post("interactly", encoded(interactly("i1")))
    yield Post("interactly", encoded(interactly("i2")).replace(b"assistantServer", rb"assistant\u0053erver"))
    yield Post("interactly", encoded(interactly("", call={})))
    yield Post("interactly", encoded(interactly("i3"))[:-3])
    yield Post("interactly", b"{'x': 1, " + encoded(interactly("i4")).replace(b'"', b"'"))
    yield Post("interactly", encoded({"log": json.dumps(interactly("i5"))}))
    yield Post("interactly", encoded({"log": json.dumps(interactly("i6"))})[:-9])
    yield Post("recho", encoded(recho()), {"token": TOKEN, "password": TOKEN, "note": N[34], "to": N[35]})
    yield Post("recho", encoded(recho(data=None)))
    yield Post("whippy", encoded(whippy()))
    yield Post("whippy", encoded(whippy())[:-1])
    yield Post("whippy", encoded({**whippy(), "data": {**whippy()["data"], "id": None}}))
    yield Post("aircall_bus", encoded(bus()))
    yield Post("aircall_bus", encoded(bus()["event"]), {"agent_id": "7", "api_key": TOKEN})
    yield Post("aircall_bus", encoded(bus()["event"]))
    yield Post("freeclimb", encoded(freeclimb()))
    yield Post("freeclimb", encoded(freeclimb("getSpeech", recognitionResult=SAID, digits=SAID)))
    yield Post("freeclimb", encoded(freeclimb(callId=None)))
    yield Post(
        "freeclimb", f"callId=f2&From=%2B{N[36][1:]}&to={N[37][2:]}&Authorization=Bearer+{TOKEN}".encode()
    )
    twice = encoded(freeclimb(callId="f3"))[:-1] + b', "note": "' + N[38].encode() + b'", "note": "x"}'
    yield Post("freeclimb", twice)


IN_POSTS = [n for n in NUMBERS[:38] if n not in {N[3], N[5]}]
"""The numbers of `posts` that stand neither in conversation nor under a key that comes twice."""


def secret_of(provider: str) -> str:
    """Our secret for a provider."""
    return f"{OURS}-{provider}"


def signed(post: Post) -> dict[str, str]:
    """The headers of a request that is let in, with more in them than is needed."""
    seconds, key = str(int(time.time())), secret_of(post.provider).encode()
    digest = hmac.digest(key, seconds.encode() + b"." + post.body, hashlib.sha256)
    told = {
        "Content-Type": "application/json",
        "Cookie": f"sid={TOKEN}",
        "X-Api-Key": TOKEN,
        "X-Caller": N[40],
    }
    told["Authorization"] = f"Bearer {secret_of(post.provider)}"
    if post.provider == "interactly":
        told |= {"X-Interactly-Secret": secret_of(post.provider), "Authorization": f"Bearer {TOKEN}"}
    elif post.provider == "whippy":
        told["X-Whippy-Signature"] = f"t={seconds},s={base64.b64encode(digest).decode().rstrip('=')}"
    elif post.provider == "freeclimb":
        told["FreeClimb-Signature"] = f"t={seconds},v1={digest.hex()}"
    return told


def lines() -> Iterator[bytes]:
    """The posts as lines of an archive."""
    for place, post in enumerate(posts()):
        body = post.body.decode()
        told = {
            "provider": post.provider,
            "received_at": f"2026-05-12T09:00:{place:02}Z",
            "headers": signed(post),
        }
        yield encoded(told | {"query": dict(post.query), "body": body})


def texts_in(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, all that can be read in it) of everything below a folder; what Parquet compresses is unpacked."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield str(file), file.read_bytes().decode("latin-1")
        if file.suffix == ".parquet":
            columns = pq.ParquetFile(file).read().to_pydict().values()
            cells = itertools.chain.from_iterable(columns)
            yield (
                str(file),
                "\n".join(c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in cells),
            )


def squeezed(text: str) -> str:
    """The text with its digits in one writing and nothing between them."""
    return re.sub(r"[\s().\-]", "", unicodedata.normalize("NFKC", text))


def traces(texts: Iterator[tuple[str, str]], needle: str) -> list[str]:
    """Where a planted value can be read, with what stands around it."""
    found = []
    for file, text in texts:
        for told in (text, squeezed(text)):
            found += [
                f"{file}: …{told[max(0, m.start() - 80) : m.end() + 40]!r}"
                for m in re.finditer(re.escape(needle), told)
            ]
    return found

"""Signed webhooks of every provider as raw HTTP, and the ways in which a sender, or an attacker, may bend them."""

import copy
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signing import PROVIDERS, RSA_PUBLIC, signed_headers

from pipeline.archive import read_archive
from pipeline.model import Webhook

FIXTURES = Path(__file__).parent.parent / "fixtures"
SECRET = "s3cret-0f-the-t3st"
MAX_BODY_BYTES = 65_536
"""Small, so that bodies over it are cheap."""
OPEN_ENDED = 1 << 70


def settings() -> dict[str, str]:
    """The collector's settings under which the unbent requests are let in."""
    secrets = {name: RSA_PUBLIC.replace("\n", "\\n") if name == "recho" else SECRET for name in PROVIDERS}
    found = {f"CALLFOLD_{name.upper()}_SECRET": secret for name, secret in secrets.items()}
    found |= {f"CALLFOLD_{name.upper()}_AUTH": "signature" for name in PROVIDERS}
    return found | {"CALLFOLD_HTTP_MAX_BODY_BYTES": str(MAX_BODY_BYTES)}


@dataclass
class Draft:
    """A request while it is being bent."""

    provider: str
    body: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    method: bytes = b"POST"
    version: bytes = b"HTTP/1.1"
    #: None: as many bytes as there are
    length: bytes | None = None
    chunks: bytes | None = None

    def head(self, name: bytes, value: bytes) -> None:
        """Set a header, in the place of any of this name."""
        self.headers = [(n, v) for n, v in self.headers if n.lower() != name.lower()] + [(name, value)]

    def raw(self) -> bytes:
        """The bytes to be sent."""
        lines = [b" ".join((self.method, self.target, self.version)), b"Host: collector"]
        lines += [name + b": " + value for name, value in self.headers]
        body = self.body if self.chunks is None else self.chunks
        length = b"%d" % len(body) if self.length is None else self.length
        lines.append(b"Content-Length: " + length if self.chunks is None else b"Transfer-Encoding: chunked")
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


Rng = random.Random
Bend = Callable[[Rng, Draft], None]


class Corpus:
    """The webhooks of the fixtures, signed when they are drawn."""

    def __init__(self) -> None:
        files = {name: sorted((FIXTURES / name).glob("*/webhooks.ndjson")) for name in PROVIDERS}
        self._webhooks = {
            name: [w for path in paths for w in read_archive(path) if isinstance(w, Webhook)]
            for name, paths in files.items()
        }
        self._signed: dict[tuple[str, bytes], Mapping[str, str]] = {}
        self._time = str(int(time.time()))

    def request(self, rng: Rng, names: list[str]) -> tuple[Draft, bool]:
        """A request with these mutations, and whether it has to travel alone: what follows it may be lost."""
        provider = rng.choice(PROVIDERS)
        webhook = rng.choice(self._webhooks[provider])
        draft = Draft(provider, webhook.body, f"/webhooks/{provider}".encode())
        if webhook.query:
            draft.target += b"?" + "&".join(f"{k}={v}" for k, v in webhook.query.items()).encode()
        for name in names:
            if name in PAYLOAD:
                PAYLOAD[name](rng, draft)
        draft.headers = [(b"Content-Type", b"application/json"), *self._proof(provider, draft.body)]
        for name in names:
            bend = AROUND.get(name) or ALONE.get(name)
            if bend is not None:
                bend(rng, draft)
        return draft, any(name in ALONE for name in names)

    def _proof(self, provider: str, body: bytes) -> list[tuple[bytes, bytes]]:
        known = self._signed.get((provider, body))
        if known is None:
            if len(self._signed) > 5000:
                self._signed.clear()
            known = self._signed[provider, body] = signed_headers(provider, SECRET, self._time, body)
        return [(name.encode(), value.encode()) for name, value in known.items()]


ODD: list[Any] = [
    *(None, True, 0, -1, 7.5, 1e308, 10**30, -(2**63), "", " ", "x" * 3000, "\x00", "\ud800", "٣", "nan"),
    *([], {}, [None], {"a": None}, {"id": "c1"}, [{"code": []}, 5], "2026-13-45T00:00:00Z", "finished"),
]


def _replace(rng: Rng, draft: Draft) -> None:
    try:
        payload = json.loads(draft.body)
    except (ValueError, RecursionError):
        # Something has bent it already.
        return
    for _ in range(rng.randint(1, 3)):
        part = payload
        while isinstance(part, dict | list) and part:
            key = rng.choice(list(part)) if isinstance(part, dict) else rng.randrange(len(part))
            if not isinstance(part[key], dict | list) or rng.random() < 0.2:
                part[key] = copy.deepcopy(rng.choice(ODD))
                break
            part = part[key]
    draft.body = json.dumps(payload).encode()


def _nest(rng: Rng, draft: Draft) -> None:
    depth = rng.choice((199, 200, 201, 1000, 15_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]"), (b"[", b"")))
    inner = draft.body if rng.random() < 0.5 else b"1"
    draft.body = opening * (depth // len(opening) + 1) + inner + closing * (depth // len(opening) + 1)


def _double(rng: Rng, draft: Draft) -> None:
    draft.body = draft.body[:-1] + b"," + draft.body[1:] if draft.body[:1] == b"{" else draft.body * 2


def _tear(rng: Rng, draft: Draft) -> None:
    place = rng.randint(0, len(draft.body))
    draft.body = (
        draft.body[:place] + rng.randbytes(rng.randint(0, 4)) + draft.body[place + rng.randint(0, 9) :]
    )


def _cut(rng: Rng, draft: Draft) -> None:
    draft.body = draft.body[: rng.randint(0, len(draft.body))]


def _recode(rng: Rng, draft: Draft) -> None:
    draft.body = draft.body.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))


def _noise(rng: Rng, draft: Draft) -> None:
    draft.body = rng.choice(
        (rng.randbytes(rng.randint(0, 300)), b"a=1&b=2", b"<html>", b"\x1f\x8b\x08" + b"0" * 90)
    )


def _number(rng: Rng, draft: Draft) -> None:
    draft.body = b'{"callId": ' + rng.choice((b"9" * 4000, b"1e99999", b"-0", b"0x10", b"NaN", b"01")) + b"}"


def _swell(rng: Rng, draft: Draft) -> None:
    draft.body = b" " * (MAX_BODY_BYTES + rng.choice((-1, 0, 1, 5000)))


PAYLOAD: dict[str, Bend] = {
    "payload: values": _replace,
    "payload: depth": _nest,
    "payload: keys twice": _double,
    "payload: torn": _tear,
    "payload: cut": _cut,
    "payload: encoding": _recode,
    "payload: noise": _noise,
    "payload: numbers": _number,
    "payload: size": _swell,
}
"""Before it is signed: all of these are stored, but for those that are too large."""


def _forge(rng: Rng, draft: Draft) -> None:
    place = rng.randrange(len(draft.headers))
    name, value = draft.headers[place]
    if not value:
        return
    text = bytearray(value)
    text[rng.randrange(len(text))] = rng.choice(b"0aZ=, ;")
    forged = (
        bytes(text),
        value[: rng.randint(0, len(value))],
        value + b",v1=00",
        b"",
        b"\xff",
        value.upper(),
        b"t=1",
    )
    draft.headers[place] = name, rng.choice(forged)


def _unproven(rng: Rng, draft: Draft) -> None:
    draft.headers = [(name, value) for name, value in draft.headers if name == b"Content-Type"]


def _proof_twice(rng: Rng, draft: Draft) -> None:
    proofs = [header for header in draft.headers if header[0] != b"Content-Type"]
    if not proofs:
        return
    name, value = rng.choice(proofs)
    draft.headers.insert(rng.randint(1, len(draft.headers)), (name.upper(), rng.choice((value, b"x"))))


def _change_body(rng: Rng, draft: Draft) -> None:
    draft.body += rng.choice((b" ", b"\n", b"\x00", b"{}"))


def _type(rng: Rng, draft: Draft) -> None:
    types = (
        b"text/plain", b"", b"application/json;;;", b"APPLICATION/JSON", b"application/problem+json", b"*/*", b"json",
        b'application/json; charset="', b"\xff/json", b"application/json, text/html", b"multipart/form-data; boundary=",
    )  # fmt: skip
    draft.head(b"Content-Type", rng.choice(types))


def _header(rng: Rng, draft: Draft) -> None:
    given = (
        (b"Content-Encoding", rng.choice((b"gzip", b"identity", b"br, gzip", b"\xff"))),
        (b"X-Request-Id", rng.choice((b"abc-1", b"x" * 65, b"\xff", b"a b", b"${jndi:ldap://x}", b""))),
        (b"Origin", rng.choice((b"null", b"https://page.example", b"\xff", b"*"))),
        (b"Expect", b"100-continue"),
        (b"Cookie", b"a=b; " * 50),
        (b"X" * rng.randint(1, 60), rng.randbytes(20).translate(None, bytes(range(32)) + b"\x7f")),
        (b"X-Forwarded-For", b"127.0.0.1"),
        (b"Content-Language", b"\xc3\xa9" * 50),
        (b"Range", b"bytes=0-,-1"),
    )
    draft.head(*rng.choice(given))


def _path(rng: Rng, draft: Draft) -> None:
    targets = (
        b"/webhooks/nobody", b"/webhooks/", b"/webhooks", b"/", b"//webhooks/recho", b"/webhooks/../webhooks/recho",
        b"/webhooks%2Frecho", b"/webhooks/rech%6f", b"/webhooks/recho/", b"/webhooks/recho%00", b"/webhooks/%ff",
        b"/webhooks/" + b"a" * 3000, b"/webhooks/recho%0d%0aX:y", b"/webhooks/{provider}", b"/webhooks/__class__",
        b"/health/live", b"/metrics", b"/relay/aircall_bus.js", b"/webhooks/recho;a=b", b"/webhooks/recho.js",
    )  # fmt: skip
    draft.target = rng.choice(targets)


def _query(rng: Rng, draft: Draft) -> None:
    queries = (
        b"a=%zz%ff", b"a=%ED%A0%80", b"agent_id=1&agent_id=2", b"=&=&&&", b"%00=%00", b"a=%0d%0ab", b"agent_id=",
        b"a[]=1&a[x]=2", b"a" * 3000, b"&".join(b"k%d=v" % n for n in range(300)), b"?#", b"agent_id=" + b"9" * 400,
    )  # fmt: skip
    draft.target = draft.target.partition(b"?")[0] + b"?" + rng.choice(queries)


def _method(rng: Rng, draft: Draft) -> None:
    draft.method = rng.choice((b"PUT", b"GET", b"DELETE", b"PATCH", b"TRACE", b"PROPFIND"))


def _chunk(rng: Rng, draft: Draft) -> None:
    size = rng.choice((1, 7, 1000, 70_000))
    pieces = [draft.body[n : n + size] for n in range(0, min(len(draft.body), 200 * size), size)]
    ending = rng.choice((b"", b";a=b", b';name="value"'))
    coded = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), ending, piece) for piece in pieces)
    draft.chunks = coded + b"0\r\n" + rng.choice((b"", b"X-Trailer: y\r\n")) + b"\r\n"


AROUND: dict[str, Bend] = {
    "credentials: forged": _forge,
    "credentials: left out": _unproven,
    "credentials: twice": _proof_twice,
    "credentials: other body": _change_body,
    "header: content type": _type,
    "header: others": _header,
    "address: path": _path,
    "address: query": _query,
    "request: method": _method,
    "request: chunks": _chunk,
}
"""Around a payload, and still HTTP."""


def _lengths(rng: Rng, draft: Draft) -> None:
    size = len(draft.body)
    lengths = (
        size + 1,
        size + 1000,
        max(0, size - 1),
        0,
        -1,
        OPEN_ENDED,
        b"+5",
        b"0x10",
        b"",
        b"1 1",
        b"7, 7",
        b"\xff",
    )
    length = rng.choice(lengths)
    draft.length = length if isinstance(length, bytes) else b"%d" % length


def _smuggle(rng: Rng, draft: Draft) -> None:
    codings = (
        b"chunked",
        b"chunked, chunked",
        b"gzip, chunked",
        b"xchunked",
        b"identity",
        b" chunked",
        b"\x0bchunked",
    )
    draft.headers.append((b"Transfer-Encoding", rng.choice(codings)))
    if rng.random() < 0.5:
        draft.headers.append((b"Content-Length", b"5"))


def _break_chunks(rng: Rng, draft: Draft) -> None:
    _chunk(rng, draft)
    assert draft.chunks is not None
    text = bytearray(draft.chunks)
    for _ in range(rng.randint(1, 3)):
        text[rng.randrange(min(len(text), 12))] = rng.choice(b"\r\n;0fFZ-\x00")
    sizes = (b"FFFFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"FFFFFFFF\r\n", b"7;" + b"e" * 20_000 + b"\r\n")
    draft.chunks = bytes(text) if rng.random() < 0.7 else rng.choice(sizes) + draft.body


def _bad_header(rng: Rng, draft: Draft) -> None:
    headers = (
        (b"X", b"a\x00b"), (b"X", b"a\rb"), (b"X", b"a\nb"), (b"X", b"a\r\n folded"), (b"X y", b"z"), (b"", b"z"),
        (b"X", b"y" * 9000), (b"\xff", b"z"), (b"Host", b"second"), (b"Expect", b"tea"),
        (b"Expect", b"\xff"), (b"Upgrade", b"websocket"),
        (b"X" * 9000, b"y"), (b"Connection", b"upgrade"), (b"Connection", b"close"),
        (b"Content-Type", b"application/json"),
    )  # fmt: skip
    draft.headers += [rng.choice(headers) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.2:
        draft.headers += [(b"X-%d" % n, b"y") for n in range(rng.choice((100, 127, 128, 500)))]


def _request_line(rng: Rng, draft: Draft) -> None:
    draft.method = rng.choice((b"POST", b"post", b"CONNECT", b"HEAD", b"", b"P\x00ST", b"X" * 5000, b"PRI"))
    draft.version = rng.choice(
        (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 ", b"", b"http/1.1")
    )
    odd = (
        b"*",
        b"http://[::1/x",
        b"http://h:99999/webhooks/recho",
        b"/webhooks/recho\xff",
        b"/a b",
        b"/" + b"u" * 9000,
    )
    if rng.random() < 0.5:
        draft.target = rng.choice((*odd, b"", b"webhooks/recho", b"//[", b"/webhooks/recho?a=\xed\xa0\x80"))


ALONE: dict[str, Bend] = {
    "framing: length": _lengths,
    "framing: smuggling": _smuggle,
    "framing: chunks": _break_chunks,
    "framing: headers": _bad_header,
    "framing: request line": _request_line,
}
"""Maybe no HTTP any longer."""


def flipped(rng: Rng, raw: bytes) -> bytes:
    """The bytes with some of them changed, put in or taken out, mostly in the head."""
    text = bytearray(raw)
    for _ in range(rng.randint(1, 5)):
        place = rng.randrange(min(len(text), rng.choice((30, 400, len(text)))))
        text[place : place + rng.randint(0, 2)] = rng.choice(
            (b"", b"\r\n", b"\x00", rng.randbytes(2), b":", b" ")
        )
        text = text or bytearray(b"x")
    return bytes(text)


NAMES = (*PAYLOAD, *AROUND, *ALONE, "bytes")

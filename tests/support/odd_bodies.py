"""Payloads and bodies that a redactor has to look at closely, and such as no serialiser would write."""

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from planted import OURS, SAID, TOKEN, number

OWN = (f"{OURS}-interactly", f'{OURS}-with-"quotes"\\-and-é', "rotated-out-long-ago")
"""Secrets of ours, one of them no longer in use, one written with escapes in JSON."""
N = number(50)
TEXTS = (
    *(
        "",
        " ",
        "x",
        "web-Anna",
        "client:1",
        "+",
        "[dropped]",
        "hmac:" + "0" * 64,
        "\x00",
        "\u2028",
        "é" * 300,
    ),
    *(N, N[2:], f"sip:{N}@x", f"tel:{N}", f"call {N}!", f"%2B{N[1:]}", f"\uff0b{N[1:]}", f"&#43;{N[1:]}"),
    *(
        "+4155550",
        "+1 (415) 555-0123",
        "+١٤١٥٥٥٥٠١٢٣",
        "web-+14155550150",
        "2026-05-12T09:00:00.000Z",
        "12:30",
    ),
    *(
        f"token={TOKEN}",
        f"Authorization: Bearer {TOKEN}",
        f"https://u:{TOKEN}@x/?sig={TOKEN}",
        f"'secret':{TOKEN}",
    ),
    *(
        f"\u017fecret: {TOKEN}",
        f"to\u212aen={TOKEN}",
        f"S\u0131gnature={TOKEN}",
        f"bearer\u00a0{TOKEN}",
        "BEARER x",
    ),
    *(
        f'{{"hush": "{TOKEN}", "to": "{N}"}}',
        f' \n[{{"Transcript": "{SAID}"}}]',
        f'{{"secret": "{TOKEN}"',
        "{}",
    ),
    *(
        f'x {{\\"secret\\": \\"{TOKEN}\\"}}',
        f"{{'password': '{TOKEN}'}}",
        f'say \\"to\\": \\"{N}\\"',
        "[1, 2",
        "[x]",
    ),
    *(
        OWN[0],
        f"so {OWN[1]} is it",
        json.dumps(OWN[1]),
        f"x{OWN[2]}x",
        OWN[0][:-1],
        "x" * 20_000,
        f"{N} " * 3,
    ),
    *("[" * 150 + f'"token={TOKEN}"' + "]" * 150, json.dumps(json.dumps({"secret": TOKEN})), '{"a":' * 90),
)
KEYS = (
    *(
        "id",
        "Id",
        "call",
        "message",
        "data",
        "x y",
        "zz",
        "who",
        "whoId",
        "hush",
        "Hush Hush",
        "HUSH",
        "said it",
    ),
    *(
        "from",
        "to",
        "TO",
        "number",
        "ani",
        "phone number",
        "Phone",
        "callerId",
        "transcript",
        "summary",
        "messages",
    ),
    *(
        "assistantServer",
        "ASSISTANTSERVER",
        "\u017fecret",
        "to\u212aen",
        "secret",
        "Authorization",
        "body",
        "text",
    ),
    *("payload", "metadata", "callUuid", "callId", "assistantNumber", "assistantId", "errors", "digits"),
)
ODD_KEYS = (
    *KEYS,
    *(
        N,
        f"tel:{N}",
        f"token={TOKEN}",
        OWN[0],
        OWN[1],
        f'{{"secret":"{TOKEN}"}}',
        "",
        " ",
        "[1]",
        "a.b-c",
        "é",
    ),
)
"""With one of them the whole body goes the plain way, so they come in few."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.0, 7.5, 1e308, 5e-324, 10**18, 10**30, 4_155_550_123, 14155550123.0),
    *(
        [],
        {},
        [[]],
        [None],
        {"": ""},
        [N, {"to": [N, 5, None, {"from": N[2:], "hush": 1}]}],
        {"a": [TOKEN, SAID]},
    ),
    *(json.loads("[" * depth + f'"{N}"' + "]" * depth) for depth in (60, 190)),
)


@st.composite
def payloads(draw: st.DrawFn) -> Any:
    """Objects of keys that matter, in any place, with values that matter or do not."""
    dice = random.Random(draw(st.integers(0, 2**48)))
    keys = ODD_KEYS if dice.random() < 0.2 else KEYS

    def made(depth: int) -> Any:
        kind = dice.randrange(10)
        if kind < 4 or depth > 4:
            return dice.choice(TEXTS)
        if kind == 4:
            return copy.deepcopy(dice.choice(VALUES))
        if kind == 5:
            return [made(depth + 1) for _ in range(dice.randrange(4))]
        return {dice.choice(keys): made(depth + 1) for _ in range(dice.randrange(7))}

    return {dice.choice(keys): made(1) for _ in range(dice.randrange(9))}


def written(payload: Any, dice: random.Random) -> bytes:
    """The payload as one of several serialisers writes it."""
    style: dict[str, Any] = dice.choice([{}, {"separators": (",", ":")}, {"indent": 1}])
    ascii_only = dice.random() < 0.3
    return json.dumps(payload, ensure_ascii=ascii_only, **style).encode("utf-8", "surrogatepass")


RAW = (
    *(
        b"1e400",
        b"-1e400",
        b"9" * 1020,
        b"9" * 4400,
        b"01",
        b"-0",
        b"1E5",
        b"1.0",
        b"NaN",
        b"-Infinity",
        b"tru",
    ),
    *(b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\u0000"', b'"\n"', b'"\\q"', b'{"\xff":1}', b'"\\/"'),
    *(
        b'"\\u002b14155550123"',
        b'"to\\u006ben=%s"' % TOKEN.encode(),
        b'{"\\u0073ecret":"%s"}' % TOKEN.encode(),
    ),
    *(b"[" * depth + b"]" * depth for depth in (195, 198, 199, 200, 201, 300, 1200)),
    b'{"secret":"%s","secret":1,"a":1,"a":"%s"}' % (TOKEN.encode(), TOKEN.encode()),
)


@st.composite
def bent(draw: st.DrawFn, bodies: Sequence[bytes]) -> bytes:
    """One of the bodies with values and keys put in, and with bytes that no serialiser would write."""
    body = draw(st.sampled_from(bodies))
    dice = random.Random(draw(st.integers(0, 2**48)))
    try:
        payload = json.loads(body)
    except ValueError:
        payload = {}
    for _ in range(dice.randrange(4)):
        part = payload
        while isinstance(part, dict | list) and part:
            key = dice.choice(list(part)) if isinstance(part, dict) else dice.randrange(len(part))
            if not isinstance(part[key], dict | list) or dice.random() < 0.2:
                part[key] = copy.deepcopy(dice.choice((*VALUES, *TEXTS)))
                break
            if isinstance(part, dict) and dice.random() < 0.2:
                part[dice.choice(KEYS)] = copy.deepcopy(dice.choice((*VALUES, *TEXTS)))
                break
            part = part[key]
    body = written(payload, dice) if dice.random() < 0.8 else body
    kind, place = dice.randrange(8), dice.randrange(len(body) + 1)
    opening = body.find(b"{", place)
    if kind < 3 and opening >= 0:
        field = json.dumps(dice.choice(ODD_KEYS)).encode() + b":" + dice.choice(RAW)
        comma = b"" if body[opening + 1 :].lstrip().startswith(b"}") else b","
        return body[: opening + 1] + field + comma + body[opening + 1 :]
    if kind == 3:
        return body[:place] + dice.randbytes(dice.randrange(4)) + body[place + dice.randrange(3) :]
    if kind == 4:
        coded = dice.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1"])
        return body.decode("utf-8", "replace").encode(coded, "replace")
    return body

"""Who is believed: known answers, and for each provider what is a little wrong and must not be."""

from collections.abc import Callable

import pytest
from signing import ALONE, BODY, KNOWN, NOW, PROVIDERS, SIGNED_HEADER, TIMED, Request, signed, signed_headers

from pipeline.collect.verify import verify
from pipeline.providers import providers
from pipeline.settings import ProviderAuth


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_known_answer_is_believed(provider: str) -> None:
    assert KNOWN[provider].is_accepted


Change = Callable[[Request], Request]
EVERYWHERE: dict[str, Change] = {
    "no proof": lambda r: r.having(**{SIGNED_HEADER[r.provider]: None}),
    "no headers at all": lambda r: r._replace(headers={}),
    "empty": lambda r: r.proved_by(""),
    "a space": lambda r: r.proved_by(" "),
    "cut by one": lambda r: r.proved_by(r.proof[:-1]),
    "cut in half": lambda r: r.proved_by(r.proof[: len(r.proof) // 2]),
    "without its beginning": lambda r: r.proved_by(r.proof[1:]),
    "twice, as a proxy joins two headers": lambda r: r.proved_by(f"{r.proof}, {r.proof}"),
    "something behind": lambda r: r.proved_by(r.proof + "x"),
    "NUL before": lambda r: r.proved_by("\0" + r.proof),
    "a quote around": lambda r: r.proved_by(f'"{r.proof}"'),
    "NUL behind": lambda r: r.proved_by(r.proof + "\0"),
    "NUL within": lambda r: r.proved_by(r.proof[:-3] + "\0" + r.proof[-3:]),
    "NUL instead of the last": lambda r: r.proved_by(r.proof[:-1] + "\0"),
    "another last character": lambda r: r.proved_by(r.proof[:-1] + ("0" if r.proof[-1] != "0" else "1")),
    "a space within": lambda r: r.proved_by(r.proof[:-3] + " " + r.proof[-3:]),
    "bytes that are no UTF-8 behind": lambda r: r.proved_by(r.proof + "\udcff"),
    "a surrogate that no bytes make": lambda r: r.proved_by(r.proof + "\ud800"),
    "a letter that looks alike": lambda r: r.proved_by(r.proof[:-1] + "ѕ"),
    "full-width": lambda r: r.proved_by("".join(chr(ord(c) + 0xFEE0) if c > " " else c for c in r.proof)),
    "upper case": lambda r: r.proved_by(r.proof.upper()),
    "percent-encoded": lambda r: r.proved_by("".join(f"%{ord(c):02x}" for c in r.proof)),
    "a long one": lambda r: r.proved_by(r.proof + "," * 1_000_000),
    "another secret": lambda r: r._replace(secrets=("another",)),
    "the secret cut": lambda r: r._replace(secrets=(r.secrets[0].strip()[:-1],)),
    "no secret": lambda r: r._replace(secrets=()),
    "an empty secret": lambda r: r._replace(secrets=("",)),
    "bearer asked for": lambda r: r._replace(auth="bearer", secrets=("another",)),
    **{
        f"what {other} would send": lambda r, other=other: r._replace(
            headers=dict(KNOWN[other].headers) if other != r.provider else {}
        )
        for other in PROVIDERS
    },
}


@pytest.mark.parametrize("change", EVERYWHERE.values(), ids=EVERYWHERE)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_proof_that_is_a_little_wrong_is_not_believed(provider: str, change: Change) -> None:
    assert ALONE[provider].is_accepted
    assert not change(ALONE[provider]).is_accepted


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_character_of_a_proof_may_be_another(provider: str) -> None:
    request = ALONE[provider]
    # The scheme `Bearer` has no case, and the names of Whippy's parts are not known.
    first = {"aircall_bus": 7, "whippy": len(f"t={NOW},v1=")}.get(provider, 0)
    for place in range(first, len(request.proof)):
        for other in {chr(ord(request.proof[place]) ^ 1), chr(ord(request.proof[place]) ^ 32), "A", "\0"}:
            if other != request.proof[place]:
                bent = request.proof[:place] + other + request.proof[place + 1 :]
                assert not request.proved_by(bent).is_accepted, bent


@pytest.mark.parametrize("provider", PROVIDERS)
def test_several_secrets_are_right_in_any_order(provider: str) -> None:
    request = KNOWN[provider]
    others = ("old", "", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
    for place in range(len(others) + 1):
        secrets = (*others[:place], *request.secrets, *others[place:])
        assert request._replace(secrets=secrets).is_accepted
    assert not request._replace(secrets=others).is_accepted


BODIES: dict[str, bytes] = {
    "empty": b"",
    "a space behind": BODY + b" ",
    "a line end behind": BODY + b"\n",
    "a byte-order mark": b"\xef\xbb\xbf" + BODY,
    "one bit": bytes([BODY[0] ^ 1]) + BODY[1:],
    "cut": BODY[:-1],
    "keys in another order": '{"n": 1.0, "callId": "c1", "name": "Zoë"}'.encode(),
    "written anew": '{"callId":"c1","n":1.0,"name":"Zoë"}'.encode(),
    "escaped": b'{"callId": "c1",\n  "n": 1.0, "name": "Zo\\u00eb"}',
    "in Latin-1": BODY.decode().encode("latin-1"),
    "other line ends": BODY.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("provider", TIMED)
def test_a_signature_is_of_these_very_bytes(provider: str, body: bytes) -> None:
    assert signed(provider).is_accepted
    assert not signed(provider)._replace(body=body).is_accepted
    assert signed(provider, body=body).is_accepted


@pytest.mark.parametrize("provider", TIMED)
def test_the_time_may_be_five_minutes_off(provider: str) -> None:
    request = signed(provider)
    for seconds in (-300, -299, 0, 299, 300):
        assert request._replace(now_us=(NOW + seconds) * 1_000_000).is_accepted, seconds
    for seconds in (-(10**9), -3600, -301, 301, 3600, 10**9):
        assert not request._replace(now_us=(NOW + seconds) * 1_000_000).is_accepted, seconds
    # The sender has cut off the fraction of its time, so ours is too.
    assert request._replace(now_us=(NOW + 300) * 1_000_000 + 999_999).is_accepted
    assert not request._replace(now_us=(NOW - 300) * 1_000_000 - 1).is_accepted


TIMES = {
    "milliseconds": f"{NOW}000",
    "microseconds": f"{NOW}000000",
    "a fraction": f"{NOW}.0",
    "a sign": f"+{NOW}",
    "negative": f"-{NOW}",
    "an exponent": "1679944186e0",
    "a leading zero": f"0{NOW}",
    "hexadecimal": hex(NOW),
    "grouped": "1_679_944_186",
    "a space before": f" {NOW}",
    "a space behind": f"{NOW} ",
    "a line end behind": f"{NOW}\n",
    "a NUL behind": f"{NOW}\0",
    "digits of Arabic": "١٦٧٩٩٤٤١٨٦",
    "full-width digits": "".join(chr(ord(digit) + 0xFEE0) for digit in str(NOW)),
    "a superscript": f"{NOW}²",
    "ISO 8601": "2023-03-27T19:09:46Z",
    "none": "",
    "zero": "0",
    "over 64 bits": "9" * 30,
    "over what Python reads": "9" * 5000,
    "a million digits": "1" * 1_000_000,
    "not a number": "nan",
    "without end": "inf",
}


@pytest.mark.parametrize("written", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("provider", TIMED)
def test_a_time_is_whole_seconds_also_where_the_signature_is_right(provider: str, written: str) -> None:
    assert signed(provider, time=str(NOW)).is_accepted
    assert not signed(provider, time=written).is_accepted


@pytest.mark.parametrize("provider", TIMED)
def test_the_time_belongs_to_the_signature(provider: str) -> None:
    earlier = signed(provider, time=str(NOW - 1))
    assert earlier.is_accepted
    if provider == "recho":
        assert not earlier.having(x_recho_timestamp=str(NOW)).is_accepted
        assert not earlier.having(x_recho_timestamp=None).is_accepted
    else:
        assert not earlier.proved_by(earlier.proof.replace(str(NOW - 1), str(NOW))).is_accepted


@pytest.mark.parametrize("provider", ["freeclimb", "whippy"])
def test_nobody_signs_with_an_empty_key(provider: str) -> None:
    forged = Request(provider, signed_headers(provider, "", str(NOW)), ("",))
    assert not forged.is_accepted
    assert not forged._replace(secrets=(" ", "/dev/null/none", "./none.key")).is_accepted
    assert not providers()[provider].is_signed(b"", forged.headers, BODY, NOW * 1_000_000)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_is_the_same_as_no_secret(provider: str) -> None:
    for proof in ("", "Bearer", "Bearer "):
        headers = {SIGNED_HEADER[provider]: proof, "x-recho-timestamp": str(NOW)}
        assert not providers()[provider].is_signed(b"", headers, BODY, NOW * 1_000_000)
    # Whatever a provider's module makes of an empty secret: it is not even asked.
    believing = ProviderAuth("signature", ("", "./none.key"))
    assert not verify(lambda *_: True, believing, {}, BODY, NOW * 1_000_000)

"""How each provider writes its proof into a header: what is right, and what is nearly so."""

import base64
import time

import pytest
from signing import (
    FREECLIMB,
    KNOWN,
    NOW,
    PROVIDERS,
    RECHO,
    RECHO_PSS,
    RECHO_SHA1,
    RSA_PUBLIC,
    SIGNED_HEADER,
    SPKI,
    WHIPPY,
    Request,
    signed,
    signed_headers,
)

T, GOOD, BAD = f"t={NOW}", FREECLIMB.proof.split(",")[1], FREECLIMB.proof.split(",")[2]
FREECLIMB_HEADERS = {
    f"{T},{GOOD}": True,
    f"{T},{BAD},{GOOD}": True,
    f"{GOOD},{T}": True,
    f"{BAD},{T},{GOOD}": True,
    f" {T} , {GOOD} ": True,
    f"{T},{GOOD},v0=00,x": True,
    f"{T},{GOOD},": True,
    f"{T}" + f",{BAD}" * 30 + f",{GOOD}": True,
    f"{T}" + f",{BAD}" * 31 + f",{GOOD}": False,  # more parts than anybody sends
    f"{T},{GOOD}" + f",{GOOD}" * 10_000: False,
    f"{T},{BAD}": False,
    f"{T}": False,
    GOOD: False,
    f"{T},{T},{GOOD}": False,
    f"{T},{GOOD},{T}": False,
    f"t={NOW - 1},{T},{GOOD}": False,
    f"t=,{T},{GOOD}": False,
    f"T={NOW},{GOOD}": False,
    f"{T},{GOOD.replace('v1', 'V1')}": False,
    f"{T},{GOOD.replace('v1', 'v0')}": False,
    f"{T},{GOOD.replace('v1=', 'v1 =')}": False,
    f"{T},{GOOD.replace('v1=', 'v1= ')}": False,
    f"{T},{GOOD.replace('v1=', 'v1==')}": False,
    f"{T};{GOOD}": False,
    f"{T},v1=0x{GOOD[3:]}": False,
    f"{T},v1={GOOD[3:].upper()}": False,
    f"{T},v1={GOOD[3:-2]}": False,
    f"{T},v1=": False,
    f"{T},v1={base64.b64encode(bytes.fromhex(GOOD[3:])).decode()}": False,
}


@pytest.mark.parametrize(("header", "right"), FREECLIMB_HEADERS.items(), ids=range(len(FREECLIMB_HEADERS)))
def test_freeclimb_names_the_parts_of_its_header(header: str, right: bool) -> None:
    assert FREECLIMB.proved_by(header).is_accepted is right


MARK = WHIPPY.proof.split("v1=")[1]
WHIPPY_HEADERS = {
    f"{T},s={MARK}": True,
    f"timestamp={NOW} , signature={MARK} ": True,
    f"{T},v1={MARK}=": True,
    f"{T},v1={MARK.replace('+', '-').replace('/', '_')}": True,
    f"{T},v1={MARK.replace('+', '-').replace('/', '_')}=": True,
    f"{T},v1={MARK.replace('+', '-')}": False,  # half of each alphabet
    f"{T},v1={MARK}==": False,
    f"{T},v1={MARK[:-1]}9": False,  # the same 32 bytes, and two bits to spare
    f"{T},v1={base64.b64decode(MARK + '=').hex()}": False,
    f"{T},v1={MARK.swapcase()}": False,
    f"v1={MARK},{T}": False,
    f"{T},{T},v1={MARK}": False,
    f"{T},v1={MARK},v1={MARK}": False,
    f"{NOW},{MARK}": False,
    f"{T};v1={MARK}": False,
    f"{T},v1=": False,
    MARK: False,
    "nonsense": False,
}


@pytest.mark.parametrize(("header", "right"), WHIPPY_HEADERS.items(), ids=range(len(WHIPPY_HEADERS)))
def test_whippy_has_a_time_and_then_a_signature(header: str, right: bool) -> None:
    assert WHIPPY.proved_by(header).is_accepted is right


RECHO_PROOF = RECHO.proof
RECHO_BYTES = base64.b64decode(RECHO_PROOF)
RECHO_SIGNATURES = {
    "PSS": RECHO_PSS,
    "SHA-1": RECHO_SHA1,
    "hex": RECHO_BYTES.hex(),
    "URL-safe": base64.urlsafe_b64encode(RECHO_BYTES).decode(),
    "without padding": RECHO_PROOF.rstrip("="),
    "more padding": RECHO_PROOF + "=",
    "a bit to spare": RECHO_PROOF.replace("iA==", "iB=="),
    "in lines": base64.encodebytes(RECHO_BYTES).decode(),
    "a byte more": base64.b64encode(b"\0" + RECHO_BYTES).decode(),
    "a byte less": base64.b64encode(RECHO_BYTES[:-1]).decode(),
    "nothing": base64.b64encode(b"").decode(),
    "zeros": base64.b64encode(bytes(256)).decode(),
    "one": base64.b64encode(bytes(255) + b"\1").decode(),
    "not ASCII": RECHO_PROOF[:-2] + "é=",
    "JSON": f'"{RECHO_PROOF}"',
}


@pytest.mark.parametrize("signature", RECHO_SIGNATURES.values(), ids=RECHO_SIGNATURES)
def test_recho_writes_its_signature_in_one_way(signature: str) -> None:
    assert signature != RECHO.proof
    assert not RECHO.proved_by(signature).is_accepted


def test_the_key_that_signs_recho_is_told_by_its_signature() -> None:
    assert not signed("recho")._replace(secrets=(SPKI,)).is_accepted
    assert not RECHO._replace(secrets=(RSA_PUBLIC,)).is_accepted
    assert RECHO._replace(secrets=(RSA_PUBLIC, SPKI)).is_accepted
    # Who knows the public key (anybody may) cannot sign with it as with a shared secret.
    for provider in ("freeclimb", "whippy"):
        mark = next(iter(signed_headers(provider, SPKI.strip(), str(NOW)).values())).split("v1=")[1]
        assert not RECHO.proved_by(mark).is_accepted


BEARERS = {
    "Bearer relay-token": True,
    "bearer relay-token": True,
    "BEARER relay-token": True,
    "Bearer   relay-token": True,
    "Bearer relay-token  ": True,
    "Bearer\trelay-token": False,
    "Bearer  relay-token\u00a0": False,
    "Bearer\u2003relay-token": False,
    " Bearer relay-token": False,
    "Bearerrelay-token": False,
    "Bearer": False,
    "Bearer ": False,
    "relay-token": False,
    "Bearer Bearer relay-token": False,
    "Bearer relay-token, Bearer relay-token": False,
    "Bearer relay-token,relay-token": False,
    "Bearer relay-token other": False,
    "Bearer Relay-Token": False,
    "Bearer relay-toke": False,
    "Bearer relay-token\udcff": False,
    "Bearer rélay-token": False,
    "Bearer cmVsYXktdG9rZW4=": False,
    "Basic relay-token": False,
    "Basic OnJlbGF5LXRva2Vu": False,
    "Digest relay-token": False,
    "Token relay-token": False,
    "Bearer: relay-token": False,
    'Bearer "relay-token"': False,
    "Bearer " + "relay-token" * 100_000: False,
    "": False,
}


@pytest.mark.parametrize(("header", "right"), BEARERS.items(), ids=range(len(BEARERS)))
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_bearer_token_is_asked_of_any_provider_that_shall_have_one(
    provider: str, header: str, right: bool
) -> None:
    request = Request(provider, {"authorization": header}, ("relay-token",), auth="bearer")
    assert request.is_accepted is right
    assert not request._replace(secrets=("another",)).is_accepted
    assert not request._replace(secrets=()).is_accepted
    assert not request._replace(secrets=("",)).is_accepted


@pytest.mark.parametrize("token", ["two words", "a,b", "é", "==", "\udce9", "Bearer x", "a" * 10_000])
def test_a_token_is_any_text(token: str) -> None:
    for provider in PROVIDERS:
        request = Request(provider, {"authorization": f"Bearer {token}"}, (token,), auth="bearer")
        assert request.is_accepted
    assert Request("interactly", {"x-interactly-secret": token}, (token,)).is_accepted


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_signature_is_no_bearer_and_a_bearer_no_signature(provider: str) -> None:
    request = KNOWN[provider]
    assert request._replace(auth="bearer").is_accepted is (provider == "aircall_bus")
    token = request.having(authorization=f"Bearer {request.secrets[0]}")
    assert token._replace(auth="bearer").is_accepted
    if provider != "aircall_bus":
        assert not token.having(**{SIGNED_HEADER[provider]: None}).is_accepted


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("piece", [",", "v1=,", "t=1,", "a=", "A", " ", "=", "\t", "1", "é", "\udcff"])
def test_a_header_of_a_megabyte_is_no_work(provider: str, piece: str) -> None:
    # The server takes 8 KiB; nothing here may take longer than in proportion, whoever raises that.
    long = piece * (1_000_000 // len(piece))
    request = KNOWN[provider]
    variants = (long, request.proof + long, f"t={NOW}," + long, f"t={NOW},v1=" + long, "Bearer " + long)
    began = time.process_time()
    assert not all([request.proved_by(variant).is_accepted for variant in variants])  # noqa: C419  each is tried
    assert time.process_time() - began < 2

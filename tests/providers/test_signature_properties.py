"""Any secret, body, time and header: what is signed right is believed, nothing else is, and nothing raises."""

import base64
import hmac
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from signing import NOW, PROVIDERS, RSA_PUBLIC, SIGNED_HEADER, SPKI, TIMED, Request, signed

from pipeline.model import Webhook
from pipeline.providers import _signature, providers

SECRETS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80).filter(
    lambda text: text == text.strip() and not text.startswith(("/", "./", "../", "~/")) and "." not in text
)
OFF_SECONDS = st.integers(-300, 300)
MICROSECONDS = st.integers(0, 999_999)
ANY_TEXT = st.text(st.characters(), max_size=200)
# What a variable of the environment may hold: any bytes.
ANY_SECRET = st.binary(max_size=100).map(os.fsdecode)
HEADER_LIKE = st.one_of(
    ANY_TEXT,
    st.from_regex(r"(t=[0-9]{1,14}|v1=[0-9a-fA-F]{0,66}|[a-z]=.|,| ){0,8}", fullmatch=True),
    st.from_regex(r"\w+=[0-9]{10},\w+=[A-Za-z0-9+/_-]{42,44}={0,2}", fullmatch=True),
    st.binary(max_size=300).map(lambda noise: base64.b64encode(noise).decode()),
    st.builds("{} {}".format, st.sampled_from(["Bearer", "bearer", "Basic"]), ANY_TEXT),
)


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(SECRETS, st.lists(SECRETS, max_size=3), st.binary(max_size=300), OFF_SECONDS, MICROSECONDS)
def test_what_is_signed_right_is_believed(
    provider: str, secret: str, others: list[str], body: bytes, off_seconds: int, microseconds: int
) -> None:
    request = signed(provider, secret, str(NOW), body)
    now_us = (NOW + off_seconds) * 1_000_000 + microseconds
    assert request._replace(secrets=(*others, *request.secrets), now_us=now_us).is_accepted
    if secret not in others:
        assert not request._replace(secrets=tuple(others), now_us=now_us).is_accepted


@pytest.mark.parametrize("provider", TIMED)
@settings(deadline=None, max_examples=150)
@given(st.binary(min_size=1, max_size=200), st.data())
def test_no_byte_of_a_body_may_be_another(provider: str, body: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[place]))
    request = signed(provider, body=body)
    assert not request._replace(body=body[:place] + bytes([other]) + body[place + 1 :]).is_accepted
    assert not request._replace(body=body[:place] + body[place + 1 :]).is_accepted
    assert not request._replace(body=body[:place] + bytes([other]) + body[place:]).is_accepted


@pytest.mark.parametrize("provider", TIMED)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data())
def test_no_byte_of_a_signature_or_its_time_may_be_another(provider: str, data: st.DataObject) -> None:
    request = signed(provider)
    name = data.draw(st.sampled_from(sorted(request.headers)))
    value = request.headers[name].encode()
    place = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != value[place]))
    bent = (value[:place] + bytes([other]) + value[place + 1 :]).decode("utf-8", "surrogateescape")
    # What Whippy calls the parts is not documented, so any name will do.
    assume(provider != "whippy" or re.fullmatch(rf"\w+={NOW}", bent.partition(",")[0], re.ASCII) is None)
    assert not request.having(**{name: bent}).is_accepted


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("auth", ["signature", "bearer"])
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    secrets=st.lists(st.one_of(ANY_SECRET, st.just(RSA_PUBLIC), st.just(RSA_PUBLIC[:-60])), max_size=3),
    proof=HEADER_LIKE,
    time=st.one_of(st.just(str(NOW)), ANY_TEXT),
    body=st.binary(max_size=100),
    now_us=st.one_of(st.just(NOW * 1_000_000), st.integers(-(2**70), 2**70)),
)
@example(
    secrets=["\0.pem", "~/x", "~nobody/x", "./", "/", "//", "/\0"], proof="", time="", body=b"", now_us=0
)
@example(secrets=["-----BEGIN PUBLIC KEY-----"], proof="AAAA", time=str(NOW), body=b"", now_us=NOW * 10**6)
def test_nothing_raises_and_nothing_forged_is_believed(
    provider: str, auth: Any, secrets: list[str], proof: str, time: str, body: bytes, now_us: int
) -> None:
    headers = {SIGNED_HEADER[provider]: proof, "authorization": proof, "x-recho-timestamp": time}
    request = Request(provider, headers, tuple(secrets), body, now_us, auth)
    is_plain = auth == "bearer" or provider in ("interactly", "aircall_bus")
    assert request.is_accepted in ((True, False) if is_plain else (False,))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from([f"t={NOW}", f"t={NOW - 9}", "t=", "\x0bt=5", " ", "x", "v1=0", "RIGHT"]), max_size=6
    )
)
def test_freeclimbs_end_is_the_time_that_was_signed(parts: list[str]) -> None:
    """Others may add to a header that they cannot sign: the time that is read must be the one that was checked."""
    body = b'{"callId": "c1", "requestType": "callStatus", "callStatus": "completed"}'
    right = signed("freeclimb", body=body)
    mark = right.proof.rpartition(",")[2]
    request = right.proved_by(",".join(mark if part == "RIGHT" else part for part in parts))
    if request.is_accepted:
        webhook = Webhook("freeclimb", 1, body, dict(request.headers))
        (event,) = providers()["freeclimb"].events(webhook)  # type: ignore[misc]  # it is no rejection
        assert event.at_us == NOW * 1_000_000


@pytest.mark.parametrize("provider", PROVIDERS)
def test_how_much_is_compared_does_not_tell_which_secret_is_right(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bool] = []
    verified: list[bytes] = []
    compare, is_rsa_signed = hmac.compare_digest, _signature._rsa_key

    def counted(given: bytes, right: bytes) -> bool:
        compared.append(compare(given, right))
        return compared[-1]

    def looked_up(pem: bytes) -> Any:
        verified.append(pem)
        return is_rsa_signed(pem)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    monkeypatch.setattr(_signature, "_rsa_key", looked_up)
    wrong = SPKI if provider == "recho" else "wrong"
    (right,) = signed(provider).secrets
    counts = set()
    for auth in ("signature", "bearer"):
        for place in (None, 0, 1, 2, 3):
            secrets = [wrong] * 4
            if place is not None:
                secrets[place] = right
            request = signed(provider)._replace(secrets=tuple(secrets), auth=auth)
            if auth == "bearer":
                request = request.having(authorization=f"Bearer {right}")
            compared.clear()
            verified.clear()
            assert request.is_accepted is (place is not None)
            assert sum(compared) <= 1
            counts.add((auth, len(compared), len(verified)))
    each = {"whippy": 2}.get(provider, 1)
    signature = (0, 4) if provider == "recho" else (4 * each, 0)
    assert counts == {("signature", *signature), ("bearer", 4, 0)}


def test_every_v1_is_compared_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    compare = hmac.compare_digest

    def counted(given: bytes, right: bytes) -> bool:
        nonlocal count
        count += 1
        return compare(given, right)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    request = signed("freeclimb")
    time, right = request.proof.split(",")
    for number in range(40):
        marks = ["v1=" + "0" * 64] * 40
        marks[number] = right
        count = 0
        assert request.proved_by(",".join([time, *marks[:31]])).is_accepted is (number < 31)
        assert count == 31
        count = 0
        assert not request.proved_by(",".join([time, *marks])).is_accepted
        assert count == 0

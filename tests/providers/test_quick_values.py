"""The quick readings of values against the plain ones that they stand for."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.normalise.credentials import may_hold_credentials
from pipeline.providers import is_too_deep, read_instant
from pipeline.providers._payload import digest, event_id, id_of, number, seconds

EARLIEST_US, LATEST_US = 946_684_800_000_000, 4_102_444_800_000_000
HINTS = (
    *("bearer", "@", "assistant", "auth", "cookie", "passw", "passp", "secret"),
    *("token", "key", "credential", "signature", "sig=", "jwt=", "code="),
)


def plain_instant(value: Any) -> int | None:
    """ISO 8601, else a number of microseconds, milliseconds or seconds, whichever is of this century."""
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
            zoned = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
            since = zoned - datetime(1970, 1, 1, tzinfo=UTC)
        except (ValueError, OverflowError):
            pass
        else:
            found = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
            if EARLIEST_US <= found < LATEST_US:
                return found
    amount = number(value)
    if amount is None:
        return None
    for to_us in (1, 1_000, 1_000_000):
        whole = int(value) * to_us if isinstance(value, int) else round(amount * to_us)
        if EARLIEST_US <= whole < LATEST_US:
            return whole
    return None


def written(us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


ODD: list[Any] = [
    *(None, True, False, 0, 0.0, -1, 10**30, float("nan"), float("inf"), [], {}, [1], {"a": 1}, "", " ", "x"),
    *(edge + step for edge in (EARLIEST_US, LATEST_US) for step in (-1, 0, 1)),
    *(edge // 1_000 + step for edge in (EARLIEST_US, LATEST_US) for step in (-1, 0, 1)),
    *(edge // 1_000_000 + step for edge in (EARLIEST_US, LATEST_US) for step in (-1, 0, 1)),
    *("1772409715", "1772409715.5", " 177240971", "+177240971", "177240971५", "²772409715", "1_77240971"),
    *("1712310000", "1701010123", "2000010112", "0000000000", "9999999999", "4102444800", "0946684800"),
    *("1772409715445", "2000010112345", "20260512", "2026-05-12", "2026-05-12Z", "2026W101", "2026-W10-1"),
    *("2026-03-02T00:01:55", "2026-03-02 00:01:55.1", "2026-03-02T00:01:55.0289999Z", "2026-03-02T24:00:00Z"),
    *(
        "2026-03-02T00:01:55+05:30",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-03-02T00Z",
    ),
    *("1999-12-31T23:59:59.999999Z", "2099-12-31T23:59:59.999999Z", "2100-01-01T00:00:00Z"),
]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_odd_instants(value: Any) -> None:
    assert repr(read_instant(value)) == repr(plain_instant(value))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.integers(0, 2 * LATEST_US),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=30),
        st.text("0123456789", min_size=8, max_size=17),
        st.text("0123456789-:.TZ+W ", min_size=8, max_size=32),
        st.datetimes().map(datetime.isoformat),
        st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
        st.integers(EARLIEST_US - 10**12, LATEST_US + 10**12).map(written),
    )
)
def test_instants_are_what_the_plain_reading_says(value: Any) -> None:
    assert repr(read_instant(value)) == repr(plain_instant(value))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.one_of(st.integers(-5, 10**7), st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none()),
    st.sampled_from([1.0, 1000]),
)
def test_lengths_are_what_the_plain_reading_says(value: Any, per_second: float) -> None:
    found = number(value)
    plain = None if found is None or found < 0 else found / per_second
    assert repr(seconds(value, per_second)) == repr(plain)


TOLD = st.one_of(st.none(), st.text(max_size=200), st.integers(), st.floats(), st.text("\ud800a", max_size=3))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(TOLD, max_size=14))
def test_an_identity_is_the_hash_of_its_joined_parts(parts: list[Any]) -> None:
    joined = "\x1f".join("" if part is None else str(part) for part in parts)
    plain = hashlib.blake2b(joined.encode("utf-8", "replace"), digest_size=16).hexdigest()
    assert event_id(*parts) == id_of(joined) == digest(joined.encode("utf-8", "replace")) == plain


@pytest.mark.parametrize("depth", [1, 100, 199, 200, 201, 202, 1000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]")])
def test_depth_is_told_exactly(depth: int, opening: bytes, closing: bytes) -> None:
    levels = opening.count(b"[") + opening.count(b"{")
    times = depth // levels
    body = opening * times + b'"' + b"[{" * 150 + b'"' + closing * times
    assert is_too_deep(body) == (times * levels > 200)
    assert not is_too_deep(b"[" + b"[],{}," * 300 + b"1]")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=30), st.sampled_from([*HINTS, "BEARER", "Bearer", "", "x"]), st.text(max_size=30))
def test_texts_worth_looking_through_are_those_with_a_hint(before: str, hint: str, after: str) -> None:
    text = before + hint + after
    if "=" in text or ":" in text:
        assert may_hold_credentials(text) == any(hint in text.lower() for hint in HINTS)
    else:
        assert may_hold_credentials(text) == ("earer" in text or "EARER" in text)

"""Reading payloads that do not keep their promises: a wrong optional field is None, never an error.

Two ways lead to the same result. Fast: a msgspec decoder that builds only the declared fields. Slow, for the
few bodies that it refuses (a string where an object should be, a lone surrogate in a transcript): decode
everything and pick. Rejected is only a body that no JSON parser reads, or that is nested deeper than any reader
need stand.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, get_args

import msgspec

from pipeline.model import Rejection
from pipeline.model.rejection import DEEPEST

EARLIEST_US = 946_684_800_000_000  # 2000-01-01: no provider is older
LATEST_US = 4_102_444_800_000_000  # 2100-01-01
LONGEST_TEXT = 1024
"""Ids, statuses and reasons are short; more than this is not one."""

S = TypeVar("S", bound=msgspec.Struct)


@cache
def _decoder(shape: type[S]) -> "msgspec.json.Decoder[S]":
    return msgspec.json.Decoder(shape)


def decode(body: bytes, shape: type[S]) -> S | Rejection:
    """The body as `shape`, unfit parts of it at their defaults; a `Rejection` if it is no JSON object."""
    unfit = _unfit(body)
    if unfit is not None:
        return unfit
    try:
        decoded: S = _decoder(shape).decode(body)
        return decoded
    except (msgspec.DecodeError, UnicodeDecodeError):
        whole = _leniently(body)
    if isinstance(whole, Rejection):
        return whole
    if not isinstance(whole, dict):
        return bad_shape(None, f"a JSON object was expected, not {_json_kind(whole)}")
    return _pick(whole, shape)


def decode_any(body: bytes) -> Any:
    """The body as plain Python values, or a `Rejection` if it is not JSON."""
    unfit = _unfit(body)
    if unfit is not None:
        return unfit
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _leniently(body)


def _unfit(body: bytes) -> Rejection | None:
    """Why no parser should be tried on the body, if that is so."""
    if not body.strip():
        return Rejection("normalise", "empty_body", None, "the body is empty")
    if is_too_deep(body):
        return Rejection("normalise", "too_deep", None, f"nested deeper than {DEEPEST} levels")
    return None


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+\\?"?', re.DOTALL)
"""A string, or what is there of one that does not end."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_too_deep(body: bytes) -> bool:
    """Whether a body is nested deeper than any parser is asked to go."""
    # Nearly every body has fewer brackets in all than levels are allowed, in whatever encoding.
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return False
    encoding = json.detect_encoding(body)
    told = body if encoding.startswith("utf-8") else body.decode(encoding, "replace").encode()
    depth = 0
    for bracket in _STRING.sub(b"", told).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            return True
    return False


def _leniently(body: bytes) -> Any:
    """What the standard parser makes of it: it takes what RFC 8259 calls unpredictable, and names what it does not."""
    try:
        return _without_surrogates(json.loads(body, parse_constant=lambda _: None, parse_int=_whole))
    except UnicodeDecodeError as error:
        told = f"not {error.encoding.upper()}: {error.reason} at byte {error.start}"
        # UTF-16 and UTF-32 are told by their zero bytes, which text that is no JSON may have as well.
        return Rejection("normalise", "not_json" if _is_utf8(body) else "bad_encoding", None, told)
    except ValueError as error:
        return Rejection("normalise", "not_json", None, str(error))


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _whole(digits: str) -> int | None:
    # Python refuses to read thousands of digits, and no field means anything by them.
    return int(digits) if len(digits) <= LONGEST_TEXT else None


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _pick(values: Mapping[str, Any], shape: type[S]) -> S:
    picked = {}
    for field in msgspec.structs.fields(shape):
        if field.encode_name not in values:
            continue
        value = values[field.encode_name]
        below = next((t for t in (field.type, *get_args(field.type)) if _is_struct(t)), None)
        if below is None:
            picked[field.name] = value
        elif isinstance(value, dict):
            picked[field.name] = _pick(value, below)
    return shape(**picked)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _json_kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def bad_shape(field: str | None, message: str) -> Rejection:
    """Not this provider's webhook."""
    return Rejection("normalise", "bad_shape", field, message)


def missing(field: str, message: str) -> Rejection:
    """The field is absent without which a webhook belongs to no call."""
    return Rejection("normalise", "missing_field", field, message)


def text(value: Any) -> str | None:
    """A short text; numbers are taken as their digits. Empty, too long or anything else: None."""
    if isinstance(value, str):
        return value if value and len(value) <= LONGEST_TEXT and not value.isspace() else None
    if isinstance(value, float) and value.is_integer():
        # 41123.0 is what some serialisers make of the id 41123.
        return str(int(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return None


def number(value: Any) -> float | None:
    """A finite number, also one written as a string; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if -1e18 < found < 1e18 else None


def seconds(value: Any, per_second: float = 1.0) -> float | None:
    """A length of time in seconds; a negative one is not one."""
    found = number(value)
    return None if found is None or found < 0 else found / per_second


def mapping(value: Any) -> Mapping[str, Any]:
    """The object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def instant(value: Any) -> int | None:
    """Microseconds since the epoch, from ISO 8601 (no zone: UTC) or an epoch number; out of range: None.

    Seconds, milliseconds and microseconds are told apart by size: between 2000 and 2100 they do not overlap.
    """
    if isinstance(value, str):
        found = _iso_instant(value)
        if found is not None:
            return found
    amount = number(value)
    if amount is None:
        return None
    for to_us in (1, 1_000, 1_000_000):
        # Whole numbers stay whole: a float holds microseconds of this century only just.
        whole = int(value) * to_us if isinstance(value, int) else round(amount * to_us)
        if EARLIEST_US <= whole < LATEST_US:
            return whole
    return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _iso_instant(value: str) -> int | None:
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        since = parsed - _EPOCH
    except (ValueError, OverflowError):
        return None
    found = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return found if EARLIEST_US <= found < LATEST_US else None


def event_id(*parts: Any) -> str:
    """The identity of an event: a 128-bit BLAKE2b of the texts that tell it from every other."""
    joined = "\x1f".join("" if part is None else str(part) for part in parts)
    return hashlib.blake2b(joined.encode("utf-8", "replace"), digest_size=16).hexdigest()


def canonical(value: Any) -> str:
    """The value as JSON with sorted keys: the same for the same value, however it was written."""
    return msgspec.json.encode(value, order="sorted").decode()

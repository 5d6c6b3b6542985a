"""From bytes to values, for payloads that do not keep their promises.

Three ways, the quickest first, lead to the same result. Exact: a decoder of a shape that says what well-formed
webhooks hold, texts where texts belong; a provider need not have one. Loose: the same fields, with whatever is in
them. Lenient, for the few bodies that both refuse (a string where an object should be, a lone surrogate in a
transcript): decode everything and pick. Rejected is only a body that no JSON parser reads, or that is nested deeper
than any reader need stand.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeVar, cast, get_args

import msgspec

from pipeline.model import Rejection
from pipeline.model.rejection import DEEPEST

LONGEST_TEXT: Final = 1024
"""Ids, statuses and reasons are short; more than this is not one."""

S = TypeVar("S", bound=msgspec.Struct)


@cache
def _decoder(shape: type[S]) -> "msgspec.json.Decoder[S]":
    return msgspec.json.Decoder(shape)


def decode(body: bytes, shape: type[S]) -> S | Rejection:
    """The body as `shape`, unfit parts of it at their defaults; a `Rejection` if it is no JSON object."""
    if _may_be_read(body):
        try:
            decoded: S = _decoder(shape).decode(body)
            return decoded
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return _decode_leniently(body, shape)


def _decode_leniently(body: bytes, shape: type[S]) -> S | Rejection:
    """What `decode` makes of a body that the decoder of the shape refuses."""
    whole = _unfit(body) or _leniently(body)
    if isinstance(whole, Rejection):
        return whole
    if not isinstance(whole, dict):
        return Rejection(
            "normalise", "bad_shape", None, f"a JSON object was expected, not {_json_kind(whole)}"
        )
    return _pick(whole, shape)


@cache
def loosened(shape: type[S]) -> type[S]:
    """The shape with whatever there may be in its fields: `decode` into it refuses nothing but what is no object."""
    fields: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(shape):
        below = _struct_in(field.type)
        kind = Any if below is None else loosened(below) | None
        fields.append((field.name, kind, msgspec.field(name=field.encode_name, default=None)))
    return cast("type[S]", msgspec.defstruct(shape.__name__, fields, gc=False))


def decode_any(body: bytes) -> Any:
    """The body as plain Python values, or a `Rejection` if it is not JSON."""
    if _may_be_read(body):
        try:
            return _DECODE_ANY(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return _unfit(body) or _leniently(body)


def decode_exactly(decoder: "msgspec.json.Decoder[S]", body: bytes) -> S | None:
    """The body as a shape that says of each field what well-formed webhooks have in it; None if it is not so.

    Every provider's fast way begins here. It gives what the plain one gives, or None: then the plain one is gone.
    """
    if len(body) > 2 * DEEPEST and is_too_deep(body):
        return None
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _may_be_read(body: bytes) -> bool:
    """Whether a body that a decoder reads to its end is not nested too deep: what it refuses is looked at anew."""
    # A level takes two bytes at least, so most bodies need not even be counted through.
    return len(body) <= 2 * DEEPEST or not is_too_deep(body)


def _unfit(body: bytes) -> Rejection | None:
    """Why no parser should be tried on the body, if that is so."""
    if not body.strip():
        return Rejection("normalise", "empty_body", None, "the body is empty")
    if is_too_deep(body):
        return Rejection("normalise", "too_deep", None, f"nested deeper than {DEEPEST} levels")
    return None


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+\\?"?', re.DOTALL)
"""A string, or what is there of one that does not end."""
_DECODE_ANY = msgspec.json.Decoder().decode
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_too_deep(body: bytes) -> bool:
    """Whether a body is nested deeper than any parser is asked to go."""
    # Nearly every body has fewer brackets in all than levels are allowed, in whatever encoding.
    # (Cutting them out finds them by memchr, `count` looks at each byte: 1.0 against 2.4 µs for 2.8 KB.)
    if 2 * len(body) - len(body.replace(b"[", b"")) - len(body.replace(b"{", b"")) <= DEEPEST:
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
        below = _struct_in(field.type)
        if below is None:
            picked[field.name] = value
        elif isinstance(value, dict):
            picked[field.name] = _pick(value, below)
    return shape(**picked)


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    return next(
        (t for t in (kind, *get_args(kind)) if isinstance(t, type) and issubclass(t, msgspec.Struct)), None
    )


def _json_kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")

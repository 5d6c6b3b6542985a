"""Everything that Callfold knows of a provider: one module each, found by listing this folder.

A provider module offers

* `KEYED_BY`: `"call"` if its webhooks name the call, `"agent"` if calls are cut out of an agent's stream;
* `REDACTED`: a `Redacted`, the payload's field names that hold secrets, numbers and conversation;
* `KEPT_HEADERS`: request headers that decide a meaning or are needed to check it again; never credentials;
* `is_signed(secret, headers, body, now_us)`: whether the request proves by its signature where it comes from;
* `stream_key(body, query)`: the Kafka key of a webhook, or None when it cannot be told cheaply;
* `secret_problem(secret)`, if it likes: why no signature can be checked with this secret, or None;
* `events(webhook)`: the normalised events, or a `Rejection`. Pure: no clock, no I/O.

A provider that speaks only inside a browser has a `<name>_relay.js` beside its module, which brings its events here.
Modules whose name starts with an underscore are tools for the others. Nothing outside this package names a provider.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal, NamedTuple

from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.providers._payload import decode_any as read_json
from pipeline.providers._payload import instant as read_instant
from pipeline.providers._payload import is_too_deep
from pipeline.providers._redacted import Redacted
from pipeline.providers._signature import is_bearer

__all__ = [
    "Provider",
    "Redacted",
    "is_bearer",
    "is_too_deep",
    "provider_names",
    "providers",
    "read_instant",
    "read_json",
    "relay_script",
]


class Provider(NamedTuple):
    """One provider module, looked at through what it has to offer."""

    name: str
    keyed_by: Literal["call", "agent"]
    redacted: Redacted
    kept_headers: tuple[str, ...]
    is_signed: Callable[[bytes, Mapping[str, str], bytes, int], bool]
    stream_key: Callable[[bytes, Mapping[str, str]], str | None]
    events: Callable[[Webhook], list[CallEvent] | Rejection]
    secret_problem: Callable[[bytes], str | None] | None


@cache
def providers() -> Mapping[str, Provider]:
    """All providers by name, in the order of the alphabet."""
    found = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{info.name}")
        found[info.name] = Provider(
            info.name,
            module.KEYED_BY,
            module.REDACTED,
            module.KEPT_HEADERS,
            module.is_signed,
            module.stream_key,
            module.events,
            getattr(module, "secret_problem", None),
        )
    return MappingProxyType(found)


def provider_names() -> tuple[str, ...]:
    """The words that settings, topics and addresses know providers by, without importing them."""
    return tuple(sorted(i.name for i in pkgutil.iter_modules(__path__) if not i.name.startswith("_")))


def relay_script(name: str) -> bytes | None:
    """The script that brings a provider's events here from a web page; None if it has none, or is no provider."""
    if re.fullmatch(r"[a-z0-9_]+", name) is None:
        return None
    script = resources.files(__name__) / f"{name}_relay.js"
    return script.read_bytes() if script.is_file() else None

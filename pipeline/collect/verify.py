"""Whether a webhook comes from whom it says: tokens, shared secrets and signatures, in constant time.

Signatures are checked over the raw bytes. Where the provider signs a time, it may be five minutes off either way.
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.collect.rsa import is_signed
from pipeline.settings import ProviderAuth

TOLERANCE_US = 5 * 60 * 1_000_000

Headers = Mapping[str, str]


def verify(provider: str, auth: ProviderAuth, headers: Headers, body: bytes, now_us: int) -> bool:
    """Whether to believe this request. `headers` have lower-case names; without a secret nothing is believed."""
    if auth.auth == "none":
        return True
    check = bearer if auth.auth == "bearer" else SIGNATURES.get(provider, bearer)
    # Every secret is tried, so that the time taken does not tell which one is in use.
    return sum(check(_secret_bytes(secret), headers, body, now_us) for secret in auth.secrets) > 0


def bearer(secret: bytes, headers: Headers, body: bytes, now_us: int) -> bool:
    """`Authorization: Bearer <token>`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and _same(token.strip(), secret)


def _shared_secret(secret: bytes, headers: Headers, body: bytes, now_us: int) -> bool:
    """Interactly sends the secret itself (docs.interactly.ai/webhooks, seen 2026-08)."""
    return _same(headers.get("x-interactly-secret", ""), secret)


def _whippy(secret: bytes, headers: Headers, body: bytes, now_us: int) -> bool:
    """`t=<seconds>,<name>=<base64 without padding>` over `<seconds>.<body>`; the names are not documented."""
    parts = re.fullmatch(
        r"\s*\w+=(\d+)\s*,\s*\w+=([A-Za-z0-9+/_-]+)=*\s*", headers.get("x-whippy-signature", "")
    )
    if parts is None or not _is_recent(parts[1], now_us):
        return False
    digest = hmac.digest(secret, parts[1].encode() + b"." + body, hashlib.sha256)
    given = parts[2].replace("-", "+").replace("_", "/")
    return _same(given, base64.b64encode(digest).rstrip(b"="))


def _freeclimb(secret: bytes, headers: Headers, body: bytes, now_us: int) -> bool:
    """`t=<seconds>,v1=<hex>,v1=<hex>` over `<seconds>.<body>`; during rotation any v1 may be the right one.

    Source: docs.freeclimb.com/docs/verifying-request-signatures, seen 2026-08.
    """
    fields = [part.strip().partition("=")[::2] for part in headers.get("freeclimb-signature", "").split(",")]
    times = [value for name, value in fields if name == "t"]
    if len(times) != 1 or not _is_recent(times[0], now_us):
        return False
    digest = hmac.digest(secret, times[0].encode() + b"." + body, hashlib.sha256).hex().encode()
    return sum(_same(value.lower(), digest) for name, value in fields if name == "v1") > 0


def _recho(secret: bytes, headers: Headers, body: bytes, now_us: int) -> bool:
    """`x-recho-signature` (base64) over `<x-recho-timestamp>.<body>`, by the key of Recho's dashboard."""
    seconds = headers.get("x-recho-timestamp", "")
    if not _is_recent(seconds, now_us):
        return False
    try:
        signature = base64.b64decode(headers.get("x-recho-signature", ""), validate=True)
        return is_signed(secret, signature, seconds.encode() + b"." + body)
    except ValueError:
        # Not base64, or the secret is no public key: `doctor` says the latter.
        return False


#: how `auth = "signature"` is checked; a provider that signs nothing falls back to its token
SIGNATURES: Mapping[str, Callable[[bytes, Headers, bytes, int], bool]] = {
    "interactly": _shared_secret,
    "whippy": _whippy,
    "freeclimb": _freeclimb,
    "recho": _recho,
}


def _is_recent(seconds: str, now_us: int) -> bool:
    return (
        bool(re.fullmatch(r"[0-9]{1,12}", seconds)) and abs(int(seconds) * 1_000_000 - now_us) <= TOLERANCE_US
    )


def _same(given: str, right: bytes) -> bool:
    # A header may hold any bytes; aiohttp hands over those that are no UTF-8 as surrogates.
    return bool(right) and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right)


def _secret_bytes(secret: str) -> bytes:
    """The secret itself, or the file that it names; read anew each time, so that it may be replaced."""
    if secret.endswith((".pem", ".pub", ".key")) or secret.startswith(("/", "./", "~")):
        path = os.path.expanduser(secret)  # noqa: PTH111  as the next line
        if os.path.isfile(path):  # noqa: PTH113  unlike pathlib's it bears a token too long for a path
            return Path(path).read_bytes().strip()
    return secret.encode()

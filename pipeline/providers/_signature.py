"""What the providers' ways of signing have in common. Everything is checked over the raw bytes, in constant time.

Where a time is signed, it may be five minutes off either way; a repeat within that is a retry. A signature has one
writing, the one that its provider sends: no other case, no other alphabet, no spare bits.

How long a check takes depends on what the sender wrote and on how many secrets there are, never on what a secret
holds nor on which of them is the right one: each comparison is `hmac.compare_digest`, and none is left out.
"""

import hmac
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

TOLERANCE_SECONDS: Final = 5 * 60
SMALLEST_RSA_BITS: Final = 1024
"""Shorter keys can be broken, https://doi.org/10.6028/NIST.SP.800-131Ar2."""

Headers = Mapping[str, str]
"""Request headers, names in lower case."""


def is_bearer(secret: bytes, headers: Headers) -> bool:
    """`Authorization: Bearer <token>`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and is_same(token.strip(" \t"), secret)


def is_same(given: str, right: bytes) -> bool:
    """Whether the two are the same, in a time that does not tell how much of them is; never if `right` is empty."""
    try:
        # A header may hold any bytes; aiohttp hands over those that are no UTF-8 as surrogates.
        given_bytes = given.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return bool(right) and hmac.compare_digest(given_bytes, right)


def is_recent(seconds: str, now_us: int) -> bool:
    """Whether a signed time, in whole seconds since the epoch, is within the tolerance.

    Compared in whole seconds, as the sender cut the fraction off too.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,11}", seconds):
        return False
    return abs(int(seconds) - now_us // 1_000_000) <= TOLERANCE_SECONDS


def timed_digest(secret: bytes, seconds: str, body: bytes) -> bytes:
    """HMAC-SHA256 of `<seconds>.<body>`; empty, which no signature is, without a secret: that anybody could compute."""
    return hmac.digest(secret, seconds.encode() + b"." + body, "sha256") if secret else b""


def is_rsa_signed(pem: bytes, signature: bytes, message: bytes) -> bool:
    """RSA-SHA256 with PKCS #1 v1.5 padding; false too if `pem` is no RSA public key."""
    key = _rsa_key(pem)
    if key is None:
        return False
    try:
        key.verify(signature, message, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def rsa_key_problem(pem: bytes) -> str | None:
    """Why `pem` cannot be the public key of RSA signatures, in words that follow "it"; None if it can."""
    if _rsa_key(pem) is not None:
        return None
    label = re.search(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----", pem)
    if label is None:
        return "is no public key in PEM"
    if label[1] in (b"PUBLIC KEY", b"RSA PUBLIC KEY"):
        return f"is damaged, or no RSA key of at least {SMALLEST_RSA_BITS} bits"
    return f"is a {label[1].decode().lower()}, and not the public key in PEM"


@lru_cache(maxsize=32)
def _rsa_key(pem: bytes) -> RSAPublicKey | None:
    """The key, as SubjectPublicKeyInfo or PKCS #1.

    An environment variable may hold the PEM in one line, with backslash and n for its line ends.
    """
    try:
        key = load_pem_public_key(pem.replace(b"\\n", b"\n"))
    except (UnsupportedAlgorithm, ValueError):
        return None
    return key if isinstance(key, RSAPublicKey) and key.key_size >= SMALLEST_RSA_BITS else None

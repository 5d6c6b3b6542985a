"""What the providers' ways of signing have in common. Everything is checked over the raw bytes, in constant time.

Where a time is signed, it may be five minutes off either way; a repeat within that is a retry.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

TOLERANCE_US: Final = 5 * 60 * 1_000_000

Headers = Mapping[str, str]
"""Request headers, names in lower case."""


def is_bearer(secret: bytes, headers: Headers) -> bool:
    """`Authorization: Bearer <token>`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and is_same(token.strip(), secret)


def is_same(given: str, right: bytes) -> bool:
    """Whether the two are the same, in a time that does not tell how much of them is."""
    # A header may hold any bytes; aiohttp hands over those that are no UTF-8 as surrogates.
    return bool(right) and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right)


def is_recent(seconds: str, now_us: int) -> bool:
    """Whether a signed time, in whole seconds since the epoch, is within the tolerance."""
    if not re.fullmatch(r"[0-9]{1,12}", seconds):
        return False
    return abs(int(seconds) * 1_000_000 - now_us) <= TOLERANCE_US


def timed_digest(secret: bytes, seconds: str, body: bytes) -> bytes:
    """HMAC-SHA256 of `<seconds>.<body>`."""
    return hmac.digest(secret, seconds.encode() + b"." + body, hashlib.sha256)


def is_rsa_signed(pem: bytes, signature: bytes, message: bytes) -> bool:
    """RSA-SHA256 with PKCS #1 v1.5 padding; false too if `pem` is no RSA public key.

    An environment variable may hold the PEM in one line, with backslash and n for its line ends.
    """
    try:
        key = load_pem_public_key(pem.replace(b"\\n", b"\n"))
        if not isinstance(key, RSAPublicKey):
            return False
        key.verify(signature, message, PKCS1v15(), SHA256())
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True

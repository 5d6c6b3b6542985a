"""RSA-SHA256 signatures (PKCS #1 v1.5, RFC 8017 section 8.2.2), checking only.

Nothing secret is computed with here, so plain integers do; it saves a compiled dependency for one provider.
"""

import base64
import binascii
import hashlib
import hmac
import re

#: DER of `DigestInfo` for SHA-256, up to the digest itself (RFC 8017, section 9.2, note 1)
SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
SMALLEST_BITS = 2048

_INTEGER, _BIT_STRING, _SEQUENCE = 0x02, 0x03, 0x30


def is_signed(pem: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the key's owner signed the message. Raises `ValueError` if `pem` holds no RSA public key."""
    modulus, exponent = public_numbers(pem)
    size = (modulus.bit_length() + 7) // 8
    given = int.from_bytes(signature, "big")
    if len(signature) != size or given >= modulus:
        return False
    tail = b"\x00" + SHA256_PREFIX + hashlib.sha256(message).digest()
    expected = b"\x00\x01" + b"\xff" * (size - 2 - len(tail)) + tail
    return hmac.compare_digest(pow(given, exponent, modulus).to_bytes(size, "big"), expected)


def public_numbers(pem: bytes) -> tuple[int, int]:
    r"""Modulus and exponent of a `PUBLIC KEY` or `RSA PUBLIC KEY`; line ends may be written as a literal `\n`."""
    text = pem.decode("ascii", "replace").replace("\\n", "\n")
    block = re.search(r"-----BEGIN (RSA )?PUBLIC KEY-----(.+?)-----END", text, re.DOTALL)
    if block is None:
        raise ValueError("no public key in PEM form")
    try:
        content, _ = _open(base64.b64decode("".join(block[2].split()), validate=True), _SEQUENCE)
        if block[1] is None:
            _, rest = _open(content, _SEQUENCE)  # which algorithm it is for
            bits, _ = _open(rest, _BIT_STRING)
            content, _ = _open(bits[1:], _SEQUENCE)
        modulus, rest = _open(content, _INTEGER)
        exponent, _ = _open(rest, _INTEGER)
    except (binascii.Error, IndexError) as problem:
        raise ValueError("the public key is damaged") from problem
    numbers = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
    if numbers[0].bit_length() < SMALLEST_BITS:
        raise ValueError(f"the public key has fewer than {SMALLEST_BITS} bits")
    return numbers


def _open(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the DER value at the start of `data`, and what follows it."""
    if data[0] != tag:
        raise ValueError("the public key is not an RSA key")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("the public key is cut off")
    return data[start : start + length], data[start + length :]

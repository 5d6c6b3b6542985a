"""Requests that are signed right, made by other code than ours, and how to bend them."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.collect.verify import verify
from pipeline.providers import providers
from pipeline.settings import ProviderAuth

NOW = 1_679_944_186
BODY = '{"callId": "c1",\n  "n": 1.0, "name": "Zoë"}'.encode()
SIGNED_HEADER = {
    "aircall_bus": "authorization",
    "freeclimb": "freeclimb-signature",
    "interactly": "x-interactly-secret",
    "recho": "x-recho-signature",
    "whippy": "x-whippy-signature",
}
"""Where each provider's proof is."""
PROVIDERS = tuple(SIGNED_HEADER)
TIMED = ("freeclimb", "recho", "whippy")
"""Who signs a time and the body; the others send a secret."""

RSA_KEY = generate_private_key(65537, 2048)
RSA_PUBLIC = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class Request(NamedTuple):
    """One request and the settings that it meets."""

    provider: str
    headers: Mapping[str, str]
    secrets: tuple[str, ...]
    body: bytes = BODY
    now_us: int = NOW * 1_000_000
    auth: Any = "signature"

    @property
    def is_accepted(self) -> bool:
        is_signed = providers()[self.provider].is_signed
        return verify(is_signed, ProviderAuth(self.auth, self.secrets), self.headers, self.body, self.now_us)

    @property
    def proof(self) -> str:
        return self.headers[SIGNED_HEADER[self.provider]]

    def proved_by(self, proof: str) -> "Request":
        return self.having(**{SIGNED_HEADER[self.provider]: proof})

    def having(self, **headers: str | None) -> "Request":
        changed = dict(self.headers) | {name.replace("_", "-"): value for name, value in headers.items()}
        return self._replace(headers={name: value for name, value in changed.items() if value is not None})


def signed_headers(provider: str, secret: str, time: str, body: bytes = BODY) -> dict[str, str]:
    """What the provider would send; Recho signs with `RSA_KEY`. `time` is signed as it is written."""
    message = time.encode() + b"." + body
    digest = hmac.new(secret.encode("utf-8", "surrogateescape"), message, hashlib.sha256).digest()
    match provider:
        case "freeclimb":
            return {"freeclimb-signature": f"t={time},v1={digest.hex()}"}
        case "whippy":
            mark = base64.b64encode(digest).decode().rstrip("=")
            return {"x-whippy-signature": f"t={time},v1={mark}"}
        case "recho":
            signature = base64.b64encode(RSA_KEY.sign(message, PKCS1v15(), SHA256())).decode()
            return {"x-recho-timestamp": time, "x-recho-signature": signature}
        case "interactly":
            return {"x-interactly-secret": secret}
    return {"authorization": f"Bearer {secret}"}


def signed(provider: str, secret: str = "s3cret", time: str = str(NOW), body: bytes = BODY) -> Request:
    """A request that is right in everything."""
    known = RSA_PUBLIC if provider == "recho" else secret
    return Request(provider, signed_headers(provider, secret, time, body), (known,), body)


# https://github.com/FreeClimbAPI/python-sdk, test/manual/test_request_verifier.py: the first v1 is the right one.
FREECLIMB = Request(
    "freeclimb",
    {
        "freeclimb-signature": "t=1679944186,"
        "v1=c3957749baf61df4b1506802579cc69a74c77a1ae21447b930e5a704f9ec4120,"
        "v1=1ba18712726898fbbe48cd862dd096a709f7ad761a5bab14bda9ac24d963a6a8"
    },
    ("sigsec_ead6d3b6904196c60835d039e91b3341c77a7793",),
    b'{"accountId":"AC1334ffb694cd8d969f51cddf5f7c9b478546d50c","callId":"CAccb0b00506553cda09b51c5477f672a49e0b2213",'
    b'"callStatus":"ringing","conferenceId":null,"direction":"inbound","from":"+13121000109","parentCallId":null,'
    b'"queueId":null,"requestType":"inboundCall","to":"+13121000096"}',
)
# printf '1679944186.{"callId": "c1",\n  "n": 1.0, "name": "Zoë"}' > msg
# openssl dgst -sha256 -hmac whippy-key-1 -binary msg | base64          (its padding taken away)
WHIPPY = Request(
    "whippy",
    {"x-whippy-signature": "t=1679944186,v1=dw71P/7QQuKO5EQya3rUn5ljskFnsAiFZk0IXz6Y+d8"},
    ("whippy-key-1",),
)
# openssl genrsa -out key.pem 2048; openssl rsa -in key.pem -pubout;  … -RSAPublicKey_out
SPKI = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEApGdP4nNozmMu4VzcBQqu
xLvxbX/sG3BY0MK2LJJqagOuH+Jx0aiXwqPLs2iz1mHDvx81Ah8S0JXCitj+TItz
/VRvECSa9OBCY/cgzcHAeG4XV2N7nSJFvuxWua83/RF8bZVZf3zaJSY0D2M59NM2
uJK4QbEDpVx5/0D0OvTGmvGWhBOMYLIVxh5Qem4K7tz8fFZpSE9nL2xWtLUCyuwq
BySFqt6B9CB1ojF5oO8WAqjvSFhd1PVkJWrJk+cVMQN9iq5pyvKsmXhJJJ/7oGJ7
5OGLf/YyEqB8vxk/CeApq0FcWNohKFTw5sjk9SB1Dj4jcjt4NlfEmNovZ26bnXyR
1QIDAQAB
-----END PUBLIC KEY-----
"""
PKCS1 = """-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEApGdP4nNozmMu4VzcBQquxLvxbX/sG3BY0MK2LJJqagOuH+Jx0aiX
wqPLs2iz1mHDvx81Ah8S0JXCitj+TItz/VRvECSa9OBCY/cgzcHAeG4XV2N7nSJF
vuxWua83/RF8bZVZf3zaJSY0D2M59NM2uJK4QbEDpVx5/0D0OvTGmvGWhBOMYLIV
xh5Qem4K7tz8fFZpSE9nL2xWtLUCyuwqBySFqt6B9CB1ojF5oO8WAqjvSFhd1PVk
JWrJk+cVMQN9iq5pyvKsmXhJJJ/7oGJ75OGLf/YyEqB8vxk/CeApq0FcWNohKFTw
5sjk9SB1Dj4jcjt4NlfEmNovZ26bnXyR1QIDAQAB
-----END RSA PUBLIC KEY-----
"""
# openssl dgst -sha256 -sign key.pem msg | base64
RECHO = Request(
    "recho",
    {
        "x-recho-timestamp": "1679944186",
        "x-recho-signature": "aWn2tg+0RSe7h4j/zCCCYW9DJNo1h3/W5f9a/J6h2UEDs7InIDdLVdoKLKUJ9dX1ixC0+yHyrKCViKZIoGg7kbcO"
        "sh6NiEClW9s3a0PFNcZZGwIbqTxyHGMaYrkX4rYtw7KHxKbGU3nXxt8CjB+/HRcAGnGYwv2mcByeB/xnqkZmr7MMn2T4TluR0n6MdMuDG3h3"
        "a8Z0xfKlxa2P7Kv2cb/60eoaYY+6KsJFqOyhEb04qgLYrU3yf1V5/HXkog3XobKY0vQ64nNh2Ks+7OhCml2x02iNwkNZanxEy+UBW6QAJaqW"
        "rZKhPSZ+SUMNren2sTrnwNSdz/QP7n7DT75+iA==",
    },
    (SPKI,),
)
# … -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest; RSA-SHA256 by itself means PKCS #1 v1.5
RECHO_PSS = (
    "adEpDuLtMPGzrHyW4WJAOoOHykBh2YX2d3Xw7RGnT6Pu0tyyP8olOtiOsuXMqOloT/uYhIk7PiNJuWppIdP2db185zqRiSSPrKTx"
    "+8eGyHnzdrKXFE8bVITiDZ9LS0SoGTm95Xo5/K3XbKRfFcDPrny7wS6gOHYRkIUBjs4N6mGn3rG9nmiDaw5OxR59o4u2KLlooFOh"
    "YX3rGTA/JoGZU+zRW9R0iYiwO36hu7Cfno4lWY+SmK94z+5+JpPevM4sxhEdpTJ5IDCjq158R3BlsU2tM3fOpkIqk+IVBJVEFCQV"
    "xM7I9dlYYa3kGkX5zCSEM2Jjpn7+9AJ5d4XwQJKGYg=="
)
# openssl dgst -sha1 -sign key.pem msg | base64
RECHO_SHA1 = (
    "Ya0DBjCBCUOmstVN6jigjTUaqjUvdOp5LgZP/+zWHPosFXgJa/9bMXVNPVjXuWv9faJqlnw1t7/fJZXDo0q4gaMJCJQ2uz+x0+/E"
    "cA+p7Nmq2PyrkkQYqw0VKbEjaeVveqw62A9iQC0A24z7zbpaeQURvKO7hlNoDtMPqdmqnBCwzovGi0HMV0LRngNtGq2he9jXJ+uK"
    "R5OFfGlcXUVTng8pXHzBzxjhaifqhbqhu2fX+RlyS+8TpmA/fHQCwi6vsOLze3jPAo+3Dy12MqtpOTchjxjlnsKN/8vXvjQXN5A9"
    "WSeXgJ0PWBsDGO21W2ORAMvdwEna2FhIJA38HaIJGQ=="
)
INTERACTLY = Request("interactly", {"x-interactly-secret": "my-interactly-secret"}, ("my-interactly-secret",))
BUS = Request("aircall_bus", {"authorization": "Bearer relay-token"}, ("relay-token",))
KNOWN = {request.provider: request for request in (FREECLIMB, WHIPPY, RECHO, INTERACTLY, BUS)}
# FreeClimb's other v1 is of another secret: whatever it is bent to, the first stays right.
ALONE = KNOWN | {"freeclimb": FREECLIMB.proved_by(FREECLIMB.proof.rpartition(",")[0])}

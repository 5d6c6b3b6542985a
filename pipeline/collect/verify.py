"""Whether a webhook comes from whom it says. How a provider signs is its module's affair."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.providers import is_bearer
from pipeline.settings import ProviderAuth

IsSigned = Callable[[bytes, Mapping[str, str], bytes, int], bool]


def verify(
    is_signed: IsSigned, auth: ProviderAuth, headers: Mapping[str, str], body: bytes, now_us: int
) -> bool:
    """Whether to believe this request. `headers` have lower-case names; without a secret nothing is believed."""
    if auth.auth == "none":
        return True
    secrets = [_secret_bytes(secret) for secret in auth.secrets]
    # Every secret is tried, so that the time taken does not tell which one is in use.
    if auth.auth == "bearer":
        return sum(is_bearer(secret, headers) for secret in secrets) > 0
    return sum(is_signed(secret, headers, body, now_us) for secret in secrets) > 0


def _secret_bytes(secret: str) -> bytes:
    """The secret itself, or the file that it names; read anew each time, so that it may be replaced."""
    if secret.endswith((".pem", ".pub", ".key")) or secret.startswith(("/", "./", "~")):
        path = os.path.expanduser(secret)  # noqa: PTH111  as the next line
        if os.path.isfile(path):  # noqa: PTH113  unlike pathlib's it bears a token too long for a path
            return Path(path).read_bytes().strip()
    return secret.encode()

"""Whether a webhook comes from whom it says. How a provider signs is its module's affair."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.providers import is_bearer, providers
from pipeline.settings import ProviderAuth

log = logging.getLogger(__name__)

IsSigned = Callable[[bytes, Mapping[str, str], bytes, int], bool]

REREAD_SECONDS: Final = 1.0
"""A key file that is replaced counts from then on. Its times are not asked: two writes may have the same."""


def verify(
    is_signed: IsSigned, auth: ProviderAuth, headers: Mapping[str, str], body: bytes, now_us: int
) -> bool:
    """Whether to believe this request. `headers` have lower-case names; without a secret nothing is believed."""
    if auth.auth == "none":
        return True
    secrets = [known for secret in auth.secrets if (known := _secret_bytes(secret))]
    # Every secret is tried, so that the time taken does not tell which one is in use.
    if auth.auth == "bearer":
        return sum(is_bearer(secret, headers) for secret in secrets) > 0
    return sum(is_signed(secret, headers, body, now_us) for secret in secrets) > 0


class SecretProblem(NamedTuple):
    """One secret of a provider that cannot work, or hardly can. Never tells the secret itself."""

    told: str
    #: nothing can ever be believed because of this secret
    is_useless: bool


def auth_problems(auths: Mapping[str, ProviderAuth]) -> list[str]:
    """One line for each secret that does not look as if it could work, with what to mend."""
    return [
        f"{name}: {problem.told}: mend providers.{name}.secret (CALLFOLD_{name.upper()}_SECRET)"
        for name, auth in sorted(auths.items())
        for problem in secret_problems(name, auth)
    ]


def secret_problems(name: str, auth: ProviderAuth) -> list[SecretProblem]:
    """What can be said against a provider's secrets without a webhook. Having none is no problem of a secret."""
    if auth.auth == "none":
        return []
    found = []
    for number, secret in enumerate(auth.secrets, 1):
        problem = _problem(name, auth, secret)
        if problem is not None:
            which = "its secret" if len(auth.secrets) == 1 else f"secret {number} of {len(auth.secrets)}"
            found.append(problem._replace(told=f"{which} {problem.told}"))
    return found


def _problem(name: str, auth: ProviderAuth, secret: str) -> SecretProblem | None:
    try:
        known = _read(secret) if _names_file(secret) else secret.encode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return SecretProblem(f"is a file that cannot be read ({why}): {secret}", True)
    if not known:
        return SecretProblem(f"is a file that is empty: {secret}", True)
    # Only a provider that signs with a key of its own can tell a secret that is none.
    of_provider = providers()[name].secret_problem
    if auth.auth == "signature" and of_provider is not None and (why := of_provider(known)) is not None:
        return SecretProblem(why, True)
    if secret.startswith("/") and not _names_file(secret):
        return SecretProblem("begins with / and names no file, so it is taken for the secret itself", False)
    return None


def _secret_bytes(secret: str) -> bytes:
    """The secret itself, or what is in the file that it names; empty, hence of no use, while that cannot be read."""
    plain = _plain_secret(secret)
    if plain is not None:
        return plain
    if not _names_file(secret):
        return secret.encode("utf-8", "surrogateescape")
    return _read_within(secret, int(time.monotonic() / REREAD_SECONDS))


@lru_cache(maxsize=256)
def _plain_secret(secret: str) -> bytes | None:
    """A secret that is no file's name whatever files there are; None for any other."""
    return (
        None if secret.startswith("/") or _names_file(secret) else secret.encode("utf-8", "surrogateescape")
    )


def _names_file(secret: str) -> bool:
    """Whether a secret is the name of a file, and never itself: a name is no secret, also when its file is away.

    Base64 may begin with a slash: such a text is a name if what its first part names is there.
    """
    if secret.endswith((".pem", ".pub", ".key")) or secret.startswith(("./", "../", "~/")):
        return True
    top = secret.split("/")[1] if secret.startswith("/") else ""
    return bool(top) and os.path.lexists(f"/{top}")


@lru_cache(maxsize=64)
def _read_within(path: str, second: int) -> bytes:
    """What is in the file, read once for each `second`."""
    try:
        return _read(path)
    except (OSError, ValueError) as error:
        log.error("%s: a secret cannot be read: %s", path, getattr(error, "strerror", None) or error)  # noqa: TRY400
        return b""


def _read(path: str) -> bytes:
    """What is in the file. Raises `OSError` or `ValueError`."""
    file = Path(os.path.expanduser(path))  # noqa: PTH111  pathlib's raises where there is no home
    if file.exists() and not file.is_file():
        # A pipe would keep the collector waiting, a device for ever.
        raise ValueError("it is not a regular file")
    return file.read_bytes().strip()

"""The settings `kafka.*`: whether they fit together, and the TLS context that they make.

Whoever asks for TLS or a login must get it or an error; nothing here falls back to less.
"""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.setting_readers import EMBEDDED

LOGIN = {"username": "CALLFOLD_KAFKA_USERNAME", "password": "CALLFOLD_KAFKA_PASSWORD"}
TLS_FILES = ("ca_file", "cert_file", "key_file")


def kafka_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with `kafka.*` as a whole, each in a sentence; `settings` are flat names with their values."""
    security = settings.get("kafka_security")
    if security is None:
        return  # its own problem has been told
    if security != "plaintext" and settings.get("broker") == EMBEDDED:
        yield (
            f"kafka.security: {security} is not for the embedded broker, which is reached inside this machine "
            "only: set broker (CALLFOLD_BROKER) to kafka://host:port"
        )
    for name, variable in LOGIN.items():
        is_given = settings.get(f"kafka_{name}") is not None
        if security.startswith("sasl") and not is_given:
            yield f"kafka.{name}: {security} needs it (set {variable})"
        elif is_given and not security.startswith("sasl"):
            yield f"kafka.{name}: is not used by {security}: set kafka.security to sasl_ssl or sasl_plaintext"
    yield from _tls_problems(security, {name: settings.get(f"kafka_{name}") for name in TLS_FILES})


def _tls_problems(security: str, files: Mapping[str, Path | None]) -> Iterator[str]:
    if not security.endswith("ssl"):
        for name, path in files.items():
            if path is not None:
                yield f"kafka.{name}: is not used by {security}: set kafka.security to ssl or sasl_ssl"
        return
    if files["key_file"] is not None and files["cert_file"] is None:
        yield "kafka.key_file: needs the certificate that belongs to it in kafka.cert_file"
    unreadable = [f"kafka.{name}: {told}" for name, path in files.items() if (told := _unreadable(path))]
    yield from unreadable
    if not unreadable:
        try:
            tls_context(files["ca_file"], files["cert_file"], files["key_file"])
        except ValueError as problem:
            yield str(problem)


def _unreadable(path: Path | None) -> str | None:
    try:
        if path is not None:
            path.read_bytes()
    except OSError as problem:
        return f"{path} cannot be read: {problem.strerror}"
    return None


def tls_context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """What a client checks the broker's certificate with, and its own certificate where the broker asks for one.

    Without `ca_file` the system's authorities are trusted. Raises `ValueError`, which names the setting.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise ValueError(f"kafka.ca_file: {ca_file} holds no certificate in PEM form") from None
    if cert_file is not None:
        try:
            # An encrypted key must not make a service ask a terminal for its password.
            context.load_cert_chain(cert_file, key_file, password=_no_password)
        except (ssl.SSLError, ValueError) as problem:
            told = (
                "they do not belong together" if "MISMATCH" in str(problem) else "PEM form, key not encrypted"
            )
            raise ValueError(
                f"kafka.cert_file: {cert_file} with {key_file or 'the key in it'} cannot be used: {told}"
            ) from None
    return context


def _no_password() -> bytes:
    raise ValueError("the key is encrypted")

"""The settings `kafka.*` as a whole: what does not fit together is said at the start, and no secret is shown."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from certificates import server_certificate
from cryptography.hazmat.primitives import serialization

from pipeline.errors import UserError
from pipeline.settings import Settings, load_settings

BROKER = "kafka://a:9092"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(environ: Mapping[str, str], broker: str = BROKER) -> Settings:
    """The settings, from `environ` without its common prefix."""
    return load_settings({"broker": broker}, {f"CALLFOLD_KAFKA_{k}": v for k, v in environ.items()})


def problems_of(environ: Mapping[str, str], broker: str = BROKER) -> list[str]:
    with pytest.raises(UserError) as raised:
        load(environ, broker)
    return str(raised.value).removeprefix("settings: ").split("; ")


def test_a_login_needs_its_name_and_its_password() -> None:
    assert problems_of({"SECURITY": "sasl_plaintext"}) == [
        "kafka.username: sasl_plaintext needs it (set CALLFOLD_KAFKA_USERNAME)",
        "kafka.password: sasl_plaintext needs it (set CALLFOLD_KAFKA_PASSWORD)",
    ]


def test_what_would_not_be_used_is_said() -> None:
    told = problems_of({"USERNAME": "u", "PASSWORD": "hunter2", "CA_FILE": "ca.pem", "KEY_FILE": "key.pem"})
    assert [problem.partition(":")[0] for problem in told] == [
        "kafka.username",
        "kafka.password",
        "kafka.ca_file",
        "kafka.key_file",
    ]
    assert all("is not used by plaintext" in problem for problem in told)
    assert "hunter2" not in "".join(told)


def test_nobody_is_left_without_the_security_that_was_asked_for() -> None:
    (told,) = problems_of({"SECURITY": "ssl"}, broker="embedded")
    assert told.startswith("kafka.security: ssl is not for the embedded broker")


def test_words_that_are_none_of_the_choices_are_refused() -> None:
    told = problems_of({"SECURITY": "tls", "MECHANISM": "gssapi"})
    assert told == [
        "CALLFOLD_KAFKA_SECURITY: 'tls' is not one of plaintext, ssl, sasl_plaintext, sasl_ssl",
        "CALLFOLD_KAFKA_MECHANISM: 'gssapi' is not one of plain, scram-sha-256, scram-sha-512",
    ]


def test_files_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    environ = {"SECURITY": "ssl", "CA_FILE": "gone.pem", "CERT_FILE": str(tmp_path), "KEY_FILE": "empty.pem"}
    assert problems_of(environ) == [
        "kafka.ca_file: gone.pem cannot be read: No such file or directory",
        f"kafka.cert_file: {tmp_path} cannot be read: Is a directory",
    ]
    assert problems_of({"SECURITY": "ssl", "CA_FILE": "empty.pem"}) == [
        "kafka.ca_file: empty.pem holds no certificate in PEM form"
    ]
    assert problems_of({"SECURITY": "ssl", "KEY_FILE": "empty.pem"}) == [
        "kafka.key_file: needs the certificate that belongs to it in kafka.cert_file"
    ]


def test_a_certificate_must_go_with_its_key(tmp_path: Path) -> None:
    authority, pem = tmp_path / "authority.pem", tmp_path / "pem.pem"
    server_certificate(authority, pem)
    assert load({"SECURITY": "ssl", "CA_FILE": str(authority), "CERT_FILE": str(pem)}).kafka_cert_file == pem
    server_certificate(tmp_path / "another.pem", tmp_path / "its-key.pem")
    (told,) = problems_of({"SECURITY": "ssl", "CERT_FILE": "pem.pem", "KEY_FILE": "its-key.pem"})
    assert told == "kafka.cert_file: pem.pem with its-key.pem cannot be used: they do not belong together"


def test_an_encrypted_key_asks_nobody_for_its_password(tmp_path: Path) -> None:
    server_certificate(tmp_path / "authority.pem", tmp_path / "pem.pem")
    text = (tmp_path / "pem.pem").read_bytes()
    key = serialization.load_pem_private_key(text, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    (told,) = problems_of({"SECURITY": "ssl", "CERT_FILE": "pem.pem", "KEY_FILE": "locked.pem"})
    assert told.endswith("PEM form, key not encrypted")


def test_the_password_comes_from_the_environment_only_and_is_never_shown() -> None:
    Path("callfold.toml").write_text('[kafka]\npassword = "hunter2"\nsecurity = "plaintext"')
    with pytest.raises(UserError) as raised:
        load({})
    assert "kafka.password: is taken from the environment only (CALLFOLD_KAFKA_PASSWORD)" in str(raised.value)
    Path("callfold.toml").unlink()
    settings = load({"SECURITY": "sasl_ssl", "USERNAME": "u", "PASSWORD": " hunter2 "})
    assert settings.kafka_password == " hunter2 "
    assert "hunter2" not in repr(settings) + str(settings)
    with pytest.raises(UserError) as raised:
        load_settings({"kafka.password": 4711}, {})
    assert "4711" not in str(raised.value)

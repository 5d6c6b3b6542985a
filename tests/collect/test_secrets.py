"""Secrets in files: replaced, gone, unreadable; and what is said of those that cannot work."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from signing import BUS, INTERACTLY, KNOWN, NOW, PKCS1, PROVIDERS, RECHO, SPKI, Request, signed_headers

from pipeline.collect import verify as module
from pipeline.collect.verify import auth_problems
from pipeline.settings import ProviderAuth


class Clock:
    """The time since the boot, which only a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    module._read_within.cache_clear()
    return Clock(monkeypatch)


def problems(*secrets: str, provider: str = "recho", auth: str = "signature") -> list[str]:
    return auth_problems({provider: ProviderAuth(auth, secrets)})  # type: ignore[arg-type]  # one of the words


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("around", ["{}", "{}\n", " {}\r\n", "\n\n{}\n\n\t"])
def test_a_secret_may_be_in_a_file(provider: str, around: str, tmp_path: Path, clock: Clock) -> None:
    request = KNOWN[provider]
    for name in ("secret", "secret.pem", "secret.key"):
        file = tmp_path / name
        file.write_text(around.format(request.secrets[0]), newline="")
        assert request._replace(secrets=(str(file),)).is_accepted
        assert request._replace(secrets=("other", str(file))).is_accepted
        assert problems(str(file), provider=provider) == []
        # The file's name is no secret.
        named = Request("interactly", {"x-interactly-secret": str(file)}, (str(file),))
        assert not named.is_accepted


def test_a_key_file_is_found_from_here_and_from_home(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bus").write_text("relay-token\n")
    (tmp_path / "bus.key").write_text("relay-token\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("./bus", "~/bus", "bus.key"):
        assert BUS._replace(secrets=(name,)).is_accepted, name


def test_a_file_that_is_replaced_counts_from_then_on(tmp_path: Path, clock: Clock) -> None:
    file, new = tmp_path / "token", tmp_path / "new"
    file.write_text("other-token\n")
    request = BUS._replace(secrets=(str(file),))
    assert not request.is_accepted
    times = file.stat()
    new.write_text("relay-token\n")
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.replace(file)
    clock.seconds += module.REREAD_SECONDS
    assert request.is_accepted
    # Written over in place, as long as before and within the same tick of the file system's clock.
    file.write_text("third-token\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    clock.seconds += module.REREAD_SECONDS
    assert not request.is_accepted


def test_a_file_is_read_once_a_second_however_many_ask(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("relay-token")
    reads: list[str] = []
    read = module._read

    def counted(path: str) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(module, "_read", counted)
    for _ in range(100):
        assert BUS._replace(secrets=(str(file),)).is_accepted
    assert len(reads) == 1
    clock.seconds += module.REREAD_SECONDS
    assert BUS._replace(secrets=(str(file),)).is_accepted
    assert len(reads) == 2


def _gone(file: Path) -> None:
    file.unlink()


def _emptied(file: Path) -> None:
    file.write_text("\n")


def _a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _a_circle(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


@pytest.mark.parametrize("change", [_gone, _emptied, _a_folder, _a_pipe, _a_circle])
def test_a_file_that_cannot_be_read_lets_nobody_in(
    change: Callable[[Path], None], tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("relay-token")
    request = BUS._replace(secrets=(str(file),))
    assert request.is_accepted
    change(file)
    clock.seconds += module.REREAD_SECONDS
    assert not request.is_accepted
    assert request._replace(secrets=(str(file), "relay-token")).is_accepted
    for guess in ("", str(file), "None", "b''"):
        assert not request.having(authorization=f"Bearer {guess}").is_accepted
        forged = signed_headers("whippy", guess, str(NOW))
        assert not Request("whippy", forged, (str(file),)).is_accepted
    if change is not _emptied:
        assert str(file) in caplog.text
        assert len(caplog.records) == 1
    (line,) = problems(str(file), provider="whippy")
    assert str(file) in line
    assert "CALLFOLD_WHIPPY_SECRET" in line


def test_a_text_that_begins_with_a_slash_may_be_the_secret_itself(clock: Clock) -> None:
    secret = "/9j4AAQSkZJRgABAQ+/x=="
    assert Request("interactly", {"x-interactly-secret": secret}, (secret,)).is_accepted
    (line,) = problems(secret, provider="interactly")
    assert "begins with / and names no file" in line
    assert secret not in line
    for name in (
        "/etc/callfold/none",
        "/tmp/none/none",
        "./none",
        "../none",
        "~/none",
        "none.pem",
        "none.pub",
    ):
        assert not Request("interactly", {"x-interactly-secret": name}, (name,)).is_accepted, name
    for secret in ("~tilde", ".dot", "a/b", "x.pem.y", "key", "/"):
        assert Request("interactly", {"x-interactly-secret": secret}, (secret,)).is_accepted, secret


@pytest.mark.parametrize(
    "pem",
    [
        SPKI,
        PKCS1,
        SPKI.strip(),
        SPKI.replace("\n", "\\n"),
        SPKI.replace("\n", "\r\n"),
        f"Recho's key\n{SPKI}",
    ],
    ids=["as it is", "PKCS #1", "stripped", "in one line", "from Windows", "with a remark"],
)
def test_rechos_key_may_be_written_in_several_ways(pem: str) -> None:
    assert RECHO._replace(secrets=(pem,)).is_accepted
    assert problems(pem) == []


def _pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


PRIVATE = rsa.generate_private_key(65537, 1024).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
# openssl genrsa 512 | openssl rsa -pubout
SHORT = """-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALaiZECrNdofFsj0RBmLtP8Yy/VaIyuH
vgqwt60fCS68IApMqgX5jg5LD2Cf32FjMOVKedpRSQw2qFp0AWeCXk8CAwEAAQ==
-----END PUBLIC KEY-----"""
NO_KEYS = {
    "whsec_a-token": "is no public key in PEM",
    SPKI.replace("-----BEGIN PUBLIC KEY-----\n", ""): "is no public key in PEM",
    SPKI[:200] + SPKI[-27:]: "is damaged, or no RSA key of at least 1024 bits",
    SPKI.replace("MIIB", "MIIC"): "is damaged, or no RSA key of at least 1024 bits",
    SHORT: "is damaged, or no RSA key of at least 1024 bits",
    _pem(
        ec.generate_private_key(ec.SECP256R1()).public_key()
    ): "is damaged, or no RSA key of at least 1024 bits",
    PRIVATE.decode(): "is a private key, and not the public key in PEM",
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----": "is a certificate, and not the public key in PEM",
}


@pytest.mark.parametrize(("secret", "told"), NO_KEYS.items(), ids=range(len(NO_KEYS)))
def test_what_cannot_be_rechos_key_is_said_and_lets_nobody_in(secret: str, told: str, tmp_path: Path) -> None:
    assert not RECHO._replace(secrets=(secret,)).is_accepted
    assert RECHO._replace(secrets=(secret, SPKI)).is_accepted
    mend = "mend providers.recho.secret (CALLFOLD_RECHO_SECRET)"
    assert problems(secret) == [f"recho: its secret {told}: {mend}"]
    assert problems(SPKI, secret) == [f"recho: secret 2 of 2 {told}: {mend}"]
    file = tmp_path / "recho.pem"
    file.write_text(secret)
    assert problems(str(file)) == [f"recho: its secret {told}: {mend}"]
    # A token is any text.
    assert problems(secret, auth="bearer") == []
    assert problems(secret, provider="interactly") == []


def test_who_accepts_everything_or_has_no_secret_has_no_wrong_one() -> None:
    assert problems("/none.pem", auth="none") == []
    assert problems() == []
    assert problems("\udcff", provider="interactly") == []
    assert auth_problems({name: ProviderAuth() for name in PROVIDERS}) == []
    lines = auth_problems({name: ProviderAuth("signature", ("./none",)) for name in PROVIDERS})
    assert [line.partition(":")[0] for line in lines] == sorted(PROVIDERS)
    assert INTERACTLY.is_accepted

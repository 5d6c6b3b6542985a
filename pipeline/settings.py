"""Settings: one frozen value, read once at the start, with every problem reported together.

A value is taken from the command-line option, else the environment, else `callfold.toml`, else the default.
`SETTINGS` (in `setting_table.py`) lists every setting once and drives the reading.
This module knows no provider: their names are handed in.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.kafka_security import kafka_problems
from pipeline.setting_readers import EMBEDDED
from pipeline.setting_table import SETTINGS, SettingSpec
from pipeline.storage.place import is_remote

CONFIG_FILE = "callfold.toml"
AuthKind = Literal["signature", "bearer", "none"]


@dataclass(frozen=True)
class ProviderAuth:
    """How one provider's webhooks prove where they come from; without a secret everything is refused."""

    #: `none` accepts every request, and is said in the log at the start
    auth: AuthKind = "signature"
    #: tokens, shared secrets, or public keys (PEM text or path); several while a secret is being rotated
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Settings:
    """Every setting under its flat name; `SETTINGS` holds the meanings, units and defaults."""

    broker: str
    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
    kafka_mechanism: Literal["plain", "scram-sha-256", "scram-sha-512"]
    kafka_username: str | None
    kafka_password: str | None = field(repr=False)
    kafka_ca_file: Path | None
    kafka_cert_file: Path | None
    kafka_key_file: Path | None
    lake: Path
    http_host: str
    http_port: int
    http_max_body_bytes: int
    http_max_header_bytes: int
    http_max_connections: int
    http_request_seconds: float
    http_max_per_second: int
    http_allowed_origins: tuple[str, ...]
    spool_dir: Path | None
    spool_max_bytes: int
    spool_max_age_seconds: float
    flush_seconds: float
    grace_seconds: float
    idle_seconds: float
    stuck_seconds: float
    providers: Mapping[str, ProviderAuth]
    privacy_numbers: Literal["keep", "mask", "hmac"]
    privacy_key: str | None = field(repr=False)
    privacy_region: str | None
    privacy_transcripts: Literal["drop", "keep"]
    archive_webhooks: bool
    topic_prefix: str
    topic_partitions: int
    topic_replication: int
    topic_call_events: Literal["strays", "all"]
    topic_retention_days: int
    metrics_port: int
    log_format: Literal["human", "json"]
    compact_seconds: float
    compact_grace_seconds: float
    report_cron: str | None
    report_period: str
    report_format: str

    @property
    def is_embedded(self) -> bool:
        """Whether Callfold runs its own in-memory broker."""
        return self.broker == EMBEDDED

    @property
    def spool(self) -> Path:
        """Where the collectors of this lake keep what Kafka cannot take: not in it, where analysts would see it.

        UserError if there is no such place beside the lake.
        """
        if self.spool_dir is not None:
            return self.spool_dir
        if is_remote(self.lake):
            raise UserError(
                f"settings: spool.dir: the lake is at {self.lake}, so a collector needs a directory of this machine "
                "for what Kafka cannot take: set it (CALLFOLD_SPOOL_DIR)"
            )
        lake = self.lake.absolute()
        return lake.with_name(f"{lake.name}-spool")


def load_settings(
    options: Mapping[str, object],
    environ: Mapping[str, str],
    config_file: Path | None = None,
    provider_names: Iterable[str] = (),
) -> Settings:
    """The settings in force, or one `UserError` that names every problem.

    `options` are keyed by a setting's name or flat name (`http.port`, `http_port`); None is "not given".
    Without `config_file`, `callfold.toml` in the working directory is read if there is one.
    """
    names = tuple(provider_names)
    problems: list[str] = []
    in_file = _read_file(config_file, problems)
    specs = [_for_provider(spec, name) for spec in SETTINGS for name in _expansions(spec, names)]
    values: dict[str, Any] = {}
    for spec in specs:
        given = {spec.name: options.get(spec.name, options.get(spec.attribute))}
        source, value = _first_given(spec, given, environ, in_file)
        try:
            values[spec.attribute] = spec.read(value)
        except ValueError as problem:
            # Of an address, a name before an @ comes with a password.
            is_secret = "secret" in spec.name or not spec.in_file or "@" in str(value)
            shown = "the value" if is_secret else repr(value)
            problems.append(f"{source}: {shown} {problem}")
    problems += _unknown_keys(in_file, specs) + _unknown_options(options, specs)
    problems += _unknown_provider_variables(environ, names)
    if values.get("privacy_numbers") == "hmac" and not values.get("privacy_key"):
        problems.append("privacy.numbers: hmac needs its key in CALLFOLD_PRIVACY_KEY")
    problems += kafka_problems(values)
    if problems:
        raise UserError("settings: " + "; ".join(problems))
    auths = {
        name: ProviderAuth(values.pop(f"providers_{name}_auth"), values.pop(f"providers_{name}_secret"))
        for name in names
    }
    return Settings(providers=auths, **values)


def _expansions(spec: SettingSpec, names: tuple[str, ...]) -> tuple[str, ...]:
    return names if "<name>" in spec.name else ("",)


def _for_provider(spec: SettingSpec, name: str) -> SettingSpec:
    return spec._replace(name=spec.name.replace("<name>", name), env=spec.env.replace("<NAME>", name.upper()))


def _first_given(
    spec: SettingSpec, option: Mapping[str, object], environ: Mapping[str, str], in_file: Mapping[str, object]
) -> tuple[str, object]:
    """Where the value in force comes from, in the user's words, and the value as given."""
    if option[spec.name] is not None:
        return f"option {spec.name}", option[spec.name]
    # An empty variable is how compose files and CI say "not set".
    if environ.get(spec.env):
        return spec.env, environ[spec.env]
    if spec.in_file and spec.name in in_file:
        return f"{CONFIG_FILE}: {spec.name}", in_file[spec.name]
    return spec.name, spec.default


def _read_file(config_file: Path | None, problems: list[str]) -> dict[str, object]:
    path = config_file or Path(CONFIG_FILE)
    if config_file is None and not path.exists():
        return {}
    try:
        return dict(_flatten(tomllib.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as problem:
        problems.append(f"{path}: cannot be read: {problem}")
        return {}


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unknown_keys(in_file: Mapping[str, object], specs: list[SettingSpec]) -> list[str]:
    known = [spec.name for spec in specs if spec.in_file]
    elsewhere = {spec.name: spec.env for spec in specs if not spec.in_file}
    return [f"{CONFIG_FILE}: {key}: {_advice(key, known, elsewhere)}" for key in in_file if key not in known]


def _advice(key: str, known: list[str], elsewhere: Mapping[str, str]) -> str:
    if key in elsewhere:
        return f"is taken from the environment only ({elsewhere[key]})"
    close = difflib.get_close_matches(key, known, 1)
    return "no such setting" + (f", did you mean {close[0]}?" if close else "")


def _unknown_options(options: Mapping[str, object], specs: list[SettingSpec]) -> list[str]:
    known = {spec.name for spec in specs} | {spec.attribute for spec in specs}
    return [f"option {key}: no such setting" for key in options if key not in known]


def _unknown_provider_variables(environ: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    """A misspelt provider would otherwise show only as refused webhooks."""
    known = {name.upper() for name in names}
    found = {key: re.fullmatch(r"CALLFOLD_(\w+)_(AUTH|SECRET)", key) for key in environ}
    return [f"{key}: no such provider" for key, match in found.items() if match and match[1] not in known]

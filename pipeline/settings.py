"""Settings: one frozen value, read once at the start, with every problem reported together.

A value is taken from the command-line option, else the environment, else `callfold.toml`, else the default.
`SETTINGS` lists every setting once and drives the reading; the documentation's table is that list.
This module knows no provider: their names are handed in.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.errors import UserError
from pipeline.kafka_security import kafka_problems
from pipeline.setting_readers import (
    EMBEDDED,
    choice_reader,
    number_reader,
    optional,
    read_broker,
    read_cron,
    read_flag,
    read_password,
    read_path,
    read_prefix,
    read_secrets,
    read_text,
    whole_reader,
)

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
    flush_seconds: float
    grace_seconds: float
    idle_seconds: float
    stuck_seconds: float
    providers: Mapping[str, ProviderAuth]
    privacy_numbers: Literal["keep", "mask", "hmac"]
    privacy_key: str | None = field(repr=False)
    privacy_transcripts: Literal["drop", "keep"]
    archive_webhooks: bool
    topic_prefix: str
    topic_partitions: int
    topic_replication: int
    topic_retention_days: int
    metrics_port: int
    compact_seconds: float
    compact_grace_seconds: float
    report_cron: str | None
    report_period: str
    report_format: str

    @property
    def is_embedded(self) -> bool:
        """Whether Callfold runs its own in-memory broker."""
        return self.broker == EMBEDDED


class SettingSpec(NamedTuple):
    """One setting; `<name>` in `name` and `<NAME>` in `env` stand for each provider in turn."""

    name: str
    env: str
    default: str
    meaning: str
    read: Callable[[object], Any]
    in_file: bool = True

    @property
    def attribute(self) -> str:
        """Its field of `Settings`: `topics.prefix` is `topic_prefix`."""
        return self.name.replace("topics.", "topic_").replace(".", "_")


#: `default` is read like any other text; the empty text is the absence of a value.
SETTINGS: tuple[SettingSpec, ...] = (
    SettingSpec("broker", "CALLFOLD_BROKER", EMBEDDED,
                "`embedded` or `kafka://host:port[;host:port]`", read_broker),
    SettingSpec("kafka.security", "CALLFOLD_KAFKA_SECURITY", "plaintext",
                "how Kafka is spoken to: `plaintext`, `ssl` (TLS), `sasl_plaintext` (login), `sasl_ssl` (both)",
                choice_reader("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")),
    SettingSpec("kafka.mechanism", "CALLFOLD_KAFKA_MECHANISM", "scram-sha-512",
                "how the login is proven: `plain`, `scram-sha-256` or `scram-sha-512`",
                choice_reader("plain", "scram-sha-256", "scram-sha-512")),
    SettingSpec("kafka.username", "CALLFOLD_KAFKA_USERNAME", "", "who logs in", optional(read_text)),
    SettingSpec("kafka.password", "CALLFOLD_KAFKA_PASSWORD", "",
                "the password of the login; taken from the environment only", optional(read_password),
                in_file=False),
    SettingSpec("kafka.ca_file", "CALLFOLD_KAFKA_CA_FILE", "",
                "the authorities (PEM) that Kafka's certificate is checked with; empty: the system's",
                optional(read_path)),
    SettingSpec("kafka.cert_file", "CALLFOLD_KAFKA_CERT_FILE", "",
                "Callfold's own certificate (PEM), where Kafka asks for one", optional(read_path)),
    SettingSpec("kafka.key_file", "CALLFOLD_KAFKA_KEY_FILE", "",
                "its key (PEM, not encrypted); empty: in the file of the certificate", optional(read_path)),
    SettingSpec("lake", "CALLFOLD_LAKE", "./lake", "where Parquet goes", read_path),
    SettingSpec("http.host", "CALLFOLD_HTTP_HOST", "127.0.0.1",
                "address the collector listens on", read_text),
    SettingSpec("http.port", "CALLFOLD_HTTP_PORT", "8080",
                "the collector's port; 0 takes a free one", whole_reader(0, 65535)),
    SettingSpec("http.max_body_bytes", "CALLFOLD_HTTP_MAX_BODY_BYTES", "1048576",
                "largest webhook body taken, in bytes", whole_reader(1, 64 * 1024 * 1024)),
    SettingSpec("flush_seconds", "CALLFOLD_FLUSH_SECONDS", "10",
                "how long a record may wait before it is in the lake", number_reader(0, above=True)),
    SettingSpec("grace_seconds", "CALLFOLD_GRACE_SECONDS", "300",
                "how long after its terminal event a call stays in memory for late facts", number_reader(0)),
    SettingSpec("idle_seconds", "CALLFOLD_IDLE_SECONDS", "14400",
                "a call with no event for so long is closed by timeout", number_reader(0, above=True)),
    SettingSpec("stuck_seconds", "CALLFOLD_STUCK_SECONDS", "120",
                "a worker that makes no progress for so long, though it could, ends with exit code 1",
                number_reader(0, above=True)),
    SettingSpec("providers.<name>.auth", "CALLFOLD_<NAME>_AUTH", "signature",
                "`signature`, `bearer`, or `none` (said in the log at the start)",
                choice_reader("signature", "bearer", "none")),
    SettingSpec("providers.<name>.secret", "CALLFOLD_<NAME>_SECRET", "",
                "the provider's secret, token or public key (PEM text or path); several, comma-separated,"
                " during rotation", read_secrets),
    SettingSpec("privacy.numbers", "CALLFOLD_PRIVACY_NUMBERS", "keep",
                "`keep`, `mask` (last 4 digits), `hmac` (keyed HMAC-SHA256)",
                choice_reader("keep", "mask", "hmac")),
    SettingSpec("privacy.key", "CALLFOLD_PRIVACY_KEY", "",
                "the key of `hmac`; taken from the environment only", optional(read_text), in_file=False),
    SettingSpec("privacy.transcripts", "CALLFOLD_PRIVACY_TRANSCRIPTS", "drop",
                "`drop` or `keep`: conversation text, summaries, system prompts",
                choice_reader("drop", "keep")),
    SettingSpec("archive.webhooks", "CALLFOLD_ARCHIVE_WEBHOOKS", "true",
                "keep the webhooks themselves in the lake (redacted), for replay after Kafka's retention",
                read_flag),
    SettingSpec("topics.prefix", "CALLFOLD_TOPICS_PREFIX", "callfold",
                "first part of every topic's name and of the consumer group's", read_prefix),
    SettingSpec("topics.partitions", "CALLFOLD_TOPICS_PARTITIONS", "8",
                "partitions of each topic when it is created; the embedded broker always has 4",
                whole_reader(1, 10_000)),
    SettingSpec("topics.replication", "CALLFOLD_TOPICS_REPLICATION", "0",
                "brokers that each topic is kept on when it is created; 0: all there are, at most 3",
                whole_reader(0, 100)),
    SettingSpec("topics.retention_days", "CALLFOLD_TOPICS_RETENTION_DAYS", "7",
                "days that webhooks and call events stay on Kafka, when their topics are created",
                whole_reader(1, 36_500)),
    SettingSpec("metrics.port", "CALLFOLD_METRICS_PORT", "0",
                "port on `http.host` where a worker serves its metrics, the next one of several on the next port; 0 for"
                " none. Under `serve` those of a single worker stand in the collector's `/metrics`",
                whole_reader(0, 65535)),
    SettingSpec("compact.seconds", "CALLFOLD_COMPACT_SECONDS", "300",
                "how often small files are merged", number_reader(0, above=True)),
    SettingSpec("compact.grace_seconds", "CALLFOLD_COMPACT_GRACE_SECONDS", "120",
                "how long merged files stay for readers that have them open", number_reader(0)),
    SettingSpec("report.cron", "CALLFOLD_REPORT_CRON", "",
                "when a report is written, as five cron fields; empty: never", read_cron),
    SettingSpec("report.period", "CALLFOLD_REPORT_PERIOD", "yesterday",
                "what the scheduled report covers", read_text),
    SettingSpec("report.format", "CALLFOLD_REPORT_FORMAT", "html", "form of the scheduled report",
                choice_reader("html", "md", "csv", "json")),
)  # fmt: skip


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
            shown = "the value" if "secret" in spec.name or not spec.in_file else repr(value)
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

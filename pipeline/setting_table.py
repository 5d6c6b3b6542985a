"""Every setting, once: its names, its default, its meaning and how it is read. The documentation has the same table."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.setting_readers import (
    EMBEDDED,
    choice_reader,
    number_reader,
    optional,
    read_broker,
    read_cron,
    read_flag,
    read_folder,
    read_lake,
    read_origins,
    read_password,
    read_path,
    read_prefix,
    read_region,
    read_secrets,
    read_text,
    whole_reader,
)


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
    SettingSpec("lake", "CALLFOLD_LAKE", "./lake", "where Parquet goes: a folder, or `s3://bucket/prefix`", read_lake),
    SettingSpec("http.host", "CALLFOLD_HTTP_HOST", "127.0.0.1",
                "address the collector listens on", read_text),
    SettingSpec("http.port", "CALLFOLD_HTTP_PORT", "8080",
                "the collector's port; 0 takes a free one", whole_reader(0, 65535)),
    SettingSpec("http.max_body_bytes", "CALLFOLD_HTTP_MAX_BODY_BYTES", "1048576",
                "largest webhook body taken, in bytes", whole_reader(1, 64 * 1024 * 1024)),
    SettingSpec("http.max_header_bytes", "CALLFOLD_HTTP_MAX_HEADER_BYTES", "8190",
                "longest request line, and longest header, taken, in bytes", whole_reader(256, 1024 * 1024)),
    SettingSpec("http.max_connections", "CALLFOLD_HTTP_MAX_CONNECTIONS", "1000",
                "connections at a time; beyond them the one that has been silent for longest is closed",
                whole_reader(1, 1_000_000)),
    SettingSpec("http.request_seconds", "CALLFOLD_HTTP_REQUEST_SECONDS", "15",
                "how long a sender may take for a request; a slower one is cut off",
                number_reader(0, above=True)),
    SettingSpec("http.max_per_second", "CALLFOLD_HTTP_MAX_PER_SECOND", "0",
                "webhooks taken of each provider in a second; beyond that 429; 0: as many as come",
                whole_reader(0, 1_000_000)),
    SettingSpec("http.allowed_origins", "CALLFOLD_HTTP_ALLOWED_ORIGINS", "*",
                "pages whose scripts may post to a provider that has a relay, comma-separated; `*`: any",
                read_origins),
    SettingSpec("spool.dir", "CALLFOLD_SPOOL_DIR", "",
                "local directory for webhooks that Kafka cannot take now; empty: beside the lake, `<lake>-spool`",
                optional(read_folder)),
    SettingSpec("spool.max_bytes", "CALLFOLD_SPOOL_MAX_BYTES", "1073741824",
                "most that a collector keeps there; beyond that 503; 0: no spool", whole_reader(0, 10**12 - 1)),
    SettingSpec("spool.max_age_seconds", "CALLFOLD_SPOOL_MAX_AGE_SECONDS", "259200",
                "while the oldest webhook there is older than this, no more are taken", number_reader(0, above=True)),
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
    SettingSpec("privacy.region", "CALLFOLD_PRIVACY_REGION", "",
                "ISO 3166 code of the country whose numbers come without a country code, for `hmac`: `US`",
                optional(read_region)),
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
    SettingSpec("topics.call_events", "CALLFOLD_TOPICS_CALL_EVENTS", "strays",
                "which events go over `call-events`: `strays`, those of webhooks that stand in another partition than"
                " the collector would have chosen, or `all`, for whoever else reads that topic, at twice the cost",
                choice_reader("strays", "all")),
    SettingSpec("topics.retention_days", "CALLFOLD_TOPICS_RETENTION_DAYS", "7",
                "days that webhooks and call events stay on Kafka, when their topics are created",
                whole_reader(1, 36_500)),
    SettingSpec("metrics.port", "CALLFOLD_METRICS_PORT", "0",
                "port on `http.host` where a worker serves its metrics, the next one of several on the next port; 0 for"
                " none. Under `serve` those of a single worker stand in the collector's `/metrics`",
                whole_reader(0, 65535)),
    SettingSpec("log.format", "CALLFOLD_LOG_FORMAT", "human",
                "how `serve`, `collect` and `work` log: `human`, or `json`, an object a line",
                choice_reader("human", "json")),
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

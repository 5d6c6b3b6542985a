"""Where settings come from, and that all their problems are reported at once."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.setting_table import SETTINGS
from pipeline.settings import ProviderAuth, Settings, load_settings

PROVIDERS = ("recho", "aircall_bus")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(
    options: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, toml: str = ""
) -> Settings:
    Path("callfold.toml").write_text(toml, encoding="utf-8")
    return load_settings(options or {}, environ or {}, None, PROVIDERS)


def problems_of(
    options: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, toml: str = ""
) -> str:
    with pytest.raises(UserError) as raised:
        load(options, environ, toml)
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_defaults_are_the_documented_ones() -> None:
    assert load() == Settings(
        broker="embedded",
        kafka_security="plaintext",
        kafka_mechanism="scram-sha-512",
        kafka_username=None,
        kafka_password=None,
        kafka_ca_file=None,
        kafka_cert_file=None,
        kafka_key_file=None,
        lake=Path("lake"),
        http_host="127.0.0.1",
        http_port=8080,
        http_max_body_bytes=1048576,
        http_max_header_bytes=8190,
        http_max_connections=1000,
        http_request_seconds=15.0,
        http_max_per_second=0,
        http_allowed_origins=("*",),
        spool_dir=None,
        spool_max_bytes=1 << 30,
        spool_max_age_seconds=259200.0,
        flush_seconds=10,
        grace_seconds=300,
        idle_seconds=14400,
        stuck_seconds=120,
        providers={name: ProviderAuth() for name in PROVIDERS},
        privacy_numbers="keep",
        privacy_key=None,
        privacy_region=None,
        privacy_transcripts="drop",
        archive_webhooks=True,
        topic_prefix="callfold",
        topic_partitions=8,
        topic_replication=0,
        topic_call_events="strays",
        topic_retention_days=7,
        metrics_port=0,
        log_format="human",
        compact_seconds=300,
        compact_grace_seconds=120,
        report_cron=None,
        report_period="yesterday",
        report_format="html",
    )


def test_the_spool_is_beside_the_lake_unless_it_is_said(tmp_path: Path) -> None:
    assert load({"lake": tmp_path / "lake"}).spool == tmp_path / "lake-spool"
    assert load({"lake": tmp_path / "lake", "spool.dir": "/spool"}).spool == Path("/spool")


def test_origins_are_those_of_pages() -> None:
    assert load({"http.allowed_origins": "https://a.example/, http://b:8080"}).http_allowed_origins == (
        "https://a.example",
        "http://b:8080",
    )
    told = problems_of({}, {"CALLFOLD_HTTP_ALLOWED_ORIGINS": "a.example"})
    assert "is no list of origins such as https://dialer.example.com, and not *" in told


@pytest.mark.parametrize("region", ["USA", "XX", "1", "EU"])
def test_a_region_is_a_country_that_has_numbers(region: str) -> None:
    told = problems_of({}, {"CALLFOLD_PRIVACY_REGION": region})
    assert told == f"settings: CALLFOLD_PRIVACY_REGION: {region!r} is no ISO 3166 country code, such as US"
    assert load(environ={"CALLFOLD_PRIVACY_REGION": "gb"}).privacy_region == "GB"


def test_an_option_beats_the_environment_beats_the_file_beats_the_default() -> None:
    toml = "flush_seconds = 3\ngrace_seconds = 3\nidle_seconds = 3"
    environ = {"CALLFOLD_FLUSH_SECONDS": "2", "CALLFOLD_GRACE_SECONDS": "2"}
    settings = load({"flush_seconds": 1, "grace_seconds": None}, environ, toml)
    assert (settings.flush_seconds, settings.grace_seconds, settings.idle_seconds) == (1, 2, 3)
    assert settings.compact_seconds == 300


def test_an_empty_variable_is_not_set() -> None:
    assert load(environ={"CALLFOLD_HTTP_PORT": "", "CALLFOLD_PRIVACY_KEY": ""}).http_port == 8080


def test_every_setting_can_come_from_the_file() -> None:
    settings = load(
        toml="""
        broker = "kafka://a:9092;b:9093"
        lake = "/data/lake"
        [http]
        host = "0.0.0.0"
        port = 1
        max_body_bytes = 5
        [providers.recho]
        auth = "bearer"
        secret = ["one", "two"]
        [privacy]
        numbers = "mask"
        transcripts = "keep"
        [archive]
        webhooks = false
        [topics]
        prefix = "acme"
        partitions = 3
        replication = 2
        retention_days = 14
        [compact]
        seconds = 1.5
        grace_seconds = 0
        [report]
        cron = "15 6 * * 1-5"
        period = "last7d"
        format = "md"
        """
    )
    assert settings.broker == "kafka://a:9092;b:9093"
    assert settings.lake == Path("/data/lake")
    assert (settings.http_host, settings.http_port, settings.http_max_body_bytes) == ("0.0.0.0", 1, 5)
    assert settings.providers["recho"] == ProviderAuth("bearer", ("one", "two"))
    assert (settings.privacy_numbers, settings.privacy_transcripts) == ("mask", "keep")
    assert not settings.archive_webhooks
    assert (settings.topic_prefix, settings.topic_partitions) == ("acme", 3)
    assert (settings.topic_replication, settings.topic_retention_days) == (2, 14)
    assert (settings.compact_seconds, settings.compact_grace_seconds) == (1.5, 0)
    assert (settings.report_cron, settings.report_period, settings.report_format) == (
        "15 6 * * 1-5",
        "last7d",
        "md",
    )


def test_secrets_are_separated_by_commas_and_never_shown() -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"
    environ = {
        "CALLFOLD_RECHO_SECRET": f"{pem}, keys/old.pem",
        "CALLFOLD_AIRCALL_BUS_AUTH": "none",
        "CALLFOLD_PRIVACY_KEY": "hunter2",
        "CALLFOLD_PRIVACY_NUMBERS": "hmac",
    }
    settings = load(environ=environ)
    assert settings.providers["recho"].secrets == (pem, "keys/old.pem")
    assert settings.providers["aircall_bus"] == ProviderAuth("none")
    assert settings.privacy_key == "hunter2"
    shown = repr(settings) + str(settings)
    assert "hunter2" not in shown
    assert "BEGIN" not in shown
    assert "old.pem" not in shown


def test_all_problems_are_reported_together() -> None:
    problems = problems_of(
        {"flush_seconds": "soon"},
        {"CALLFOLD_BROKER": "localhost:9092", "CALLFOLD_RECO_SECRET": "s", "CALLFOLD_IDLE_SECONDS": "nan"},
        'brokr = "x"\nlake = 7\n[http]\nport = 70000\n[privacy]\nkey = "k"\nnumbers = "hmac"\n'
        '[providers.bland]\nauth = "none"\n[report]\ncron = "daily"',
    )
    for part in (
        "option flush_seconds: 'soon' is not a number over 0",
        "CALLFOLD_BROKER: 'localhost:9092' is neither embedded nor kafka://host:port[;host:port]",
        "CALLFOLD_RECO_SECRET: no such provider",
        "CALLFOLD_IDLE_SECONDS: 'nan' is not a number over 0",
        "callfold.toml: brokr: no such setting, did you mean broker?",
        "callfold.toml: lake: 7 is not a text",
        "callfold.toml: http.port: 70000 is not a whole number from 0 to 65535",
        "callfold.toml: privacy.key: is taken from the environment only (CALLFOLD_PRIVACY_KEY)",
        "privacy.numbers: hmac needs its key in CALLFOLD_PRIVACY_KEY",
        "callfold.toml: providers.bland.auth: no such setting",
        "callfold.toml: report.cron: 'daily' is no cron line",
    ):
        assert part in problems


@pytest.mark.parametrize(
    "broker",
    ["kafka://", "kafka://a", "kafka://a:b", "kafka://a:0", "kafka://a:99999", "kafka://a:1;", "http://a:1"],
)
def test_a_bad_broker_is_refused(broker: str) -> None:
    assert "CALLFOLD_BROKER" in problems_of(environ={"CALLFOLD_BROKER": broker})


@pytest.mark.parametrize(
    "broker", ["kafka://a:1", "kafka://a:1;kafka://b:2", "kafka://[::1]:9092", "kafka://k-0.k_x:9092"]
)
def test_a_good_broker_is_taken(broker: str) -> None:
    assert load(environ={"CALLFOLD_BROKER": broker}).broker == broker.replace(";kafka://", ";")


def test_a_number_is_not_a_truth_value() -> None:
    assert "flush_seconds: True" in problems_of(toml="flush_seconds = true")
    assert "http.port: 80.5" in problems_of(toml="[http]\nport = 80.5")


def test_the_value_of_a_bad_secret_is_not_shown() -> None:
    assert "hunter2" not in problems_of(toml='[providers.recho]\nsecret = [1, "hunter2"]')


def test_a_file_that_cannot_be_read_is_a_problem() -> None:
    assert "callfold.toml: cannot be read" in problems_of(toml="broker = ")
    with pytest.raises(UserError, match=r"gone\.toml: cannot be read"):
        load_settings({}, {}, Path("gone.toml"), PROVIDERS)


def test_an_unknown_option_is_a_problem() -> None:
    assert "option colour: no such setting" in problems_of({"colour": 1})


def test_every_field_has_its_setting() -> None:
    listed = {spec.attribute for spec in SETTINGS if "<name>" not in spec.name} | {"providers"}
    assert listed == {field.name for field in fields(Settings)}
    assert all(spec.env.startswith("CALLFOLD_") and spec.meaning for spec in SETTINGS)

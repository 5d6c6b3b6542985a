"""TLS and logins against a real Kafka, and what the doctor says of one."""

import asyncio
import json
import shlex
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from certificates import server_certificate
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from real_kafka import PASSWORD, USER, KafkaCluster, require_kafka
from running import Program, calls_in, free_port, until

from pipeline.doctor_kafka import Finding, broker_findings
from pipeline.providers import provider_names
from pipeline.settings import load_settings

WRONG = "not-the-password"
BODY = b'{"requestType": "callStatus", "callId": "CA1", "callStatus": "busy"}'

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    require_kafka()
    folder = tmp_path_factory.mktemp("kafka")
    # The listener with TLS alone knows its clients by their certificates.
    mutual = {
        "listener.name.ssl.ssl.client.auth": "required",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "authority.pem"),
    }
    # Whoever comes without a login may do everything, which is the tests; the others what the README says they need.
    access = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with KafkaCluster(folder, secured=True, overrides=mutual | access) as running:
        for user in (f"User:{USER}", "User:CN=localhost"):
            for prefix in ("e2e", "wrong"):
                _grant(running, user, prefix)
        yield running


def _grant(cluster: KafkaCluster, user: str, prefix: str) -> None:
    may = AclOperation
    topic = (may.READ, may.WRITE, may.CREATE, may.DESCRIBE, may.DESCRIBE_CONFIGS)
    rights = [(ResourceType.TOPIC, right) for right in topic]
    rights += [(ResourceType.GROUP, right) for right in (may.READ, may.DESCRIBE)]
    admin = AdminClient({"bootstrap.servers": cluster.servers})
    granted = admin.create_acls(
        [
            AclBinding(kind, prefix, ResourcePatternType.PREFIXED, user, "*", right, AclPermissionType.ALLOW)
            for kind, right in rights
        ]
    )
    for future in granted.values():
        future.result(10)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        if program.process.poll() is None:
            program.kill_all()


def _login(mechanism: str, password: str = PASSWORD) -> dict[str, str]:
    return {
        "CALLFOLD_KAFKA_MECHANISM": mechanism,
        "CALLFOLD_KAFKA_USERNAME": USER,
        "CALLFOLD_KAFKA_PASSWORD": password,
    }


def _by(cluster: KafkaCluster, protocol: str, **more: str) -> dict[str, str]:
    """The settings that reach one listener of the cluster."""
    settings = {"CALLFOLD_BROKER": cluster.secured_url(protocol), "CALLFOLD_KAFKA_SECURITY": protocol.lower()}
    if protocol.endswith("SSL"):
        settings["CALLFOLD_KAFKA_CA_FILE"] = str(cluster.authority)
    if protocol == "SSL":
        # The broker's own key and certificate will do for a client too: one authority has signed all.
        settings["CALLFOLD_KAFKA_CERT_FILE"] = str(cluster.folder / "server.pem")
    return settings | more


def _post(port: int) -> int:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/webhooks/freeclimb", BODY, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


def _ends(programs: list[Program], folder: Path, settings: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """The exit code and the words of each command that speaks to Kafka, all started at once."""
    commands = ("work", "collect", "serve", "doctor")
    environment = dict(settings) | {"CALLFOLD_LAKE": str(folder / "lake"), "CALLFOLD_HTTP_PORT": "0"}
    started = {command: Program(folder, command, **environment) for command in commands}
    programs += started.values()
    return {command: (program.process.wait(60), program.said()) for command, program in started.items()}


@pytest.mark.parametrize(
    ("protocol", "login"),
    [
        ("SASL_SSL", _login("scram-sha-512")),
        ("SSL", {}),
        ("SASL_PLAINTEXT", _login("plain")),
    ],
    ids=["sasl_ssl", "ssl", "sasl_plaintext"],
)
def test_a_webhook_becomes_a_call_over_a_secured_kafka(
    cluster: KafkaCluster, programs: list[Program], tmp_path: Path, protocol: str, login: dict[str, str]
) -> None:
    lake, port = tmp_path / "lake", free_port()
    settings = _by(cluster, protocol, **login) | {
        "CALLFOLD_TOPICS_PREFIX": f"e2e-{protocol.lower()}",
        "CALLFOLD_TOPICS_PARTITIONS": "1",
        "CALLFOLD_LAKE": str(lake),
        "CALLFOLD_HTTP_PORT": str(port),
    }
    worker = Program(tmp_path, "work", **settings)
    programs.append(worker)
    worker.wait_for("working:")
    collector = Program(tmp_path, "collect", **settings)
    programs.append(collector)
    collector.wait_for("collecting on")
    assert _post(port) == 202
    call = until(lambda: calls_in(lake).get("freeclimb:CA1"), "the call in the lake")
    assert call["outcome"] == "busy"
    assert worker.stop() == 0, worker.said()
    assert collector.stop() == 0, collector.said()
    assert PASSWORD not in worker.said() + collector.said()


def _assert_refused(ends: Mapping[str, tuple[int, str]], *words: str) -> None:
    for command, (code, said) in ends.items():
        assert code == 1, f"{command}\n{said}"
        assert all(word in said for word in words), f"{command}\n{said}"
        assert WRONG not in said
        assert "Traceback" not in said
        if command == "doctor":
            assert "FAIL  broker" in said
        else:
            assert said.startswith("callfold: Kafka at localhost:")
            assert len(said.splitlines()) == 1, f"{command}\n{said}"


def test_a_wrong_password_is_one_clear_line(
    cluster: KafkaCluster, programs: list[Program], tmp_path: Path
) -> None:
    settings = _by(cluster, "SASL_SSL", **_login("scram-sha-512", WRONG))
    refused = "refuses the login of 'callfold' by SCRAM-SHA-512"
    _assert_refused(_ends(programs, tmp_path, settings), refused, "CALLFOLD_KAFKA_PASSWORD")


def test_an_authority_that_did_not_sign_is_one_clear_line(
    cluster: KafkaCluster, programs: list[Program], tmp_path: Path
) -> None:
    server_certificate(tmp_path / "another.pem", tmp_path / "its-key.pem")
    settings = _by(cluster, "SASL_SSL", **_login("scram-sha-512", WRONG))
    settings["CALLFOLD_KAFKA_CA_FILE"] = str(tmp_path / "another.pem")
    _assert_refused(_ends(programs, tmp_path, settings), "certificate that is not trusted", "kafka.ca_file")


@pytest.mark.parametrize(
    ("protocol", "change", "told"),
    [
        ("SSL", {"CALLFOLD_KAFKA_CERT_FILE": ""}, "kafka.cert_file"),
        ("SASL_SSL", _login("plain", WRONG), "refuses the login of 'callfold' by PLAIN"),
        (
            "SASL_PLAINTEXT",
            _login("scram-sha-256", WRONG),
            "refuses the login of 'callfold' by SCRAM-SHA-256",
        ),
        (
            "SASL_SSL",
            {"CALLFOLD_KAFKA_SECURITY": "plaintext", "CALLFOLD_KAFKA_CA_FILE": ""},
            "kafka.security",
        ),
        ("SASL_PLAINTEXT", {"CALLFOLD_KAFKA_SECURITY": "plaintext"}, "hangs up"),
        ("SASL_PLAINTEXT", {"CALLFOLD_KAFKA_SECURITY": "ssl"}, "hangs up"),
    ],
    ids=["no_certificate", "plain", "scram_256", "no_tls", "no_login", "no_tls_there"],
)
def test_the_doctor_says_why_kafka_does_not_let_it_in(
    cluster: KafkaCluster, protocol: str, change: dict[str, str], told: str
) -> None:
    environment = _by(cluster, protocol, **change)
    (found,) = broker_findings(load_settings({}, environment, None, provider_names()))
    assert found.is_broken
    assert told in str(found)
    assert WRONG not in str(found)


def _examine(cluster: KafkaCluster, prefix: str) -> dict[str, Finding]:
    environment = _by(cluster, "SASL_SSL", **_login("scram-sha-512")) | {
        "CALLFOLD_TOPICS_PREFIX": prefix,
        "CALLFOLD_TOPICS_PARTITIONS": "2",
    }
    settings = load_settings({}, environment, None, provider_names())
    return {found.what.removeprefix(f"{prefix}."): found for found in broker_findings(settings)}


async def _make_wrong_topics(servers: str, prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    short = {"retention.ms": "3600000", "max.message.bytes": "1000"}
    topics = [
        NewTopic(f"{prefix}.webhooks.recho", 3, 1, topic_configs=short),
        NewTopic(f"{prefix}.webhooks.whippy", 1, 1),
        NewTopic(f"{prefix}.call-records", 2, 1),
    ]
    response = await admin.create_topics(topics)
    assert {error[1] for error in response.topic_errors} == {0}
    await admin.close()


def _produce(servers: str, topic: str, count: int) -> None:
    # A topic this new may have no leader yet, where aiokafka drops a connection for the garbage collector to find.
    producer = Producer({"bootstrap.servers": servers, "log_level": 0})
    for number in range(count):
        producer.produce(topic, json.dumps({"number": number}))
    assert producer.flush(60) == 0


def _follow(advice: str, cluster: KafkaCluster) -> None:
    """Does what the doctor says of a topic's configuration, on the listener that needs no file of a login."""
    words = shlex.split(advice.partition("kafka-configs ")[2])
    words[words.index("--bootstrap-server") + 1] = cluster.servers
    command = cluster.brokers[0].java("kafka.admin.ConfigCommand", *words)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_kafka_that_nobody_has_used_yet_is_no_problem(tmp_path: Path) -> None:
    require_kafka()
    with KafkaCluster(tmp_path) as fresh:
        environment = {"CALLFOLD_BROKER": fresh.url}
        found = list(broker_findings(load_settings({}, environment, None, provider_names())))
    assert [finding for finding in found if finding.is_broken] == []
    assert found[-1].told == "nobody is in the group callfold-worker"
    assert found[-1].advice == ""


def test_the_doctor_sees_topics_that_differ_and_who_works(
    cluster: KafkaCluster, programs: list[Program], tmp_path: Path
) -> None:
    asyncio.run(_make_wrong_topics(cluster.servers, "wrong"))
    _produce(cluster.servers, "wrong.webhooks.recho", 5)
    found = _examine(cluster, "wrong")
    assert found["broker"].told.endswith("answers over sasl_ssl: 1 broker")
    recho = found["webhooks.recho"]
    assert "3 partitions, replication 1, min.insync.replicas 1, kept 1 hour, lag 5" in recho.told
    assert "set it to 3" in recho.advice
    assert "retention.ms is 3600000, max.message.bytes is 1000: kafka-configs" in recho.advice
    assert "--partitions 2" in found["webhooks.whippy"].advice
    assert "--add-config cleanup.policy=compact" in found["call-records"].advice
    assert found["quarantine"].told == "not there yet"
    assert found["workers"].told == "nobody is in the group wrong-worker"
    assert "callfold work" in found["workers"].advice

    plain = {
        "CALLFOLD_TOPICS_PREFIX": "wrong",
        "CALLFOLD_TOPICS_PARTITIONS": "2",
        "CALLFOLD_BROKER": cluster.url,
    }
    worker = Program(tmp_path, "work", **plain, CALLFOLD_LAKE=str(tmp_path / "lake"))
    programs.append(worker)
    worker.wait_for("working:")
    until(lambda: "lag 0" in _examine(cluster, "wrong")["webhooks.recho"].told, "the five that wait")
    found = _examine(cluster, "wrong")
    # Those that were there are as they were; those that were missing are as they should be.
    assert found["webhooks.recho"].advice == recho.advice
    assert found["quarantine"].told == "2 partitions, replication 1, min.insync.replicas 1, kept 30 days"
    assert found["call-events"].advice == ""
    # Three of Recho, one of Whippy, two of each other topic that is read.
    assert found["workers"].told.endswith("stable: 127.0.0.1 (1 worker, 12 partitions)")
    # What the doctor says is what helps.
    _follow(recho.advice, cluster)
    mended = _examine(cluster, "wrong")["webhooks.recho"]
    assert "kept 7 days" in mended.told
    assert mended.advice == recho.advice.partition("; ")[0]
    assert worker.stop() == 0, worker.said()

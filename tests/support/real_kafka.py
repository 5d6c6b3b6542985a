"""A real Apache Kafka for the tests: the published jars, in KRaft mode, on free ports, its data kept over restarts.

The jars come from Maven Central once and are cached outside the tree (`$XDG_CACHE_HOME/callfold`).
"""

import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from required import require
from running import free_port

POM = Path(__file__).with_name("real_kafka.pom.xml")
START_SECONDS = 60.0
# One core's worth of a laptop: quick to start, and small enough for three of them.
JAVA = ("java", "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
USER, PASSWORD = "callfold", "tests-secret"
"""Who may enter by the SASL listeners of a secured cluster (SCRAM-SHA-512 and SCRAM-SHA-256)."""


_CLIENTS: dict[str, AdminClient] = {}
_WORN_OUT: list[AdminClient] = []
"""Never given back: librdkafka 2.16 has crashed the process when clients were closed by the hundred."""


def admin_of(servers: str, *, is_new: bool = False) -> AdminClient:
    """The client to look at a cluster with; a new one if the last may never find its restarted brokers again."""
    if is_new and servers in _CLIENTS:
        _WORN_OUT.append(_CLIENTS.pop(servers))
    if servers not in _CLIENTS:
        options = {"bootstrap.servers": servers, "log_level": 0, "reconnect.backoff.max.ms": 500}
        _CLIENTS[servers] = AdminClient(options)
    return _CLIENTS[servers]


def why_unavailable() -> str | None:
    """Why there can be no Kafka here; None if there can."""
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return f"a real Kafka needs {' and '.join(missing)} on the PATH" if missing else None


def require_kafka() -> None:
    """Skips the test where there can be no Kafka; with CALLFOLD_REQUIRE_KAFKA=1 that is a failure instead."""
    require(why_unavailable(), "CALLFOLD_REQUIRE_KAFKA")


@cache
def jars() -> Path:
    """The folder with Kafka's jars; brought here first if need be."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callfold"
    folder = base / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as part:
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={part}/jars", "-DincludeScope=runtime"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"Maven did not bring Kafka's jars:\n{done.stdout}{done.stderr}"
        try:
            Path(part, "jars").rename(folder)
        except OSError:
            assert folder.exists(), "another run should have brought them meanwhile"
    return folder


class KafkaBroker:
    """One node of a cluster, broker and controller in one process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.folder = folder
        self.port, self.controller_port = free_port(), free_port()
        self.secured_ports: dict[str, int] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"kafka-{number}.log"

    @property
    def properties(self) -> Path:
        return self.folder / f"kafka-{self.number}.properties"

    def java(self, *arguments: str) -> list[str]:
        return [*JAVA, "-cp", f"{jars()}/*", *arguments]

    def start(self) -> None:
        """Starts the process; whether it answers is the cluster's to see."""
        assert self.process is None or self.process.poll() is not None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.java("kafka.Kafka", str(self.properties)), stdout=log, stderr=log, start_new_session=True
            )

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as a power failure would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)

    def stop(self) -> None:
        """SIGTERM, a controlled shutdown."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


class KafkaCluster:
    """Brokers with their data in `folder`. `secured` adds SSL, SASL_PLAINTEXT and SASL_SSL listeners to each.

    Use it in a `with`, or between `start` and `stop`; a broker may be killed and started again in between.
    """

    def __init__(
        self,
        folder: Path,
        brokers: int = 1,
        *,
        secured: bool = False,
        overrides: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.brokers = [KafkaBroker(folder, number) for number in range(1, brokers + 1)]
        self.secured = secured
        self._id = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
        self._overrides = dict(overrides or {})
        for broker in self.brokers:
            self._configure(broker)

    @property
    def url(self) -> str:
        """As the setting `broker` takes it."""
        return "kafka://" + ";".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)

    @property
    def servers(self) -> str:
        """As Kafka clients take it."""
        return self.url.removeprefix("kafka://").replace(";", ",")

    def secured_url(self, protocol: str) -> str:
        """The listeners of one security protocol, as the setting `broker` takes them."""
        return "kafka://" + ";".join(f"localhost:{broker.secured_ports[protocol]}" for broker in self.brokers)

    @property
    def authority(self) -> Path:
        """The certificate (PEM) that the TLS listeners can be checked with."""
        return self.folder / "authority.pem"

    def _configure(self, broker: KafkaBroker) -> None:
        listeners = {"PLAINTEXT": broker.port, "CONTROLLER": broker.controller_port}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        settings: dict[str, str] = {}
        if self.secured:
            broker.secured_ports = {name: free_port() for name in ("SSL", "SASL_PLAINTEXT", "SASL_SSL")}
            listeners |= broker.secured_ports
            protocols |= {name: name for name in broker.secured_ports}
            settings |= self._security()
        copies = str(min(3, len(self.brokers)))
        voters = ",".join(f"{b.number}@127.0.0.1:{b.controller_port}" for b in self.brokers)
        settings |= {
            "node.id": str(broker.number),
            "process.roles": "broker,controller",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
            "advertised.listeners": ",".join(
                f"{name}://{'127.0.0.1' if name == 'PLAINTEXT' else 'localhost'}:{port}"
                for name, port in listeners.items()
                if name != "CONTROLLER"
            ),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": voters,
            "log.dirs": str(broker.folder / f"data-{broker.number}"),
            "auto.create.topics.enable": "false",
            "num.partitions": "1",
            "offsets.topic.num.partitions": "8",
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # As in production, where a session is not to be shorter than this many milliseconds.
            "group.min.session.timeout.ms": "1000",
            "controlled.shutdown.enable": "true",
            # A killed broker's successor must not wait for its old session.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "400",
        }
        settings |= self._overrides
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        broker.properties.write_text(lines, encoding="utf-8")

    def _security(self) -> dict[str, str]:
        from certificates import server_certificate

        keystore = self.folder / "server.pem"
        if not keystore.exists():
            server_certificate(self.authority, keystore)
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": _plain_users(),
            "listener.name.sasl_ssl.plain.sasl.jaas.config": _plain_users(),
            "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": _SCRAM,
            "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": _SCRAM,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": _SCRAM,
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": _SCRAM,
        }

    def _format(self, broker: KafkaBroker) -> None:
        users = [
            option
            for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256")
            for option in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
            if self.secured
        ]
        command = broker.java(
            "kafka.tools.StorageTool", "format", "-t", self._id, "-c", str(broker.properties), *users
        )
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> Self:
        """Starts all brokers that do not run and waits until the cluster answers."""
        for broker in self.brokers:
            if not (broker.folder / f"data-{broker.number}" / "meta.properties").exists():
                self._format(broker)
            if broker.process is None or broker.process.poll() is not None:
                broker.start()
        self.wait_until_ready()
        return self

    def wait_until_ready(self, brokers: int | None = None) -> None:
        """Until that many brokers (all, if not said) are in the cluster's metadata."""
        wanted = len(self.brokers) if brokers is None else brokers
        deadline = time.monotonic() + START_SECONDS
        admin = admin_of(self.servers, is_new=True)
        while time.monotonic() < deadline:
            try:
                if len(admin.list_topics(timeout=2).brokers) >= wanted:
                    return
            except KafkaException:
                time.sleep(0.1)
            time.sleep(0.1)
        raise AssertionError(f"Kafka is not up:\n{self.said()}")

    def said(self) -> str:
        """The end of each broker's log."""
        return "\n".join(b.log.read_text("utf-8", "replace")[-3000:] for b in self.brokers if b.log.exists())

    def kill(self) -> None:
        """Kills every broker."""
        for broker in self.brokers:
            broker.kill()

    def pause(self) -> None:
        """Every broker stands still, with its connections open."""
        for broker in self.brokers:
            broker.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Every broker goes on."""
        for broker in self.brokers:
            broker.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stops every broker in order."""
        for broker in self.brokers:
            if broker.process is not None and broker.process.poll() is None:
                broker.process.terminate()
        for broker in self.brokers:
            broker.stop()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What a test leaves behind is of no use to anybody: no need to wait for a controlled shutdown.
        self.kill()


_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


def _plain_users() -> str:
    module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return f'{module} user_{USER}="{PASSWORD}";'


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0

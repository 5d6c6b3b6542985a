"""Programs for a test, the brokers they run on, and their end whatever happens."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_kafka import KafkaCluster, require_kafka
from running import Program, Serving

_numbers = itertools.count()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A real Kafka of one broker for all tests of this folder: each keeps to topics of its own prefix."""
    require_kafka()
    with KafkaCluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def prefix() -> str:
    """A prefix of topics that no other test of this run has."""
    return f"test{next(_numbers)}"


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker_settings(request: pytest.FixtureRequest, prefix: str) -> dict[str, str]:
    """The environment of a program, once for each kind of broker."""
    if request.param == "embedded":
        return {}
    cluster: KafkaCluster = request.getfixturevalue("kafka")
    return {"CALLFOLD_BROKER": cluster.url, "CALLFOLD_TOPICS_PREFIX": prefix}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """`start(Program, ...)`: a program in the test's folder."""
    started: list[Program] = []

    def start(kind: type[Program], *arguments: str, **settings: str) -> Program:
        started.append(kind(tmp_path, *arguments, **settings))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.kill_all()


@pytest.fixture
def serving(start: Callable[..., Serving], broker_settings: dict[str, str]) -> Callable[..., Serving]:
    """`callfold serve`, on each kind of broker."""
    return lambda *arguments, **settings: start(Serving, *arguments, **broker_settings | settings)

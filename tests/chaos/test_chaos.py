"""A few rounds of chaos; `tests/chaos/run.py` runs as many as one likes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_kafka import KafkaCluster, require_kafka
from rounds import run_round

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    require_kafka()
    with KafkaCluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("seed", "kinds"),
    [
        (1, ("kill_worker", "kill_collector")),
        (2, ("kill_at_step",)),
        (3, ("pause_worker", "full_disk")),
        (4, ("kill_broker",)),
        (5, ("kill_collector_in_outage",)),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else f"seed {value}",
)
def test_the_lake_is_the_truth_after(
    seed: int, kinds: tuple[str, ...], kafka: KafkaCluster, tmp_path: Path
) -> None:
    result = run_round(seed, kinds, kafka, tmp_path / "round", calls=150, traffic_seconds=5)
    assert not result.problems, "\n".join(result.problems)
    assert result.queries > 0

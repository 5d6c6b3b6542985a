"""The result does not depend on how many workers there are."""

from collections.abc import Callable
from pathlib import Path

import pytest
from producing import count_on, create_topics, produce_webhooks
from real_kafka import KafkaCluster
from running import Call, Working, calls_in, count_in, free_ports, metrics_on, until

from pipeline.simulate import generate
from pipeline.topic_names import call_events_topic

WORKERS = (1, 2, 4)
# Neither timer is to run out while the workers still differ in how far they have come.
TIMERS = {"CALLFOLD_IDLE_SECONDS": "1e9", "CALLFOLD_GRACE_SECONDS": "1e9"}


@pytest.mark.kafka
@pytest.mark.slow
def test_one_two_and_four_workers_come_to_the_same_calls(
    kafka: KafkaCluster, start: Callable[..., Working], prefix: str, tmp_path: Path
) -> None:
    # Some are lost, so that some calls stay open.
    lines = list(generate(400, 23, duplicates=0.05, shuffle=0.1, lose=0.03))
    found: list[tuple[dict[str, Call], dict[str, Call], int]] = []
    for workers in WORKERS:
        own = f"{prefix}-{workers}"
        ports = free_ports(workers)
        create_topics(kafka.url, own)
        program = start(
            Working,
            "--workers",
            str(workers),
            CALLFOLD_BROKER=kafka.url,
            CALLFOLD_TOPICS_PREFIX=own,
            CALLFOLD_LAKE=str(tmp_path / str(workers)),
            CALLFOLD_METRICS_PORT=str(ports),
            CALLFOLD_STUCK_SECONDS="8",
            **TIMERS,
        )
        share = 48 / workers

        def all_work(ports: int = ports, workers: int = workers, share: float = share) -> bool:
            each = [metrics_on(ports + n).get("callfold_assigned_partitions") for n in range(workers)]
            return each == [share] * workers

        until(all_work, f"{workers} workers to have their share")
        assert produce_webhooks(kafka.url, own, lines) == len(lines)
        assert program.finish() == 0, program.said()
        lake = program.lake
        assert count_in(lake, "webhooks") == len(lines)
        # Each was folded where it was read.
        assert count_on(kafka.url, call_events_topic(own)) == 0
        found.append((calls_in(lake, "calls"), calls_in(lake, "open_calls"), count_in(lake, "call_events")))
    one, *others = found
    assert len(one[0]) > 350
    assert len(one[1]) > 3
    for other in others:
        assert other == one

"""The page that Prometheus reads: its form, its names and units, and that the worker's metrics fit below it."""

import re
from collections import Counter

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.collect.metrics import CollectorMetrics
from pipeline.collect.spool_file import Stock
from pipeline.stream.metrics import WorkerMetrics
from pipeline.stream.offsets import GroupOffset

UNITS = ("seconds", "bytes", "webhooks", "messages", "connections", "partitions", "ready", "memory")
"""What a gauge's name ends in: a base unit, what it is a number of, or what is 0 or 1 (or in memory)."""


def _page() -> str:
    """Both pages, with something of everything on them, as `serve` shows them."""
    collector, worker = CollectorMetrics(), WorkerMetrics()
    for provider, answer in (("recho", "202"), ("recho", "401"), ("unknown", "404")):
        collector.count_answer(provider, answer, 0.2)
    collector.count_other("400")
    collector.count_stored("recho", "kafka", 100)
    collector.count_closed("slow")
    collector.show_spool(Stock(webhooks=2, size_bytes=10, oldest_us=1, set_aside=1))
    worker.count("recho", events=3, unknown=1, others=1)
    worker.count_rejected("recho", "not_json")
    worker.show_offsets({("t", 0): GroupOffset(1, 2)})
    with worker.flushing("normalise", counts=True):
        pass
    return (collector.text() + generate_latest(worker._registry)).decode()


def test_every_series_is_there_once_and_explained() -> None:
    page = _page()
    series = Counter(line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#"))
    assert [name for name, count in series.items() if count > 1] == []
    about = Counter(re.findall(r"^# (?:HELP|TYPE) (\S+)", page, flags=re.MULTILINE))
    families = list(text_string_to_metric_families(page))
    assert set(about.values()) == {2}
    assert len(about) == len(families)
    assert all(family.documentation for family in families)
    assert "untyped" not in page


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    for family in text_string_to_metric_families(_page()):
        assert re.fullmatch(r"callfold(_[a-z]+)+", family.name), family.name
        if family.name.endswith("_created"):
            continue
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
            continue
        assert not family.name.endswith("_total")
        assert family.name.rpartition("_")[2] in UNITS
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        assert not any(word in family.name for word in ("milli", "minutes", "kilo", "mega", "percent"))


def test_what_may_happen_is_there_from_the_start() -> None:
    page = CollectorMetrics().text().decode()
    for reason in ("slow", "idlest", "full"):
        assert f'callfold_connections_closed_total{{reason="{reason}"}} 0.0' in page

"""What a webhook costs Callfold's stream as there are more of them, and as more calls are open at once.

    python benchmarks/scaling.py [--events 1000000,5000000] [--dense 1000000,5000000] [--open 1000,100000,1000000]

Events: so many simulated days, one after the other, each as busy as the only one of the smallest size, read by one
`callfold work`. Dense: that one day so many times as busy, each of its calls so many times over under other ids.
Open calls: so many calls that have begun and do not end, and then, with all of them in memory, a simulated day.
Told are CPU seconds per million webhooks, their rate and the peak memory, on a real Apache Kafka, worker and broker on
one core each. The first size of a kind is run once more at its end, and the mean is told: a machine's speed changes
while the largest runs. Writes its part of results.json and RESULTS.md. Larger ones: `--events 1000000,20000000`, for
which Kafka needs 35 GB.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import msgspec
import page
import results
from day_of_calls import Traffic, multiplied, preload, records_of, simulate
from processes import Failed
from producing import create_topics
from programs import Measured, Place, Worker, callfold_work
from real_kafka import KafkaCluster, why_unavailable
from rich.console import Console
from run import DAYS, cores
from running import count_in

from pipeline.collect.received import WebhookRecord, webhook_record

TEMPLATE_CALLS = 5_000
WEBHOOKS_WITH_OPEN_CALLS = 500_000
#: a compaction comes after five minutes, which only the largest sizes take
NOT_MEANWHILE = "86400"
METHOD = (
    "One run of each size, the first of a kind once more after the others (the mean). Five providers' simulated days,"
    " every call repeated under other ids: more webhooks are more days as busy as the first or, of the same day, a"
    " busier one. With open calls, the cost is that of such a day while they are all in memory, and its rate includes"
    " putting it on Kafka. No compaction runs meanwhile."
)
BEFORE_US = 1_772_400_000_000_000
"""2026-03-01T21:20Z, before the simulated day: when the calls that stay open began."""


def begun_calls(count: int) -> Iterator[WebhookRecord]:
    """One webhook for each of so many calls, none of which ends."""
    for number in range(count):
        told = {"id": f"open-{number}", "status": "ongoing", "direction": "inbound", "teamId": "t1"}
        message = {"type": "status-update", "timestamp": BEFORE_US // 1000, "call": told}
        body = msgspec.json.encode({"message": message})
        yield webhook_record("interactly", b"interactly:open-%d" % number, body, BEFORE_US + number, {}, {})


class Scaling(NamedTuple):
    """Where it runs, the simulated day that all is made of, and the webhooks of the smallest size of a kind."""

    place: Place
    url: str
    day: Traffic
    day_calls: int

    def events(self, folder: Path, size: int, smallest: int, prefix: str) -> Measured:
        """So many days, each as busy as the only one of the smallest size."""
        days = max(1, round(size / smallest))
        traffic = self.day if days == 1 else simulate(folder, days * self.day_calls, days * DAYS)
        return self._drained(folder, traffic, self._copies(smallest), prefix)

    def dense(self, folder: Path, size: int, smallest: int, prefix: str) -> Measured:
        """One day of so many webhooks."""
        return self._drained(folder, self.day, self._copies(size), prefix)

    def with_open_calls(self, folder: Path, size: int, smallest: int, prefix: str) -> Measured:
        """A day while so many calls are open."""
        copies = self._copies(WEBHOOKS_WITH_OPEN_CALLS)
        create_topics(self.url, prefix)
        preload(self.place.servers, prefix, begun_calls(size))
        with Worker(self.place, folder, prefix) as worker:
            worker.until_it_has_its_partitions()
            worker.until_drained()
            began, cpu_began = time.time(), worker.cpu_seconds()
            count = preload(self.place.servers, prefix, multiplied(records_of(self.day.archive), copies))
            worker.until_drained()
            seconds, cpu = time.time() - began, worker.cpu_seconds() - cpu_began
            _, peak = worker.stop()
        _expect(folder / "lake", size + len(self.day.calls) * copies)
        return Measured(count, seconds, cpu, peak)

    def _drained(self, folder: Path, traffic: Traffic, copies: int, prefix: str) -> Measured:
        create_topics(self.url, prefix)
        count = preload(self.place.servers, prefix, multiplied(records_of(traffic.archive), copies))
        measured = callfold_work(self.place, folder, prefix, count, CALLFOLD_COMPACT_SECONDS=NOT_MEANWHILE)
        _expect(folder / "lake", len(traffic.calls) * copies)
        return measured

    def _copies(self, webhooks: int) -> int:
        return max(1, round(webhooks / self.day.webhooks))


def _expect(lake: Path, calls: int) -> None:
    found = count_in(lake, "all_calls")
    if found != calls:
        raise Failed(f"{found:,} calls are in the lake and should be {calls:,}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"type": lambda text: [int(size) for size in text.split(",") if size]}
    parser.add_argument("--events", default=[1_000_000, 5_000_000], **sizes)
    parser.add_argument("--dense", default=[1_000_000, 5_000_000], **sizes)
    parser.add_argument("--open", default=[1_000, 100_000, 1_000_000], **sizes)
    parser.add_argument("--template-calls", type=int, default=TEMPLATE_CALLS)
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    options, console = parser.parse_args(), Console()
    if reason := why_unavailable():
        console.print(f"scaling is not measured: {reason}")
        return
    broker_cores, core = cores()
    os.sched_setaffinity(0, broker_cores)
    told: results.Results = {}
    with tempfile.TemporaryDirectory() as name, KafkaCluster(Path(name) / "kafka") as kafka:
        place = Place(kafka.servers, core, Path(sys.executable))
        day = simulate(Path(name), options.template_calls, DAYS)
        scaling = Scaling(place, kafka.url, day, options.template_calls)
        kinds = (
            ("events", options.events, scaling.events),
            ("dense", options.dense, scaling.dense),
            ("open", options.open, scaling.with_open_calls),
        )
        for kind, wanted, measure in kinds:
            runs: dict[int, list[Measured]] = {}
            for number, size in enumerate([*wanted, *wanted[: len(wanted) > 1]]):
                with tempfile.TemporaryDirectory(dir=name) as folder, console.status(f"{kind}: {size:,}"):
                    try:
                        found = measure(Path(folder), size, min(wanted), f"{kind}-{number}")
                    except Failed as problem:
                        raise SystemExit(f"scaling: {kind} {size:,}: {problem}") from problem
                runs.setdefault(size, []).append(found)
                console.print(
                    f"{kind} {size:,}: {found.cpu_per_million:,.1f} CPU s per million, "
                    f"{found.per_second:,.0f} a second, {found.peak_mib:,.0f} MiB"
                )
            told |= {
                f"scaling.{kind}.{size}.{key}": value for size in runs for key, value in _means(runs[size])
            }
    told |= growth(told)
    told["scaling.method"] = METHOD
    if not options.dry_run:
        page.write(results.update(told, "scaling"))


def _means(runs: list[Measured]) -> Iterator[tuple[str, float]]:
    yield "cpu_s_per_million", statistics.mean(run.cpu_per_million for run in runs)
    yield "events_per_s", statistics.mean(run.per_second for run in runs)
    yield "peak_mib", max(run.peak_mib for run in runs)


def growth(told: results.Results) -> results.Results:
    """The cost at the largest size of a kind, as a multiple of that at the smallest."""
    found = {}
    for kind in ("events", "dense", "open"):
        costs = {
            int(key.split(".")[2]): value
            for key, value in told.items()
            if key.startswith(f"scaling.{kind}.") and key.endswith(".cpu_s_per_million")
        }
        if len(costs) > 1:
            found[f"scaling.{kind}_growth"] = costs[max(costs)] / costs[min(costs)]
    return found


if __name__ == "__main__":
    main()

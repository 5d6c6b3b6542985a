"""How fresh the lake is: from the 202 of the webhook that ends a call until the call is in the view `calls`.

    python benchmarks/freshness.py [--per-second 2000] [--seconds 60] [--flush 10,1]

The simulator's mix of five providers is posted over HTTP at a steady rate to `callfold collect`; `callfold work` folds
it; both, Kafka, the sender and the watcher share this machine. Counted are the calls that end once (a redial may end
again) and are told by their key. The watcher looks for new files of the calls every 20 ms, and, when there is one, asks
the view; a call is visible when that query has returned. So the figures are late by up to 20 ms and the query.
Writes its part of results.json and RESULTS.md. Needs Java and Maven for Kafka's jars, as the tests do.
"""

import argparse
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import page
import results
from day_of_calls import records_of, simulate
from plain import apply
from producing import create_topics
from real_kafka import KafkaCluster, why_unavailable
from rich.console import Console
from running import Collecting, Working
from webhooks import event_of

from pipeline.collect.received import WebhookRecord
from pipeline.query.views import connect

HERE = Path(__file__).parent
LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 120.0
WEBHOOKS_A_CALL = 4.6
METHOD = (
    "Sender, collector, worker, Kafka and watcher share the machine. Visible is a call when a query of the view has"
    " returned it, asked when a new file is there, which is looked for every 20 ms. The mix of five providers; the"
    " calls counted are those that end once and carry their key."
)


def request_of(record: WebhookRecord) -> bytes:
    query = next((told for name, told in record.headers if name == "query"), b"")
    agent = query.partition(b'"agent_id":"')[2].partition(b'"')[0]
    path = b"/webhooks/" + record.provider.encode() + (b"?agent_id=" + agent if agent else b"")
    head = b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path, len(record.value)) + record.value


def endings(records: list[WebhookRecord]) -> dict[str, int]:
    """By call key the index of the webhook that ends the call; without the bus, and calls that end twice or are open.

    One that ended may be open again where the traffic breaks off, in the midst of its second dialling.
    """
    states: dict[tuple[str, str], dict] = {}
    found: dict[str, int] = {}
    again: set[str] = set()
    for index, record in enumerate(records):
        event = event_of(record.provider, record.value, record.headers)
        if event is None or event.provider == "aircall_bus":
            continue
        state = states.setdefault((event.provider, event.stream), {})
        had_ended = state.get("state") == "ended"
        apply(state, event)
        if state["state"] == "ended" and not had_ended:
            if state["call_key"] in found:
                again.add(state["call_key"])
            found[state["call_key"]] = index
    again.update(state["call_key"] for state in states.values() if state["state"] != "ended")
    return {key: index for key, index in found.items() if key not in again}


def watch(lake: Path, wanted: set[str], poster: subprocess.Popen[bytes]) -> dict[str, float]:
    """When each of the calls was first seen in `calls`; returns when all were, or long after the last was posted."""
    seen: dict[str, float] = {}
    files: set[str] = set()
    deadline = float("inf")
    with connect(lake) as connection:
        while wanted and time.monotonic() < deadline:
            found = {file.name for file in (lake / "calls" / "hot").glob("*.parquet")}
            if found - files:
                files = found
                keys = connection.execute("select call_key from calls").fetchnumpy()["call_key"]
                now = time.time()
                for key in wanted.intersection(keys):
                    seen[key] = now
                wanted = wanted - seen.keys()
            if poster.poll() is not None and deadline == float("inf"):
                deadline = time.monotonic() + PATIENCE_SECONDS
            time.sleep(LOOK_SECONDS)
    return seen


def measure(
    kafka: KafkaCluster, folder: Path, records: list[WebhookRecord], flush: int, per_second: float
) -> tuple[list[float], float]:
    """Seconds from the 202 until visible, sorted, and the rate at which webhooks were taken."""
    prefix, requests, times = f"fresh{flush}", folder / "requests", folder / "times"
    create_topics(kafka.url, prefix)
    with requests.open("wb") as file:
        for record in records:
            request = request_of(record)
            file.write(struct.pack(">I", len(request)) + request)
    settings = {
        "CALLFOLD_BROKER": kafka.url,
        "CALLFOLD_TOPICS_PREFIX": prefix,
        "CALLFOLD_LAKE": str(folder / "lake"),
    }
    settings |= {"CALLFOLD_FLUSH_SECONDS": str(flush), "CALLFOLD_SPOOL_DIR": str(folder / "spool")}
    started: list[Working | Collecting] = []
    try:
        started.append(Working(folder, **settings))
        started[0].wait_for("working:")
        started.append(Collecting(folder, **settings))
        address = started[1].url.removeprefix("http://")
        command = [sys.executable, str(HERE / "steady.py"), address, str(requests), str(times)]
        poster = subprocess.Popen([*command, "--per-second", str(per_second)])
        wanted = endings(records)
        seen = watch(folder / "lake", set(wanted), poster)
        if poster.wait() != 0:
            raise SystemExit("freshness: not every webhook was taken")
    finally:
        for program in reversed(started):
            program.stop()
    taken = array("d", times.read_bytes())
    if len(seen) < len(wanted):
        raise SystemExit(f"freshness: {len(wanted) - len(seen)} calls never came into view")
    waits = sorted(seen[key] - taken[index] for key, index in wanted.items())
    return waits, len(taken) / (max(taken) - min(taken))


def percentile(sorted_values: list[float], share: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--per-second", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--flush", type=lambda text: [int(part) for part in text.split(",")], default=[10, 1])
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    options, console = parser.parse_args(), Console()
    if reason := why_unavailable():
        console.print(f"freshness is not measured: {reason}")
        return
    told: results.Results = {"freshness.per_second": options.per_second, "freshness.method": METHOD}
    with tempfile.TemporaryDirectory() as name, KafkaCluster(Path(name) / "kafka") as kafka:
        count = round(options.per_second * options.seconds)
        with console.status("simulating"):
            traffic = simulate(Path(name), round(count / WEBHOOKS_A_CALL) + 50, 1.0)
            records = list(records_of(traffic.archive))[:count]
        for flush in options.flush:
            with tempfile.TemporaryDirectory(dir=name) as folder, console.status(f"flush_seconds {flush}"):
                waits, rate = measure(kafka, Path(folder), records, flush, options.per_second)
            part = "freshness." if flush == 10 else f"freshness.flush{flush}_"
            p50, p99 = percentile(waits, 0.5), percentile(waits, 0.99)
            told |= {f"{part}p50_s": p50, f"{part}p99_s": p99, f"{part}max_s": waits[-1]}
            told |= {f"{part}calls": len(waits), f"{part}taken_per_s": rate}
            verdict = "within" if p99 <= flush + 1 else "beyond"
            console.print(
                f"flush_seconds {flush}: p50 {p50:.2f} s, p99 {p99:.2f} s ({verdict} {flush + 1} s), "
                f"max {waits[-1]:.2f} s; {len(waits):,} calls, {rate:,.0f} webhooks a second taken"
            )
    if not options.dry_run:
        page.write(results.update(told, "freshness"))


if __name__ == "__main__":
    main()

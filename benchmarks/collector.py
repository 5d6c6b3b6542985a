"""The collector beside a bare aiohttp + aiokafka handler: requests per second, latency, and memory over a long run.

    python benchmarks/collector.py [--rounds 5] [--seconds 10] [--memory-requests 1000000]

Both write to the same Apache Kafka with acks=all, one after the other in each round, each alone on one core; the load
and Kafka have the other. Callfold does all that it does in production: it checks the signatures (five providers,
Recho's RSA among them), finds the key, keeps headers and query, counts, bounds, and has its spool ready.
Told are medians; the ratio is the result, for machines are shared and noisy. With the spool in use (Kafka stopped)
a third row shows what the local disk gives. Needs Java and Maven for Kafka's jars, as the tests do.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import page
import results
from producing import create_topics
from real_kafka import KafkaCluster, why_unavailable
from running import free_port, until

from pipeline.simulate import generate

HERE = Path(__file__).parent
SECRET = "bench-secret"
WEBHOOKS = 3_000


class Figures(NamedTuple):
    """One run of the load."""

    per_second: float
    p50_ms: float
    p99_ms: float


def write_requests(file: Path, key: RSAPrivateKey) -> float:
    """Signed requests as they come in; good for five minutes. Returns the mean size of their bodies in bytes."""
    sizes = []
    with file.open("wb") as out:
        for line in list(generate(WEBHOOKS // 4, 1))[:WEBHOOKS]:
            told = msgspec.json.decode(line)
            body = msgspec.json.encode(told["body"])
            query = "&".join(f"{name}={value}" for name, value in (told.get("query") or {}).items())
            head = [
                f"POST /webhooks/{told['provider']}?{query} HTTP/1.1",
                "Host: bench",
                f"Content-Length: {len(body)}",
            ]
            head += ["Content-Type: application/json", *credentials(told["provider"], body, key)]
            request = "\r\n".join(head).encode() + b"\r\n\r\n" + body
            out.write(struct.pack(">I", len(request)) + request)
            sizes.append(len(body))
    return statistics.mean(sizes)


def credentials(provider: str, body: bytes, key: RSAPrivateKey) -> list[str]:
    now = str(int(time.time()))
    message = now.encode() + b"." + body
    digest = hmac.digest(SECRET.encode(), message, hashlib.sha256)
    if provider == "interactly":
        return [f"X-Interactly-Secret: {SECRET}"]
    if provider == "recho":
        signature = base64.b64encode(key.sign(message, PKCS1v15(), SHA256())).decode()
        return [f"X-Recho-Timestamp: {now}", f"X-Recho-Signature: {signature}"]
    if provider == "whippy":
        return [f"X-Whippy-Signature: t={now},s={base64.b64encode(digest).decode().rstrip('=')}"]
    if provider == "freeclimb":
        return [f"FreeClimb-Signature: t={now},v1={digest.hex()}"]
    return [f"Authorization: Bearer {SECRET}"]


@contextmanager
def running(
    command: list[str], port: int, path: str, core: int, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")}
    process = subprocess.Popen(
        [sys.executable, *command],
        env=kept | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509  no threads are running here
    )

    def is_up() -> bool:
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    try:
        until(is_up, "the server")
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def callfold(
    folder: Path, servers: str, public_key: str, core: int
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    settings = {
        f"CALLFOLD_{name}_SECRET": SECRET for name in ("INTERACTLY", "WHIPPY", "FREECLIMB", "AIRCALL_BUS")
    }
    settings |= {"CALLFOLD_RECHO_SECRET": public_key, "CALLFOLD_SPOOL_DIR": str(folder / "spool")}
    settings |= {"CALLFOLD_BROKER": f"kafka://{servers}", "CALLFOLD_HTTP_PORT": str(port)}
    with running(["-m", "pipeline.cli", "collect"], port, "/health/live", core, **settings) as process:
        yield port, process


@contextmanager
def bare(servers: str, core: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [str(HERE / "bare_collector.py"), f"127.0.0.1:{port}", servers]
    with running(command, port, "/", core) as process:
        yield port, process


def post(port: int, requests: Path, core: int, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "load.py"), f"127.0.0.1:{port}", str(requests), *options]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    told: dict[str, Any] = json.loads(done.stdout)
    if told["broken"] or set(told["statuses"]) != {"202"}:
        raise SystemExit(f"not every webhook was taken: {told}")
    return told


def figures(told: dict[str, Any]) -> Figures:
    return Figures(told["requests"] / told["seconds"], told["p50_ms"], told["p99_ms"])


def rss_mib(process: subprocess.Popen[bytes]) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(
    port: int, process: subprocess.Popen[bytes], requests: Path, key: RSAPrivateKey, count: int
) -> list[float]:
    """Resident memory after each tenth of so many requests."""
    seen = []
    for _ in range(10):
        write_requests(requests, key)
        post(port, requests, 1, "--requests", str(count // 10))
        seen.append(rss_mib(process))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--memory-requests", type=int, default=1_000_000)
    options = parser.parse_args()
    console = Console()
    problem = why_unavailable()
    if problem is not None:
        console.print(f"the collector is not measured: {problem}")
        return
    key = generate_private_key(65537, 2048)
    public_key = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    found: dict[str, list[Figures]] = {"bare": [], "callfold": [], "callfold, Kafka away": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = folder / "requests"
        with KafkaCluster(folder / "kafka") as cluster:
            for prefix in ("bare", "callfold"):
                create_topics(cluster.url, prefix)
            os.sched_setaffinity(0, {1})
            for _ in range(options.rounds):
                size = write_requests(requests, key)
                with bare(cluster.servers, 0) as (port, _):
                    post(port, requests, 1, "--seconds", "2")
                    found["bare"].append(figures(post(port, requests, 1, "--seconds", str(options.seconds))))
                with callfold(folder, cluster.servers, public_key, 0) as (port, _):
                    post(port, requests, 1, "--seconds", "2")
                    found["callfold"].append(
                        figures(post(port, requests, 1, "--seconds", str(options.seconds)))
                    )
            if options.memory_requests:
                with callfold(folder, cluster.servers, public_key, 0) as (port, process):
                    seen = memory(port, process, requests, key, options.memory_requests)
                    shown = ", ".join(f"{mib:.0f}" for mib in seen)
                    console.print(
                        f"memory after each tenth of {options.memory_requests:,} requests, MiB: {shown}"
                    )
        for _ in range(options.rounds):
            write_requests(requests, key)
            with callfold(folder, "127.0.0.1:1", public_key, 0) as (port, _):
                told = figures(post(port, requests, 1, "--seconds", str(options.seconds)))
                found["callfold, Kafka away"].append(told)
    show(console, found, size)


def show(console: Console, found: dict[str, list[Figures]], size: float) -> None:
    table = Table(
        title=f"collector, {size:,.0f} bytes a webhook, 64 connections, one core", title_justify="left"
    )
    for heading in ("", "requests/s", "ratio to bare", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    base = statistics.median(one.per_second for one in found["bare"])
    for name, runs in found.items():
        rate, p50, p99 = (statistics.median(values) for values in zip(*runs, strict=True))
        table.add_row(name, f"{rate:,.0f}", f"{rate / base:.2f}", f"{p50:.1f}", f"{p99:.1f}")
    console.print(table)
    rate = statistics.median(one.per_second for one in found["callfold"])
    page.write(results.update({"collector.ratio_bare": rate / base}, "collector"))


if __name__ == "__main__":
    main()

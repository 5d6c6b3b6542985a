"""`results.json`: every figure under a flat, dotted key. Each benchmark writes its own keys and leaves the others."""

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
#: keys that are there, with null, even before their program has run
EXPECTED = (
    "stream.ratio_faust",
    "stream.ratio_quix",
    "stream.ratio_bytewax",
    "stream.ratio_loop",
    "stream.ratio_limit",
    "stream.events_per_s",
    "stream.cpu_s_per_million",
    "stream.peak_mib",
    "stream.ratio_archive",
    "backfill.ratio_stream",
    "backfill.events_per_s",
    "freshness.p99_s",
    "freshness.flush1_p99_s",
    "collector.ratio_bare",
    "query.ratio_single_file",
    "query.ratio_busy",
    "query.timeline_ms",
)
POM = HERE.parent / "tests" / "support" / "real_kafka.pom.xml"
OURS = ("callfold", "faust-streaming", "aiokafka", "confluent-kafka", "msgspec", "pyarrow", "duckdb")

Results = dict[str, Any]


def read(file: Path = RESULTS) -> Results:
    """All keys, those never measured with None."""
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return dict.fromkeys(EXPECTED) | known


def update(figures: Results, part: str, file: Path = RESULTS) -> Results:
    """Writes what one program measured; what it wrote before and does not tell any more is gone.

    `part` is the first word of its keys, several separated by commas. Figures keep four digits.
    """
    owned = tuple(f"{name}." for name in part.split(","))
    kept = {name: value for name, value in read(file).items() if not name.startswith(owned)}
    told = {f"{name.removesuffix('.')}.{key}": value for name in owned[:1] for key, value in about().items()}
    rounded = {name: rounded_to_four(value) for name, value in figures.items()}
    results = dict.fromkeys(EXPECTED) | kept | told | rounded
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(file)
    return results


def rounded_to_four(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def about() -> Results:
    """When and on what it was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": ", ".join(f"{name} {found}" for name, found in own_versions().items()),
    }


def machine() -> str:
    told = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", told)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = model[1] if model else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def own_versions() -> dict[str, str]:
    kafka = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([\d.]+)", POM.read_text("utf-8"))
    java = subprocess.run(["java", "-version"], check=False, capture_output=True, text=True).stderr
    found = {"Python": platform.python_version(), "Apache Kafka": kafka[1] if kafka else "?"}
    found["Java"] = (re.findall(r'"([^"]+)"', java) or ["?"])[0]
    return found | {name: version(name) for name in OURS}


def versions_in(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Of packages in another environment; those that are not there are left out."""
    done = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        check=False,
        capture_output=True,
        text=True,
    )
    listed = json.loads(done.stdout) if done.returncode == 0 else []
    return {entry["name"]: entry["version"] for entry in listed if entry["name"] in names}

"""RESULTS.md and results.svg, made from results.json and nothing else."""

from pathlib import Path

from page_cells import number, table
from page_queries import query_section
from results import RESULTS, Results, read

PAGE = RESULTS.with_name("RESULTS.md")
PLOT = RESULTS.with_name("results.svg")
#: part of the key, what it is called, what it does
PROGRAMS = (
    (
        "stream.limit",
        "the limit",
        "Callfold's client (aiokafka `getmany`), typed decoding, the columns written; no folding",
    ),
    ("stream.loop", "plain loop", "confluent-kafka `consume`, a dict, pyarrow"),
    (
        "backfill",
        "`callfold backfill`, all cores",
        "the same webhooks from an archive, no broker; as it comes, on every core, Kafka's too",
    ),
    ("backfill.one", "`callfold backfill --processes 1`", "the same on one core"),
    ("stream", "**`callfold work`**", "without keeping the webhooks themselves"),
    ("stream.archive", "`callfold work`, archiving", "as it comes: the webhooks are kept as well, redacted"),
    (
        "stream.plain",
        "`callfold work`, nothing compiled",
        "where Callfold was installed without a Rust compiler",
    ),
    ("stream.bytewax", "Bytewax", "Kafka source, `stateful_flat_map`, recovery store"),
    ("stream.faust", "Faust", "agent and `Table`, stock faust-streaming"),
    ("stream.quix", "Quix Streams", "`StreamingDataFrame` with state, its Parquet sink"),
)


def write(results: Results | None = None, page: Path = PAGE, plot: Path = PLOT) -> None:
    """Both files anew."""
    told = read() if results is None else results
    page.write_text("\n".join(lines(told)) + "\n", "utf-8")
    if told["stream.events_per_s"] is not None:
        draw(told, plot)


def lines(told: Results) -> list[str]:
    return [
        "# Benchmarks",
        "",
        "Written by `make bench` from `results.json`; not by hand. Machines differ and are shared: the ratios are the",
        "result. `make bench ARGS=--quick` tries everything in a few minutes and writes nothing.",
        "",
        *_stream(told),
        *_freshness(told),
        *_scaling(told),
        *_collector(told),
        *query_section(told),
    ]


def _stream(told: Results) -> list[str]:
    title = ["## The main job", ""]
    if told["stream.events_per_s"] is None:
        return [*title, "Not measured yet: `make bench`.", ""]
    rows = [
        (
            name,
            number(told.get(f"{part}.events_per_s")),
            number(_ratio(told, part), 2),
            number(told.get(f"{part}.cpu_s_per_million"), 1),
            number(told.get(f"{part}.peak_mib")),
            number(told.get(f"{part}.webhooks")),
            f"{number(told.get(f'{part}.slowest_per_s'))} to {number(told.get(f'{part}.fastest_per_s'))}",
        )
        for part, name, _ in sorted(
            PROGRAMS, key=lambda program: -(told.get(f"{program[0]}.events_per_s") or 0)
        )
        if told.get(f"{part}.events_per_s") is not None
    ]
    head = ("program", "webhooks/s", "Callfold / it", "CPU s per million", "peak MiB", "webhooks", "rounds")
    absent = told.get("stream.absent")
    text = f"""
Provider webhooks on Kafka → decoded, normalised, folded by call → call records in Parquet, offsets committed.
Each program is alone on one core; Kafka has another. Only `callfold backfill`, which needs no Kafka, has all of them:
beside the others stands its figure with one process. Medians of {told.get("stream.rounds")} alternating rounds.

![webhooks per second](results.svg)
"""
    return [
        *title[:1],
        *text.splitlines(),
        "",
        *table(head, rows),
        *(f"- {name}: {what}." for _, name, what in PROGRAMS),
        *([f"- Not measured: {absent}."] if absent else []),
        *_method(told).splitlines(),
        "",
    ]


def _ratio(told: Results, part: str) -> float | None:
    if part == "stream":
        return 1.0
    if part in ("backfill", "backfill.one"):
        ratio = told.get(f"{part}.ratio_stream")
        return None if ratio is None else 1 / ratio
    return told.get(part.replace("stream.", "stream.ratio_"))


def _method(told: Results) -> str:
    return f"""
- **Load:** `callfold simulate`'s mix of five providers, {number(told.get("stream.body_bytes"))} bytes a body on average
  (Interactly's up to 5 KB), keyed and headed as the collector does it, 8 partitions a topic, put on Kafka before the
  clock starts. No repeats: most peers recognise none; Callfold looks for them all the same. The programs read
  {number(told.get("stream.calls"))} calls, Faust {number(told.get("stream.small_calls"))}, as its cost per webhook is
  flat.
- **Clock:** from the moment the program has its partitions (Faust and Quix Streams, which first make their stores
  ready: from the first webhook that the code is handed; Bytewax, which is in no group: from the start of its dataflow)
  until the records are in their files and every offset is committed. All programs flush every two seconds. `backfill`:
  the whole run, the start of its processes included, less one over an empty file.
- **CPU and memory:** user and system time of the process from the same moment to its end; its peak resident set
  (`backfill` on all cores: of all its processes, shared pages once).
- **Checked:** each round, {told.get("stream.compared")} of every call are the simulator's truth, or the run fails.
  (Calls of the Aircall Bus that carry no id are told by agent and start; lengths to the millisecond. The limit folds
  nothing.)
- **Not alike:** the peers write ten columns and keep each call for ever. Callfold writes all columns of the calls and
  every normalised event, sends records on to Kafka, recognises repeats and late events, and drops calls from memory;
  and it is not told which webhook is the last, so its last flush comes when it is due. Bytewax commits to its recovery
  store, not to Kafka. Callfold's hot path is compiled from Rust, as are Bytewax's own engine and everybody's JSON and
  Parquet; what the peers do with a webhook is Python, as their users would write it.
- **Left out:** Pathway, which writes no plain Parquet.
- **Versions:** {told.get("stream.versions")}. Peers: {told.get("stream.peer_versions")}.
- **Machine:** {told.get("stream.machine")}; {told.get("stream.date")}.
- **Again:** `make bench` (needs Java and Maven); some programs: `python benchmarks/run.py --only callfold,faust`."""


def _freshness(told: Results) -> list[str]:
    title = ["## Freshness", ""]
    if told["freshness.p99_s"] is None:
        return [*title, "Not measured yet: `python benchmarks/freshness.py`.", ""]
    rows = [
        (
            f"{flush} s",
            *(number(told.get(f"freshness.{key}{name}_s"), 2) for name in ("p50", "p99", "max")),
            number(told.get(f"freshness.{key}calls")),
            number(told.get(f"freshness.{key}taken_per_s")),
        )
        for flush, key in ((10, ""), (1, "flush1_"))
    ]
    rate = number(told.get("freshness.per_second"))
    text = f"""
From the 202 until the call is in the view `calls`, at {rate} webhooks a second over HTTP: `callfold collect` and
`callfold work` on a real Kafka.
"""
    return [
        *title[:1],
        *text.splitlines(),
        "",
        *table(("`flush_seconds`", "p50 s", "p99 s", "max s", "calls", "webhooks/s taken"), rows),
        f"{told.get('freshness.method')} {told.get('freshness.machine')}; {told.get('freshness.date')}.",
        "",
    ]


def _scaling(told: Results) -> list[str]:
    title = ["## Scaling", ""]
    parts = (("events", "webhooks"), ("dense", "webhooks of one day"), ("open", "calls open at once"))
    found = [
        (size, what, f"scaling.{kind}.{size}")
        for kind, what in parts
        for size in sorted(
            int(key.split(".")[2])
            for key in told
            if key.startswith(f"scaling.{kind}.") and key.endswith(".cpu_s_per_million")
        )
    ]
    if not found:
        return [*title, "Not measured yet: `python benchmarks/scaling.py`.", ""]
    rows = [
        (
            f"{size:,} {what}",
            number(told[f"{key}.cpu_s_per_million"], 1),
            number(told[f"{key}.events_per_s"]),
            number(told[f"{key}.peak_mib"]),
        )
        for size, what, key in found
    ]
    return [
        *title,
        "`callfold work` on one core: what a webhook costs as there are more of them, and as more calls are open.",
        "",
        *table(("", "CPU s per million", "webhooks/s", "peak MiB"), rows),
        f"{told.get('scaling.method')} {told.get('scaling.machine')}; {told.get('scaling.date')}.",
        "",
    ]


def _collector(told: Results) -> list[str]:
    ratio = told["collector.ratio_bare"]
    if ratio is None:
        return ["## Collector", "", "Not measured yet: `python benchmarks/collector.py`.", ""]
    return [
        "## Collector",
        "",
        f"`callfold collect` takes {ratio:.2f} times the requests of a bare aiohttp and aiokafka handler.",
        "",
    ]


def draw(told: Results, plot: Path) -> None:
    """Horizontal bars of webhooks per second, the fastest on top."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same figures are the same file.
    mpl.rcParams["svg.hashsalt"] = "callfold"
    from matplotlib import pyplot as plt

    bars = [
        (told[f"{part}.events_per_s"], name.replace("*", "").replace("`", ""), "callfold" in name)
        for part, name, _ in PROGRAMS
        if told.get(f"{part}.events_per_s") is not None
    ]
    bars.sort()
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(bars) + 0.9), layout="constrained")
    colours = ["#c8553d" if is_own else "#8d99ae" for _, _, is_own in bars]
    drawn = axes.barh([name for _, name, _ in bars], [rate for rate, _, _ in bars], color=colours)
    axes.bar_label(drawn, [f"{rate:,.0f}" for rate, _, _ in bars], padding=4)
    axes.set_xlabel("webhooks a second; one core, if not said otherwise")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(plot, metadata={"Date": None})
    plt.close(figure)

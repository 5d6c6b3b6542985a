"""The part of RESULTS.md about queries."""

from page_cells import number, table
from results import Results


def query_section(told: Results) -> list[str]:
    """Its lines, from the keys `query.*`."""
    title = ["## Queries", ""]
    if told["query.ratio_single_file"] is None:
        return [*title, "Not measured yet: `python benchmarks/queries.py`.", ""]
    views = [key.split(".")[1] for key in sorted(told) if key.startswith("query.") and key.endswith(".ratio")]
    columns = ("single_s", "lake_s", "ratio", "ratio_busy")
    rows = [(view, *(number(told.get(f"query.{view}.{name}"), 2) for name in columns)) for view in views]
    head = ("view", "one file s", "lake s", "lake / file", "with a busy hot area")
    return [
        *title,
        *_compared(told).strip().splitlines(),
        "",
        *table(head, rows),
        *_found(told).strip().splitlines(),
        "",
        f"{told.get('query.machine')}; {told.get('query.date')}.",
        "",
    ]


def _compared(told: Results) -> str:
    count = {name: number(told.get(f"query.{name}")) for name in ("calls", "days", "rounds")}
    busy = {name: number(told.get(f"query.busy_{name}")) for name in ("revisions", "files")}
    ratio = {
        name: number(told.get(f"query.ratio_{name}"), 2)
        for name in ("single_file", "single_file_median", "busy", "busy_median")
    }
    return f"""
Each KPI view over a lake of {count["calls"]} calls in {count["days"]} days, and the same SQL over one Parquet file of
those calls, sorted by date, provider and start. The worst takes {ratio["single_file"]} times the CPU time, the median
{ratio["single_file_median"]}. While {busy["revisions"]} revisions in {busy["files"]} hot files wait for their
compaction, the worst takes {ratio["busy"]} times, the median {ratio["busy_median"]}. Two threads, files in the page
cache, medians of {count["rounds"]} alternating rounds; both show the same rows. {told.get("query.note") or ""}
"""


def _found(told: Results) -> str:
    time = {
        name: number(told.get(f"query.timeline_{name}"))
        for name in ("ms", "cpu_ms", "first_ms", "first_cpu_ms")
    }
    return f"""
One call's events among {number(told.get("query.events"))} (`select * from call_events where call_key = …`) take
{time["ms"]} ms, {time["cpu_ms"]} of them CPU; {time["first_ms"]} ms ({time["first_cpu_ms"]}) where every file's footer
is yet to be read.

A worker that flushes every ten seconds writes at most 8,640 files a day of each dataset. Compactions leave one of them
a date and dataset, or one for each provider from four million rows on: at most five, however many workers wrote
({number(told.get("query.sealed_files_a_date"), 2)} of calls on average here). Hot are those since the last one: 30 of
each worker and dataset at the default 300 s, and for two minutes those that were merged.
"""

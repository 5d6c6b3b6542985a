"""The benchmark programs do not rot: the peers' plain fold gives the true calls, and the results keep their keys."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.collect.received import webhook_record

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
PROMISED = {
    "stream.ratio_faust",
    "stream.ratio_quix",
    "stream.ratio_bytewax",
    "stream.ratio_limit",
    "stream.events_per_s",
    "stream.cpu_s_per_million",
    "backfill.ratio_stream",
    "freshness.p99_s",
    "freshness.flush1_p99_s",
    "collector.ratio_bare",
    "query.ratio_single_file",
}


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmarks import each other as scripts do: by the folders that they are in."""
    before = set(sys.modules)
    for folder in (BENCHMARKS, BENCHMARKS / "peers"):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from day_of_calls import simulate

        return simulate(tmp_path_factory.mktemp("traffic"), 400, days=0.2)


def test_the_peers_fold_gives_the_true_calls(traffic: Any, tmp_path: Path) -> None:
    from calls import calls_of_files, differences
    from day_of_calls import records_of
    from plain import CallFiles, apply
    from webhooks import event_of

    out = tmp_path / "out"
    out.mkdir()
    files, states = CallFiles(out), {}
    for number, record in enumerate(records_of(traffic.archive)):
        event = event_of(record.provider, record.value, record.headers)
        if event is not None:
            files.add(apply(states.setdefault((event.provider, event.stream), {}), event))
        if number % 500 == 0:
            files.flush()
    files.flush()

    assert files.number > 2, "a call that spans files is read from its newest row"
    assert differences(traffic.calls, calls_of_files(out)) is None


def test_callfolds_own_lake_gives_the_same_calls(traffic: Any, tmp_path: Path) -> None:
    from calls import calls_of_lake, differences
    from processes import environment
    from programs import IDLE_SECONDS

    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "backfill", traffic.archive, "--lake", tmp_path / "lake"],
        check=True,
        capture_output=True,
        env=environment(CALLFOLD_IDLE_SECONDS=IDLE_SECONDS),
    )
    assert differences(traffic.calls, calls_of_lake(tmp_path / "lake")) is None


def test_multiplied_webhooks_are_as_many_calls_that_differ_in_their_ids(traffic: Any) -> None:
    from day_of_calls import multiplied, records_of
    from plain import apply
    from webhooks import event_of

    states: dict[tuple[str, str], dict[str, Any]] = {}
    calls, keys = set(), set()
    for record in multiplied(records_of(traffic.archive), 3):
        keys.add(record.key)
        event = event_of(record.provider, record.value, record.headers)
        if event is not None:
            changed = apply(states.setdefault((event.provider, event.stream), {}), event)
            calls.update(call["call_key"] for call in changed)
    assert len(calls) == 3 * len(traffic.calls)
    assert len(keys) == 3 * len({record.key for record in records_of(traffic.archive)})


def test_no_copy_of_a_call_has_the_id_of_the_call_itself() -> None:
    from day_of_calls import multiplied

    key = b"recho:abbbccb4-d47f-4a36-a056-082962a00002"
    record = webhook_record("recho", key, b'{"callId": "%s"}' % key[6:], 1, {}, {})
    copies = list(multiplied([record], 4))
    assert len({copy.key for copy in copies}) == len({copy.value for copy in copies}) == 4


def test_the_ending_webhook_of_a_call_is_the_one_that_ends_it(traffic: Any) -> None:
    from day_of_calls import records_of
    from freshness import endings

    records = list(records_of(traffic.archive))
    found = endings(records)
    ended = {key for key, call in traffic.calls.items() if call[0] is not None}
    assert found.keys() <= ended
    assert len(found) > len(ended) / 2
    for key, index in found.items():
        assert records[index].key == key.encode()


@pytest.mark.parametrize("damage", ["missing", "extra", "wrong"])
def test_a_difference_is_told_in_one_line(damage: str) -> None:
    from calls import differences

    wanted = {"a:1": ("completed", 3, 1.5), "a:2": (None, 1, None)}
    found = dict(wanted)
    if damage == "missing":
        del found["a:2"]
    elif damage == "extra":
        found["a:3"] = ("busy", 1, None)
    else:
        found["a:1"] = ("completed", 4, 1.5)
    told = differences(wanted, found)
    assert told is not None
    assert "\n" not in told
    assert {"missing": "a:2", "extra": "a:3", "wrong": "a:1"}[damage] in told


def test_each_program_updates_its_own_keys_and_leaves_the_others(tmp_path: Path) -> None:
    import results

    file = tmp_path / "results.json"
    assert results.read(file).keys() >= PROMISED
    assert set(results.read(file).values()) == {None}
    results.update({"freshness.p99_s": 10.1234567, "freshness.old": 1}, "freshness", file)
    results.update({"stream.ratio_faust": 12.0, "backfill.ratio_stream": 1.5}, "stream,backfill", file)
    results.update({"freshness.p99_s": 9.0}, "freshness", file)
    told = json.loads(file.read_text("utf-8"))
    assert told["freshness.p99_s"] == 9.0
    assert told["stream.ratio_faust"] == 12.0
    assert told["stream.ratio_quix"] is None
    assert "freshness.old" not in told
    assert told.keys() >= PROMISED


def test_the_page_and_the_plot_are_made_of_the_results(tmp_path: Path) -> None:
    import page
    import results

    told = dict.fromkeys(results.EXPECTED)
    page.write(told, tmp_path / "page.md", tmp_path / "plot.svg")
    assert (tmp_path / "page.md").read_text("utf-8").count("Not measured yet") == 5
    assert not (tmp_path / "plot.svg").exists()
    told |= {"stream.events_per_s": 9876.0, "stream.faust.events_per_s": 1234.0, "stream.ratio_faust": 8.0}
    told |= {"freshness.p99_s": 10.5, "scaling.events.250000.cpu_s_per_million": 101.5}
    told |= {"scaling.events.250000.events_per_s": 1.0, "scaling.events.250000.peak_mib": 2.0}
    told |= {"query.ratio_single_file": 1.75, "query.kpi_daily.ratio": 1.15, "query.kpi_daily.single_s": 0.25}
    page.write(told | {"collector.ratio_bare": 0.5}, tmp_path / "page.md", tmp_path / "plot.svg")
    text = (tmp_path / "page.md").read_text("utf-8")
    assert "Not measured yet" not in text
    for figure in (
        "9,876",
        "1,234",
        "8.00",
        "10.50",
        "101.5",
        "0.50",
        "1.75",
        "| kpi_daily | 0.25 | – | 1.15 |",
    ):
        assert figure in text
    assert "9,876" in (tmp_path / "plot.svg").read_text("utf-8")


def test_a_peer_that_is_not_installed_is_told_apart_from_one_that_fails(tmp_path: Path) -> None:
    from processes import Failed, NotInstalled, finish

    for code, kind in (("import no_such_package", NotInstalled), ("raise SystemExit('broken')", Failed)):
        log = tmp_path / "log"
        with log.open("wb") as said:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=said)
        with pytest.raises(Failed) as caught:
            finish(process, "peer", log)
        assert type(caught.value) is kind


def test_figures_are_medians_and_ratios_to_callfold() -> None:
    import run
    from programs import Measured

    runs = {
        "callfold": [Measured(1000, seconds, 0.1, 50.0) for seconds in (1.0, 2.0, 9.0)],
        "faust": [Measured(100, 1.0, 0.1, 50.0)],
        "backfill": [Measured(1000, 1.0, 0.1, 50.0)],
        "backfill_one": [Measured(1000, 4.0, 0.1, 50.0)],
    }
    told = run.figures(runs)
    assert told["stream.events_per_s"] == 500.0
    assert told["stream.cpu_s_per_million"] == pytest.approx(100.0)
    assert told["stream.ratio_faust"] == 5.0
    assert told["backfill.ratio_stream"] == 2.0
    assert told["backfill.one.ratio_stream"] == 0.5


def test_every_peer_of_the_run_is_there_and_every_package_is_pinned() -> None:
    import re

    for name in ("faust_table", "quix_state", "bytewax_flow", "confluent_loop", "limit"):
        compile((BENCHMARKS / "peers" / f"{name}.py").read_text("utf-8"), name, "exec")
    lines = (BENCHMARKS / "requirements.txt").read_text("utf-8").splitlines()
    for reason, package in zip(lines[1::2], lines[2::2], strict=True):
        assert reason.startswith("# ")
        assert re.fullmatch(r"[\w-]+==[\d.]+", package)


def test_the_views_over_the_lake_are_measured_beside_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import big_lake
    import queries

    monkeypatch.setattr(big_lake, "FLUSH_US", 3_600_000_000)
    monkeypatch.setattr(queries, "kpi_views", lambda: ["kpi_daily", "data_quality"])
    sizes = [
        "--days",
        "4",
        "--calls-a-day",
        "60",
        "--rounds",
        "1",
        "--busy-revisions",
        "40",
        "--busy-files",
        "4",
    ]
    told = queries.measure(tmp_path, queries.options_of(sizes), lambda text: None)

    assert told["query.calls"] > 200
    assert told["query.events"] > 8 * told["query.calls"]
    # The days differ in their ids: each call of the first has its image on all the others.
    with queries.over_lake(tmp_path / "lake") as connection:
        shown = connection.execute("select count(*), count(distinct call_key) from calls").fetchall()
        files = f"'{tmp_path}/lake/calls/sealed/date=*/*.parquet'"
        hashes = connection.execute(f"select count(distinct key_hash) from {files}").fetchall()
    assert shown == [(told["query.calls"], told["query.calls"])]
    assert hashes == [(told["query.calls"],)]
    assert not list((tmp_path / "lake" / "calls" / "hot").glob("*-busy.parquet"))
    ratios = [told[f"query.{view}.ratio"] for view in ("kpi_daily", "data_quality")]
    assert told["query.ratio_single_file"] == max(ratios)
    assert told["query.timeline_ms"] > 0


def test_views_that_show_other_rows_than_the_file_end_the_benchmark(tmp_path: Path) -> None:
    import duckdb
    import queries

    with duckdb.connect() as lake, duckdb.connect() as single:
        for connection, calls in ((lake, 2), (single, 3)):
            for view in queries.kpi_views():
                connection.execute(f"create view {view} as select {calls} as calls")
        with pytest.raises(SystemExit, match="shows other rows"):
            queries.compare(lake, single, 1, same=True)

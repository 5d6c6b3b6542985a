"""Several processes of a backfill come to what one comes to: the same rows, revisions, counts and complaints."""

import dataclasses
import multiprocessing
import runpy
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import backfill as backfill_module
from pipeline import backfill_processes
from pipeline.archive import read_archive
from pipeline.backfill import Summary, backfill
from pipeline.backfill_route import Route, share_of
from pipeline.cli import main
from pipeline.lake.compact import compact
from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.normalise.policy import Privacy
from pipeline.providers import providers
from pipeline.settings import Settings

TESTS = Path(__file__).parent
backfills = SimpleNamespace(**runpy.run_path(str(TESTS / "test_backfill.py")))
world, settings_of, seen, write = backfills.world, backfills.settings_of, backfills.seen, backfills.write
HARSH = (0.1, 0.1, 0.1, 0.05)
AT = "2026-03-02T00:10:00.000Z"
ODD = (
    {"provider": "nobody", "received_at": AT, "body": {"callId": "c1"}},
    {"provider": "recho", "received_at": AT, "body": {"no": "call"}},
    {"provider": "recho", "received_at": AT, "body": {"body": {"data": {"callId": 5}}}},
    {"provider": "freeclimb", "received_at": AT, "body": "{not json"},
    {"provider": "freeclimb", "received_at": AT, "body": {"callId": "a:b:c", "requestType": "x"}},
    {"provider": "freeclimb", "received_at": AT, "body": {"callId": 7.0, "requestType": "callStatus"}},
    {"provider": "aircall_bus", "received_at": AT, "body": {"type": "DIALER.DIALING", "agent_id": 9}},
    {
        "provider": "aircall_bus",
        "received_at": AT,
        "query": {"agent_id": "9"},
        "body": {"type": "DIALER.SYNC"},
    },
    {"provider": "whippy", "received_at": AT, "body": {"event": "message.sent", "data": {"id": "m1"}}},
    {"provider": "recho", "received_at": None, "body": {}},
    "no webhook",
)
"""Without a key, with a strange one, without events, and no webhooks at all."""


@pytest.fixture(autouse=True)
def _every_input_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill_module, "FEW_WEBHOOKS", 1)
    monkeypatch.setattr(backfill_module, "WEBHOOKS_A_FLUSH", 150)
    monkeypatch.setattr(backfill_processes, "WEBHOOKS_A_BATCH", 16)


def told(summary: Summary) -> Summary:
    return dataclasses.replace(summary, seconds=0.0)


def both(
    folder: Path, archives: Sequence[Path], processes: int = 2, **options: Any
) -> Iterator[tuple[Settings, Summary]]:
    """The lake and the summary of one process, and those of several, archive after archive."""
    for count in (1, processes):
        settings, done = settings_of(folder / f"lake{count}", **options.get("settings", {})), Summary()
        for archive in archives:
            close_open = options.get("close_open", False)
            done = backfill(settings, [archive], close_open=close_open, processes=count)
        yield settings, told(done)


@pytest.mark.parametrize(
    ("processes", "seed", "shares", "late"),
    [(2, 41, HARSH, 0.0), (3, 42, (0.3, 0.3, 0.3, 0.2), 0.2), (2, 43, (), 0.05)],
)
def test_several_processes_write_what_one_writes(
    tmp_path: Path,
    write: Any,
    capsys: pytest.CaptureFixture[str],
    processes: int,
    seed: int,
    shares: tuple[float, ...],
    late: float,
) -> None:
    lines = world.shuffled(world.simulated(120, seed, *shares), seed, late)
    for place, odd in enumerate(ODD):
        lines[place * 18 : place * 18] = [odd] * (1 + place % 3)
    archive = write([*lines, *lines[:150]])
    (one, done), (many, also_done) = both(tmp_path, [archive], processes)
    assert done == also_done
    assert done.retracted or shares == ()
    assert done.quarantined
    assert seen(many.lake) == seen(one.lake)
    complaints = capsys.readouterr().err.splitlines()
    assert len(complaints) == 2 * done.unreadable
    assert complaints[: done.unreadable] == complaints[done.unreadable :]


def test_archive_after_archive_over_a_compacted_lake(tmp_path: Path, write: Any) -> None:
    lines = world.simulated(90, 44, *HARSH)
    third = len(lines) // 3
    archives = [write(lines[i * third : (i + 1) * third + 20], f"{i}.ndjson") for i in range(3)]
    (one, _), (many, _) = both(tmp_path, archives[:2])
    compact(one.lake, 0)
    compact(many.lake, 0)
    (one, done), (many, also_done) = both(tmp_path, [archives[2]])
    assert done == also_done
    assert seen(many.lake) == seen(one.lake)
    again = backfill(many, archives, processes=2)
    assert (again.events, again.records, again.retracted) == (0, 0, 0)
    assert seen(many.lake) == seen(one.lake)


def test_calls_that_never_ended_are_closed_when_asked(tmp_path: Path, write: Any) -> None:
    archive = write(world.simulated(100, 45, 0, 0, 0, 0.3))
    (one, done), (many, also_done) = both(tmp_path, [archive], close_open=True)
    assert done == also_done
    assert done.open_calls == 0
    assert seen(many.lake) == seen(one.lake)
    _, (open_, still_open) = both(tmp_path / "open", [archive])
    assert still_open.open_calls > 0
    assert seen(open_.lake) != seen(one.lake)


def test_timers_run_on_the_newest_receipt_of_all_shares(tmp_path: Path, write: Any) -> None:
    # The timeouts of a share are brought about by webhooks of the other one.
    archive = write(world.simulated(80, 46, 0, 0, 0, 0.4))
    settings = {"idle_seconds": 600.0, "grace_seconds": 30.0}
    (one, done), (many, also_done) = both(tmp_path, [archive], settings=settings)
    assert done == also_done
    found = seen(one.lake)
    assert any("'timeout'" in row for row in found["calls"])
    assert seen(many.lake) == found


def test_a_webhook_that_goes_to_the_wrong_process_still_counts(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blind:
        """Deals webhooks out without a look at them."""

        def __init__(self, *_: object) -> None:
            self._places = cycle([0, 0, 1, 0, 1, 1, 1])

        def __call__(self, webhook: Webhook) -> int:
            return next(self._places)

    monkeypatch.setattr(backfill_processes, "Route", Blind)
    archive = write(world.shuffled(world.simulated(80, 47, *HARSH), 5, 0.1))
    (one, done), (many, also_done) = both(tmp_path, [archive])
    assert done == also_done
    assert seen(many.lake) == seen(one.lake)


def test_no_webhook_of_a_known_shape_goes_to_the_wrong_process(write: Any) -> None:
    every = world.simulated(150, 48, *HARSH)
    archives = [write(every), *sorted((TESTS / "fixtures").rglob("webhooks.ndjson"))]
    route, normaliser = Route(providers(), 8), Normaliser(providers(), Privacy())
    of_provider: dict[str, int] = {}
    for webhook in (found for archive in archives for found in read_archive(archive)):
        assert isinstance(webhook, Webhook)
        events = normaliser.events(webhook)
        for event in () if isinstance(events, Rejection) else events:
            assert share_of(event.stream_key, 8) == route(webhook), webhook
            of_provider[webhook.provider] = of_provider.get(webhook.provider, 0) + 1
    assert set(of_provider) == set(providers())


def test_all_receipts_of_one_webhook_go_to_one_process(write: Any) -> None:
    lines = [line for line in ODD[:-2] for _ in range(2)]
    spaced = [{**line, "headers": {"x": "y"}} for line in lines]
    route = Route(providers(), 97)
    found = [route(webhook) for webhook in read_archive(write(lines)) if isinstance(webhook, Webhook)]
    also = [route(webhook) for webhook in read_archive(write(spaced)) if isinstance(webhook, Webhook)]
    assert found == also
    assert found[::2] == found[1::2]
    assert len(set(found)) > 3


def test_what_is_soon_done_is_done_in_one_process(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    class Started:
        def __init__(self, *_: object, **__: object) -> None:
            started.append(self)

    monkeypatch.setattr(backfill_module, "Processes", Started)
    lines = world.simulated(20, 49)
    monkeypatch.setattr(backfill_module, "FEW_WEBHOOKS", len(lines) + 1)
    done = backfill(settings_of(tmp_path / "few"), [write(lines)], processes=2)
    assert (done.webhooks, started) == (len(lines), [])
    monkeypatch.setattr(backfill_module, "FEW_BYTES", 1000)
    with pytest.raises(TypeError, match="context manager"):
        backfill(settings_of(tmp_path / "large"), [write(lines)], processes=2)
    assert len(started) == 1


def test_processes_have_ended_when_a_backfill_has(tmp_path: Path, write: Any) -> None:
    backfill(settings_of(tmp_path / "lake"), [write(world.simulated(50, 50))], processes=3)
    assert multiprocessing.active_children() == []


def test_the_number_of_processes_is_an_option(
    tmp_path: Path, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = write(world.simulated(50, 51))
    for count in ("1", "2", "3"):
        assert main(["backfill", str(archive), "--lake", str(tmp_path / count), "--processes", count]) == 0
        assert seen(tmp_path / count) == seen(tmp_path / "1")
    assert len({line.rpartition(",")[0] for line in capsys.readouterr().out.splitlines()}) == 1
    assert main(["backfill", str(archive), "--processes", "0"]) == 2
    assert "--processes" in capsys.readouterr().err
    files = [path.name for path in (tmp_path / "3" / "calls" / "hot").glob("0*.parquet")]
    assert len({name.split("-")[1] for name in files if name != "0-schema.parquet"}) == 3, (
        "three have written"
    )

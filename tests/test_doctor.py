"""What the doctor says of secrets, and of clusters that no laptop has.

The real clusters are in tests/stream/test_security.py.
"""

import runpy
from collections.abc import Mapping
from pathlib import Path

import pytest
from running import free_port
from signing import SPKI

from pipeline import doctor_kafka
from pipeline.doctor import doctor
from pipeline.doctor_kafka import Finding, broker_findings
from pipeline.providers import provider_names
from pipeline.query.checks import checks
from pipeline.settings import Settings, load_settings
from pipeline.stream.cluster import ClusterState, Member, TopicState
from pipeline.stream.topics import TopicSpec, topic_specs


def settings_of(**environ: str) -> Settings:
    given = {f"CALLFOLD_{name}": value for name, value in environ.items()}
    return load_settings({"broker": f"kafka://127.0.0.1:{free_port()}"}, given, None, provider_names())


def as_made(specs: tuple[TopicSpec, ...], brokers: int) -> dict[str, TopicState]:
    """The topics as a worker would have made them."""
    return {
        spec.name: TopicState(
            spec.partitions,
            spec.copies_on(brokers),
            spec.copies_on(brokers),
            {"min.insync.replicas": "1", "max.message.bytes": "1048588", "cleanup.policy": "delete"}
            | spec.config_on(brokers),
            0,
        )
        for spec in specs
    }


def findings(
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    brokers: int,
    changes: Mapping[str, TopicState] | None = None,
    members: tuple[Member, ...] = (),
) -> dict[str, Finding]:
    topics = as_made(topic_specs(settings, provider_names()), brokers) | dict(changes or {})

    async def look(*_: object) -> ClusterState:
        return ClusterState(brokers, topics, "Stable" if members else "Empty", members)

    monkeypatch.setattr(doctor_kafka, "look_at_cluster", look)
    return {found.what: found for found in broker_findings(settings)}


def test_what_a_worker_has_made_needs_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    for brokers in (1, 2, 3, 5):
        found = findings(monkeypatch, settings_of(), brokers)
        assert {what: finding.advice for what, finding in found.items() if finding.advice} == {}
    assert found["callfold.call-events"].told == (
        "8 partitions, replication 3, min.insync.replicas 2, kept 7 days, lag 0"
    )
    assert found["callfold.call-records"].told == (
        "8 partitions, replication 3, min.insync.replicas 2, compacted"
    )


def test_fewer_copies_than_the_brokers_allow_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "callfold.webhooks.recho"
    one = TopicState(8, 1, 1, {"min.insync.replicas": "1", "retention.ms": "-1"}, 0)
    found = findings(monkeypatch, settings_of(), 3, {name: one})[name]
    assert found.advice == "3 brokers could keep 3 copies: raise them with kafka-reassign-partitions"
    assert "kept for ever" in found.told
    # One copy is what the settings say: then it is what they say.
    assert findings(monkeypatch, settings_of(TOPICS_REPLICATION="1"), 3, {name: one})[name].advice == ""


def test_a_topic_that_one_broker_may_lose_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "callfold.call-events"
    unsafe = TopicState(8, 3, 2, {"min.insync.replicas": "1", "retention.ms": "604800000"}, 7)
    found = findings(monkeypatch, settings_of(), 3, {name: unsafe})[name]
    assert "only 2 in sync, lag 7" in found.told
    assert "a broker is away or behind" in found.advice
    assert "--add-config min.insync.replicas=2" in found.advice


def test_more_copies_than_brokers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, settings_of(TOPICS_REPLICATION="3"), 1)
    assert "topics.replication is 3" in found["broker"].advice


def test_who_works_and_who_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    members = (Member("10.0.0.1", 30), Member("10.0.0.1", 18), Member("10.0.0.2", 0))
    found = findings(monkeypatch, settings_of(), 1, members=members)["workers"]
    assert found.told == (
        "3 in the group callfold-worker, stable: "
        "10.0.0.1 (2 workers, 48 partitions), 10.0.0.2 (1 worker, 0 partitions)"
    )
    assert found.advice == "1 worker without a partition: more than there is work for"


def test_a_broker_that_is_away_is_broken_and_said_in_one_line() -> None:
    (found,) = broker_findings(settings_of())
    assert found.is_broken
    assert "cannot be reached" in found.told
    assert "CALLFOLD_BROKER" in found.advice


@pytest.mark.parametrize(
    ("brokers", "copies", "safe"), [(1, 1, False), (2, 2, False), (3, 3, True), (6, 3, True)]
)
def test_topics_are_kept_on_as_many_brokers_as_there_are(brokers: int, copies: int, safe: bool) -> None:
    for spec in topic_specs(settings_of(), provider_names()):
        assert spec.copies_on(brokers) == copies
        assert spec.config_on(brokers).get("min.insync.replicas") == ("2" if safe else None)


def test_topics_are_kept_as_the_settings_say() -> None:
    settings = settings_of(TOPICS_REPLICATION="2", TOPICS_RETENTION_DAYS="45", TOPICS_PARTITIONS="3")
    specs = {spec.name: spec for spec in topic_specs(settings, provider_names())}
    assert {(spec.copies_on(5), spec.partitions) for spec in specs.values()} == {(2, 3)}
    days = {name: int(spec.config.get("retention.ms", 0)) / 86_400_000 for name, spec in specs.items()}
    # What waits for somebody to mend it is not forgotten before what passes through.
    assert days.pop("callfold.quarantine") == 45
    assert days.pop("callfold.call-records") == 0
    assert set(days.values()) == {45}
    assert specs["callfold.call-records"].config == {"cleanup.policy": "compact"}


def auth_findings(lake: Path, **environ: str) -> dict[str, Finding]:
    given = {f"CALLFOLD_{name}": value for name, value in environ.items()}
    settings = load_settings({"lake": str(lake)}, given, None, provider_names())
    return {found.what: found for found in doctor(settings) if found.what in provider_names()}


def test_each_providers_auth_is_told_with_what_to_mend(tmp_path: Path) -> None:
    key = tmp_path / "recho.pem"
    key.write_text(SPKI)
    found = auth_findings(
        tmp_path / "lake",
        RECHO_SECRET=str(key),
        WHIPPY_SECRET="new,old",
        FREECLIMB_AUTH="none",
        AIRCALL_BUS_AUTH="bearer",
        AIRCALL_BUS_SECRET="page-token",
    )
    assert {name: str(finding)[:4].strip() for name, finding in found.items()} == {
        "aircall_bus": "ok",
        "freeclimb": "warn",
        "interactly": "warn",
        "recho": "ok",
        "whippy": "ok",
    }
    assert found["whippy"].told == "auth is signature, 2 secret(s)"
    assert "every request is refused (401)" in found["interactly"].told
    assert "CALLFOLD_INTERACTLY_SECRET" in found["interactly"].advice


AWAY = "is a file that cannot be read (No such file or directory): ./none.pem"


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("not-a-key", "its secret is no public key in PEM"),
        ("./none.pem", f"its secret {AWAY}"),
        ("./none.pem,other", f"secret 1 of 2 {AWAY}; secret 2 of 2 is no public key in PEM"),
    ],
)
def test_a_secret_that_cannot_work_is_broken(tmp_path: Path, secret: str, told: str) -> None:
    found = auth_findings(tmp_path, RECHO_SECRET=secret)["recho"]
    assert found.is_broken
    assert found.told == f"auth is signature, but {told}"
    assert found.advice == "mend CALLFOLD_RECHO_SECRET"
    assert "\n" not in str(found).strip().replace("\n      -> ", "")


def test_a_secret_that_looks_like_a_name_is_told_and_not_shown(tmp_path: Path) -> None:
    found = auth_findings(tmp_path, WHIPPY_SECRET="/9j4AAQSkZJRgABAQ")["whippy"]
    assert not found.is_broken
    assert "begins with / and names no file" in found.told
    assert "9j4AAQ" not in str(found)


_LAKES = runpy.run_path(str(Path(__file__).parent / "sql" / "conftest.py"))
call = _LAKES["call"]


def rules_found(lake: Path) -> list[Finding]:
    settings = load_settings({"lake": str(lake)}, {}, None, provider_names())
    return [finding for finding in doctor(settings) if finding.what == "rules"]


def test_a_lake_that_breaks_no_rule_is_said_to_break_none(tmp_path: Path) -> None:
    lake = _LAKES["Lake"](tmp_path / "lake")
    lake.hot(call("1"))
    lake.events_of(call("1"))
    assert [str(finding) for finding in rules_found(lake.root)] == [
        f"ok    {'rules':<29}  no row of the lake breaks one of the {len(checks())}"
    ]


def test_rows_that_break_rules_are_named_and_a_wrong_record_is_a_failure(tmp_path: Path) -> None:
    lake = _LAKES["Lake"](tmp_path / "lake")
    rows = [call("a\x1b[31m", ended_at=None), call("b", attempts=0), call("c", attempts=0)]
    lake.hot(*rows)
    lake.events_of(*rows)
    warned, failed = rules_found(lake.root)
    assert warned.told == "calls_ended_without_end: 1 row, such as whippy:a\\u001b[31m"
    assert (warned.is_broken, str(warned)[:4]) == (False, "warn")
    assert failed.told == "calls_impossible_count: 2 rows, such as whippy:b, whippy:c"
    assert (failed.is_broken, str(failed)[:4]) == (True, "FAIL")
    assert failed.advice.startswith("One row per call with fewer than one event")

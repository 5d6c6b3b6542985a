"""`docker-compose.yml` as Docker Compose would read it: the official schema, and what Callfold needs beyond it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.providers import provider_names
from pipeline.setting_table import SETTINGS
from pipeline.stream.worker import STOP_SECONDS

ROOT = Path(__file__).parent.parent
SCHEMA = Path(__file__).parent / "support" / "compose_spec" / "compose-spec.json"
#: what the image or the way in to the containers fixes
FIXED = {"CALLFOLD_LAKE", "CALLFOLD_HTTP_HOST", "CALLFOLD_HTTP_PORT"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _variables() -> set[str]:
    return {spec.env.replace("<NAME>", name.upper()) for spec in SETTINGS for name in provider_names()}


def test_the_file_is_what_the_specification_says(
    compose: dict[str, Any], validator: Draft202012Validator
) -> None:
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("services", "worker", "restart_policy"), "always"),
        (("services", "worker", "depends_on", "kafka", "condition"), "healthy"),
        (("services", "kafka", "healthcheck", "retries"), {"a": 1}),
        (("volumes", "lake"), ["a"]),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    compose: dict[str, Any], validator: Draft202012Validator, path: tuple[str, ...], value: object
) -> None:
    wrong = json.loads(json.dumps(compose))
    place = wrong
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert list(validator.iter_errors(wrong))


def test_kafka_a_collector_and_workers_run(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"kafka", "collector", "worker"}
    assert services["kafka"]["image"].startswith("apache/kafka:4")
    assert services["kafka"]["healthcheck"]["test"]
    assert {services[name]["command"][0] for name in ("collector", "worker")} == {"collect", "work"}
    assert all(service["restart"] == "unless-stopped" for service in services.values())


def test_every_setting_is_passed_on_and_none_is_made_up(compose: dict[str, Any]) -> None:
    passed = {name for key in ("collector", "worker") for name in compose["services"][key]["environment"]}
    assert passed == _variables() - FIXED


def test_what_may_be_set_from_outside_is_a_setting() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"\$\{(CALLFOLD_\w+)", text))
    assert named
    assert named <= _variables()


def test_any_number_of_workers_can_run_at_once(compose: dict[str, Any]) -> None:
    assert not {"ports", "container_name", "network_mode"} & set(compose["services"]["worker"])


def test_what_is_kept_is_on_declared_volumes(compose: dict[str, Any]) -> None:
    services = compose["services"]
    mounts = [mount.split(":") for service in services.values() for mount in service.get("volumes", [])]
    assert {mount[0] for mount in mounts} == set(compose["volumes"])
    image = dict(re.findall(r"(CALLFOLD_\w+)=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8")))
    assert ["lake", image["CALLFOLD_LAKE"]] in mounts
    assert services["kafka"]["environment"]["KAFKA_LOG_DIRS"] in {mount[1] for mount in mounts}


def test_a_stop_is_given_the_time_that_a_worker_takes_for_it(compose: dict[str, Any]) -> None:
    flush = float(next(spec.default for spec in SETTINGS if spec.name == "flush_seconds"))
    for name in ("collector", "worker"):
        seconds = re.fullmatch(r"(\d+)s", compose["services"][name]["stop_grace_period"])
        assert seconds is not None
        assert float(seconds[1]) > max(flush, STOP_SECONDS)


def test_a_scheduled_report_is_written_by_default(compose: dict[str, Any]) -> None:
    from pipeline.setting_readers import read_cron

    told = re.fullmatch(
        r"\$\{CALLFOLD_REPORT_CRON:-(.+)\}",
        compose["services"]["worker"]["environment"]["CALLFOLD_REPORT_CRON"],
    )
    assert told is not None
    assert read_cron(told[1]) == told[1]

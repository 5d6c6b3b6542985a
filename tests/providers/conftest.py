"""What the golden tests share: where the cases are, and the only way to rewrite them."""

import json
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parent.parent / "fixtures"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite calls.json of the golden cases, and fail as updated",
    )


def case_folders() -> list[Path]:
    return sorted(file.parent for file in FIXTURES.glob("*/*/webhooks.ndjson"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        folders = case_folders()
        metafunc.parametrize("case", folders, ids=[f"{f.parent.name}/{f.name}" for f in folders])


class Golden:
    """Compares rows with a case's calls.json, or, when asked to, rewrites the file and fails."""

    def __init__(self, is_update: bool) -> None:
        self._is_update = is_update

    def check(self, case: Path, rows: list[dict[str, Any]]) -> None:
        file = case / "calls.json"
        if self._is_update:
            file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            pytest.fail(f"{file} is updated: look at every change, then run without --update-golden")
        expected = json.loads(file.read_text(encoding="utf-8"))
        assert [row["call_key"] for row in rows] == [row["call_key"] for row in expected]
        assert rows == expected


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    # The option is unknown where these files are not given on the command line, as in a run of all tests.
    return Golden(bool(request.config.getoption("--update-golden", default=False)))

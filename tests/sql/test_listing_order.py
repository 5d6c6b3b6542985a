"""The manifest is listed before the sealed files, by every view: what it names must be among them.

Were it the other way round, a compaction in between would hide the rows of a date from a query, or show them twice.
DuckDB promises no order; so it is looked at, with a file system that writes down what it is asked to list.
"""

import runpy
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.query.views import models, views_sql

_BUILDER = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
call, at = _BUILDER["call"], _BUILDER["at"]

SCHEME = "noted"
VIEWS = [
    name
    for name, sql in models().items()
    if "/sealed/" in sql or name in ("calls", "all_calls", "open_calls")
]


class Noting(LocalFileSystem):
    """The local files under a scheme of their own; what is listed is noted."""

    protocol = SCHEME
    listed: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(path.removeprefix(f"{SCHEME}://") if isinstance(path, str) else path)

    def glob(self, path: str, **options: Any) -> list[str]:
        self.listed.append(path)
        return [f"{SCHEME}://{found}" for found in super().glob(path, **options)]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    lake = _BUILDER["Lake"](tmp_path_factory.mktemp("noted") / "lake")
    lake.sealed(call("1"))
    lake.hot(call("1", revision=4, published_at=at("13:00:00")))
    with duckdb.connect(config={"threads": 1}) as found:
        found.register_filesystem(Noting(skip_instance_cache=True))
        found.execute(views_sql(f"{SCHEME}://{lake.root}"))
        yield found


@pytest.mark.parametrize("view", VIEWS)
def test_the_manifest_is_listed_before_the_sealed_files(connection: Any, view: str) -> None:
    Noting.listed.clear()
    connection.execute(f"select * from {view}").fetchall()
    kinds = [path.split("/")[-3] if "**" in path else path.split("/")[-2] for path in Noting.listed]
    assert "sealed" in kinds
    manifests = [place for place, kind in enumerate(kinds) if kind == "manifest"]
    assert manifests, kinds
    assert manifests[0] < kinds.index("sealed"), kinds


def test_one_call_is_shown_that_is_hot_and_sealed(connection: Any) -> None:
    assert connection.execute("select call_key, revision from calls").fetchall() == [("whippy:1", 4)]

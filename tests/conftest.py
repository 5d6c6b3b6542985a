"""What several test files need."""

from pathlib import Path

import pytest
from s3_server import bucket, s3, spoilable

from pipeline.cli import main

__all__ = ["bucket", "s3", "spoilable"]


@pytest.fixture(scope="session")
def small_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of a few hundred simulated calls of all providers; to be read only."""
    folder = tmp_path_factory.mktemp("small")
    archive, lake = folder / "webhooks.ndjson", folder / "lake"
    assert main(["simulate", "--calls", "300", "--seed", "7", "--out", str(archive)]) == 0
    assert main(["backfill", str(archive), "--lake", str(lake)]) == 0
    return lake

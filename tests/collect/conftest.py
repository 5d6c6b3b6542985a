"""What the collector's tests share."""

from collections.abc import Iterator

import pytest

from pipeline.stream.embedded import EmbeddedBroker


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as started:
        yield started

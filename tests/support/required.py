"""What some tests need and not every machine has."""

import os

import pytest


def require(reason_against: str | None, variable: str) -> None:
    """Skips the test for this reason, if there is one; where the variable is 1 that is a failure instead."""
    if reason_against is None:
        return
    if os.environ.get(variable) == "1":
        pytest.fail(reason_against)
    pytest.skip(reason_against)

"""The right to write: given by an assignment, kept by the group's answers, gone with either."""

import pytest

from pipeline.errors import DestinationUnavailable
from pipeline.stream.tenure import Tenure, TenureLostError, awake_seconds


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tenure(clock: Clock) -> Tenure:
    return Tenure(10, clock)


def test_a_claim_holds_until_a_session_after_the_last_accepted_request_was_sent(
    tenure: Tenure, clock: Clock
) -> None:
    tenure.begin()
    tenure.confirm(100.0)
    check = tenure.claim()
    clock.seconds = 109.9
    check()
    clock.seconds = 110.0
    with pytest.raises(TenureLostError, match="not confirmed this worker for 10 s"):
        check()
    tenure.confirm(109.0)
    check()


def test_an_answer_that_comes_late_counts_from_when_the_request_was_sent(
    tenure: Tenure, clock: Clock
) -> None:
    tenure.begin()
    tenure.confirm(105.0)
    # The process stood still between the request and the reading of its answer.
    clock.seconds = 500.0
    tenure.confirm(106.0)
    with pytest.raises(TenureLostError):
        tenure.claim()()
    tenure.confirm(103.0)
    clock.seconds = 115.9
    tenure.claim()()


def test_nothing_may_be_written_before_the_first_assignment_and_after_the_last(tenure: Tenure) -> None:
    tenure.confirm(100.0)
    with pytest.raises(TenureLostError, match="another worker"):
        tenure.claim()()
    tenure.begin()
    tenure.claim()()
    tenure.end()
    with pytest.raises(TenureLostError, match="another worker"):
        tenure.claim()()


def test_a_claim_of_an_earlier_assignment_is_void_in_the_next(tenure: Tenure) -> None:
    tenure.begin()
    tenure.confirm(100.0)
    old = tenure.claim()
    tenure.end()
    tenure.begin()
    tenure.claim()()
    with pytest.raises(TenureLostError):
        old()


def test_a_lost_tenure_is_something_that_may_pass() -> None:
    assert issubclass(TenureLostError, DestinationUnavailable)
    before = awake_seconds()
    assert awake_seconds() >= before

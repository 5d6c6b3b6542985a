"""What comes back from the lake to the fold."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.model.call import CallRecord
from pipeline.model.event import CallEvent


class Remembered(NamedTuple):
    """What was made durable of one stream before: its events, and the newest record of each of its calls."""

    events: list[CallEvent]
    records: list[CallRecord]
    retracted: Sequence[CallRecord] = ()
    """Of calls that, by a late event, never were."""

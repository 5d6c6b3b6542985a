"""The records that cross a border between two steps. This package imports nothing of ours.

    Webhook -> CallEvent | Rejection -> CallRecord

Times are whole microseconds since the epoch in UTC and end in ``_us``; lengths are seconds and end in ``_seconds``.
"""

from pipeline.model.call import CallRecord, call_key
from pipeline.model.event import FORGOTTEN, CallEvent
from pipeline.model.rejection import Rejection, RejectionCode, Stage
from pipeline.model.remembered import Remembered
from pipeline.model.vocabulary import FAILURE_CLASS, OUTCOMES, STATE_RANK, Channel, Direction, Outcome, State
from pipeline.model.webhook import Webhook

__all__ = [
    "FAILURE_CLASS",
    "FORGOTTEN",
    "OUTCOMES",
    "STATE_RANK",
    "CallEvent",
    "CallRecord",
    "Channel",
    "Direction",
    "Outcome",
    "Rejection",
    "RejectionCode",
    "Remembered",
    "Stage",
    "State",
    "Webhook",
    "call_key",
]

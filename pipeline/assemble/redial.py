"""Which end decides, and whether a call that had ended is being dialled again.

Most calls end once. Where a provider redials (its events name a dial attempt), an end may be followed by another
attempt: the call is then going on again, and its last end decides. Late events must not look like a redial, so
it takes more than an event after the end: a leg that has not ended yet, or more attempts than ends.
"""

from collections.abc import Sequence

from pipeline.model import CallEvent

FINAL = frozenset({"max_attempts", "expired", "canceled"})
"""Ends of the whole call, whatever leg they happen to name."""


def last_attempt(ordered: Sequence[CallEvent]) -> tuple[Sequence[CallEvent], CallEvent | None]:
    """The events of the last attempt, and the end that decides; no end while the call is going on."""
    ends, tells_attempts = [], False
    for event in ordered:
        if event.state == "ended":
            ends.append(event)
        if event.attempt_id is not None or event.leg is not None:
            tells_attempts = True
    if not ends:
        return ordered, None
    if not tells_attempts:
        if len(ends) == 1:
            return ordered, ends[0]
        place = {event.event_id: index for index, event in enumerate(ordered)}
        return ordered, max(ends, key=lambda e: (e.end_rank, e.fact_rank, place[e.event_id]))
    if _is_redialling(ordered, ends):
        return [e for e in ordered if e.at_us >= ends[-1].at_us and e.state != "ended"], None
    return _of_last_end(ordered, ends), ends[-1]


def _of_last_end(ordered: Sequence[CallEvent], ends: Sequence[CallEvent]) -> Sequence[CallEvent]:
    """The events of the attempt that the last end ended; one leg may report an error and then its end."""
    end = ends[-1]
    if end.direction != "outbound" or len(ends) == 1:
        return ordered
    if end.leg is not None:
        return [e for e in ordered if e.leg == end.leg]
    return [e for e in ordered if e.at_us > ends[-2].at_us] or [end]


def _is_redialling(ordered: Sequence[CallEvent], ends: Sequence[CallEvent]) -> bool:
    starts = [
        e for e in ordered if e.attempt_id is not None or (e.state == "ringing" and e.direction == "outbound")
    ]
    if not starts or any(e.outcome in FINAL and e.at_us >= starts[-1].at_us for e in ends):
        return False
    legs: dict[str, int] = {}
    for event in starts:
        if event.leg is not None:
            legs.setdefault(event.leg, event.at_us)
    if legs:
        leg, since_us = max(legs.items(), key=lambda item: (item[1], item[0]))
        return not any(e.leg == leg or (e.leg is None and e.at_us >= since_us) for e in ends)
    asked = sum(1 for e in starts if e.attempt_id is not None)
    attempts = max(asked, len(starts) - asked)
    return attempts > len(ends) and starts[-1].at_us > ends[-1].at_us

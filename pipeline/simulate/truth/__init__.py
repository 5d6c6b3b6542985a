"""The oracle: what the call records must be, worked out a second time and the slow way.

Rule 1: nothing here imports the pipeline's own decoding, folding or storing; agreement with it is evidence.
Rule 2: every call is told from the whole set of its distinct events: group, drop repeats, sort, decide.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from pipeline.simulate.truth import aircall_bus, freeclimb, interactly, recho, whippy
from pipeline.simulate.truth.hook import Event, Hook, read_hook
from pipeline.simulate.truth.record import Rules, to_record
from pipeline.simulate.truth.story import Story

Read = Callable[[Hook], tuple[str, Event] | None]

_READ: Final[dict[str, Read]] = {
    "interactly": interactly.read,
    "recho": recho.read,
    "whippy": whippy.read,
    "aircall_bus": aircall_bus.read,
    "freeclimb": freeclimb.read,
}
_TELL: Final[dict[str, Callable[[str, list[Event]], Story]]] = {
    "interactly": interactly.tell,
    "recho": recho.tell,
    "whippy": whippy.tell,
    "freeclimb": freeclimb.tell,
}

__all__ = ["truth"]


def truth(
    webhooks: Iterable[dict[str, Any]],
    idle_seconds: float = 14400,
    as_of_us: int | None = None,
    close_open: bool = False,
) -> list[dict[str, Any]]:
    """The true call records of a webhook archive, in any order and with any repeats.

    `webhooks` are archive objects (`provider`, `received_at`, `headers`, `query`, `body`). A call without an end
    is closed by timeout once it has been silent for `idle_seconds` at `as_of_us` (default: the newest receipt), or
    at once with `close_open`. Webhooks that are of no known call contribute nothing. Ordered by `call_key`.
    """
    idle_us = round(idle_seconds * 1_000_000)
    streams, newest_us = _distinct_events(webhooks)
    rules = Rules(idle_us, newest_us if as_of_us is None else as_of_us, close_open)
    records = []
    for (provider, stream), events in streams.items():
        if provider == "aircall_bus":
            stories = aircall_bus.tell_all(stream, list(events.values()), idle_us)
        else:
            stories = [_TELL[provider](stream, list(events.values()))]
        records += [to_record(story, rules) for story in stories]
    return sorted(records, key=lambda record: str(record["call_key"]))


def _distinct_events(
    webhooks: Iterable[dict[str, Any]],
) -> tuple[dict[tuple[str, str], dict[str, Event]], int]:
    """The distinct events of every stream, each with its earliest receipt, and the newest receipt of all."""
    streams: dict[tuple[str, str], dict[str, Event]] = {}
    newest_us = 0
    for webhook in webhooks:
        hook = read_hook(webhook)
        if hook is None or hook.provider not in _READ:
            continue
        newest_us = max(newest_us, hook.received_us)
        found = _READ[hook.provider](hook)
        if found is None:
            continue
        stream, event = found
        events = streams.setdefault((hook.provider, stream), {})
        before = events.get(event.identity)
        if before is None or event.earlier_than(before):
            events[event.identity] = event
    return streams, newest_us

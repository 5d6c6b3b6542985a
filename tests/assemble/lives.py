"""Random lives of an assembler: what it is given, and when it is asked, with everything that may go wrong.

Few streams with many events each, so that most events meet a call that is there already.
"""

import random
from collections.abc import Hashable, Iterator
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from pipeline.model import CallEvent

SECOND: Final = 1_000_000
IDLE_US: Final = 11 * SECOND
GRACE_US: Final = 3 * SECOND
PARTITIONS: Final[list[Hashable]] = [0, ("p", 0), "two"]
STREAMS: Final = {"p:0": 0, "p:1": 1, "p:2": 2, "bus:0": 1, "bus:1": 2}
"""The place of each stream's partition, by key. Those of `bus` are agents."""

WORDS: Final = ["begin"] * 6 + ["connected"] * 4 + ["sync"] * 6 + ["end"] * 5 + ["merging", None, None]
STATES: Final[dict[str | None, list[str | None]]] = {
    "begin": ["ringing", "ringing", "queued"],
    "connected": ["in_progress"],
    "end": ["ended", "ended", "ended", "wrap_up"],
    "merging": ["in_progress"],
    "sync": [None],
    None: [None, "wrap_up", "ringing", "ended"],
}
LAGS: Final = [0] * 8 + [1, 2, 5, 20, 60]
"""Seconds from what happened to its receipt."""

Step = tuple[Any, ...]


class Life(NamedTuple):
    """How patient the assembler is, and what happens to it, step by step."""

    grace_us: int
    idle_us: int
    is_honest: bool
    """Whether an id that comes again stands where it stood, and no two events of a session are one `seq`.

    Otherwise what was let go of an agent's stream may be missed: what is told then is not that of the whole stream.
    """
    steps: list[Step]


def life(seed: int) -> Life:
    """One life; the same for the same seed."""
    dice = random.Random(seed)
    is_honest = dice.random() < 0.6
    told = [event for key in STREAMS for event in _stream(dice, key, is_honest)]
    told += [again for event in told for again in _again(dice, event, is_honest)]
    if dice.random() < 0.8:
        # As things come in: late ones have a late receipt. Otherwise the receipts say nothing of the order.
        told.sort(key=lambda event: event.received_us + dice.choice([0, 0, 0, 0, 9, 40]) * SECOND)
    else:
        dice.shuffle(told)
    steps = list(_steps(dice, told))
    steps.append(("collect", (10**12,) * len(PARTITIONS), False))
    grace_us = dice.choice([0, GRACE_US, GRACE_US, 2 * IDLE_US])
    return Life(grace_us, dice.choice([0, *[IDLE_US] * 5]), is_honest, steps)


def _stream(dice: random.Random, key: str, is_honest: bool) -> Iterator[CallEvent]:
    if key.startswith("p:"):
        return _call(dice, key, dice.randrange(0, 8))
    return _agent(dice, key, dice.choice([0, 4, 12, 25, 40]), is_honest)


def _call(dice: random.Random, key: str, count: int) -> Iterator[CallEvent]:
    at_us = dice.randrange(40) * SECOND
    for number in range(count):
        at_us += dice.choice([0, 1, 2, 15]) * SECOND // 2
        yield CallEvent(
            event_id=f"{key}/{number}", provider="p", stream_key=key, event_type="t",
            call_id=key[2:] + "b" * (dice.random() < 0.05),
            at_us=at_us, received_us=at_us + dice.choice(LAGS) * SECOND,
            state=dice.choice([None, "ringing", "in_progress", "ended"]),  # type: ignore[arg-type]
            from_number=dice.choice([None, f"+{number}"]), account_id=dice.choice([None, "a", "a", "b"]),
        )  # fmt: skip


def _agent(dice: random.Random, key: str, count: int, is_honest: bool) -> Iterator[CallEvent]:
    """An agent's day: calls one after the other, now and then another session, a clock set back, a silence."""
    at_us, calls, session, word = dice.randrange(10) * SECOND, 0, "s0", None
    seqs: dict[str, int] = {}
    has_sessions = dice.random() < 0.8
    many_sessions = dice.random() < 0.5
    for number in range(count):
        at_us += dice.choice([0, 1, 1, 2, 2, 3, 4, 26]) * SECOND // 2
        if dice.random() < 0.04:
            at_us = max(0, at_us - dice.randrange(30) * SECOND)
        if many_sessions and dice.random() < 0.15:
            session = dice.choice(["s0", "s1", "s2"])
        word = _next_word(dice, word)
        calls += word == "begin"
        told: dict[str, Any] = {}
        if has_sessions and dice.random() < 0.95:
            seqs[session] = seqs.get(session, 0) + dice.choice([1, 1, 1, 1, 2, int(is_honest)])
            told = {"session_id": session, "seq": seqs[session]}
        yield CallEvent(
            event_id=f"{key}/{number}", provider="bus", stream_key=key, event_type="t",
            at_us=at_us, received_us=at_us + dice.choice(LAGS) * SECOND,
            account_id=dice.choice(["a", "a", "b"]), cut=word,
            provider_call_id=_uuid(dice, key, word, calls), **_said(dice, word, number), **told,
        )  # fmt: skip


def _next_word(dice: random.Random, word: str | None) -> str | None:
    usual = {"begin": "connected", "connected": "end", "end": "begin", None: "begin"}
    return usual[word] if word in usual and dice.random() < 0.4 else dice.choice(WORDS)


def _uuid(dice: random.Random, key: str, word: str | None, calls: int) -> str | None:
    """Of this call, of the one before, or of one long ago; most words tell none."""
    if dice.random() < {"begin": 0.5, "sync": 0.9}.get(word or "", 0.1):
        back = dice.choice([0, 0, 0, 0, 1] if word != "sync" else [0, 0, 1, 1, 1, 2])
        return f"{key}/u{max(0, calls - back)}"
    return None


def _said(dice: random.Random, word: str | None, number: int) -> dict[str, Any]:
    state = dice.choice(STATES[word])
    said: dict[str, Any] = {"state": state}
    if word in ("begin", "sync"):
        said |= {"from_number": f"+1{number}", "direction": dice.choice([None, "inbound", "outbound"])}
    if word == "begin":
        said["ringing_us"] = number * SECOND
    if word == "connected":
        said |= {"answered_us": number * SECOND, "answer_evidence": True}
    if state == "ended":
        said |= {"ended_us": number * SECOND, "outcome": dice.choice([None, "completed", "no_answer"])}
    if state in ("ended", "wrap_up"):
        said["hangup_us"] = number * SECOND
    return said


def _again(dice: random.Random, event: CallEvent, is_honest: bool) -> Iterator[CallEvent]:
    """The same id again, received sooner or later, saying the same or something else."""
    while dice.random() < 0.2:
        received_us = max(0, event.received_us + dice.choice([-15, -3, -1, 0, 1, 5, 20]) * SECOND)
        told: list[dict[str, Any]] = [{}, {"from_number": "+666"}, {"raw_status": "other"}]
        if not is_honest:
            told += [
                {"at_us": event.at_us + dice.choice([-4, 4]) * SECOND},
                {"provider_call_id": dice.choice([None, f"{event.stream_key}/u1", f"{event.stream_key}/u2"])},
                {"cut": dice.choice(WORDS)} if event.provider == "bus" else {"state": "ended"},
            ]
        yield replace(event, received_us=received_us, **dice.choice(told))


def _steps(dice: random.Random, told: list[CallEvent]) -> Iterator[Step]:
    newest_us = 0
    is_rough = dice.random() < 0.5
    place = 0
    while place < len(told):
        batch = told[place : place + dice.randrange(1, 9)]
        place += len(batch)
        newest_us = max(newest_us, *(event.received_us for event in batch))
        yield "add", batch
        while dice.random() < 0.45:
            clocks = tuple(
                max(0, newest_us + dice.choice([-(10**12), -20, -1, 0, 0, 0, 1, 4, 12, 40]) * SECOND)
                for _ in PARTITIONS
            )
            yield "collect", clocks, dice.random() < 0.15
            if is_rough and dice.random() < 0.3:
                yield _mishap(dice, clocks)


def _mishap(dice: random.Random, clocks: tuple[int, ...]) -> Step:
    """What befalls a worker.

    `drop`, `leave`: partitions are taken from it, and come back or do not; `crash`, `torn`: what it collected was
    written, or only the events of it, and it is started again without having committed.
    """
    kind = dice.choice(["restart", "restore", "drop", "leave", "crash", "torn"])
    if kind in ("drop", "leave"):
        return kind, dice.sample(range(len(PARTITIONS)), dice.choice([1, 1, 2]))
    return (kind, clocks) if kind in ("crash", "torn") else (kind,)

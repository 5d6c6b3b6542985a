"""Which texts may hold credentials is seen by the compiled part as by Python, and no other goes to Python."""

import json
import random
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest

from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.normalise.credentials import _HINTS as HINTS
from pipeline.normalise.credentials import may_hold_credentials, without_credentials
from pipeline.providers import providers

native = pytest.importorskip("pipeline.native._native")
OWN = ("our-own-secret", "é", "\ud800", "Own")
NORMALISER = Normaliser(providers(), Privacy(own_secrets=OWN))
# What in lower case is of ASCII, what only looks so, what grows, and what is written otherwise at a word's end.
LETTERS = ("\u212a", "\u0130", "\u0131", "\u017f", "\uff4b", "\u1e9e", "\ufb06", "Σ", "Å", "é", "𝐤")
PIECES = (
    *("=", ":", " ", "/", "?", "&", "", "\n", "\x1f", "\u2028", "https://host/x", "earer", "EARER", "Earer", "eare"),
    *("toke", "oken", "ken", "s ig=", "sig", "jwt", "co de=", "passe", "pass", "credentia", "abcdefgh1234"),
    *("Authorization: Bearer abcdefgh1234", "://u:pass@", "[dropped]", *OWN[:2], *LETTERS),
)  # fmt: skip


def in_odd_case(word: str, dice: random.Random) -> str:
    told = "".join(dice.choice([sign.lower(), sign.upper(), sign]) for sign in word)
    if dice.random() < 0.4:
        place = dice.randrange(len(told) + 1)
        told = told[:place] + dice.choice(LETTERS) + told[place + dice.randrange(2) :]
    return told.replace("K", "\u212a") if dice.random() < 0.2 else told


def texts(dice: random.Random, count: int) -> Iterable[str]:
    for _ in range(count):
        pieces = [dice.choice(PIECES) for _ in range(dice.randrange(5))]
        if dice.random() < 0.6:
            pieces.insert(dice.randrange(len(pieces) + 1), in_odd_case(dice.choice(HINTS), dice))
        yield "".join(pieces)


def test_the_same_texts_are_looked_through() -> None:
    found = {False: 0, True: 0}
    for text in texts(random.Random(1), 60_000):
        is_worth_it = may_hold_credentials(text)
        assert native.may_hold_credentials(text) == is_worth_it, text
        found[is_worth_it] += 1
    assert min(found.values()) > 10_000


def test_every_letter_that_is_another_in_lower_case_is_one_in_every_hint() -> None:
    signs = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    lowered = [sign for sign in signs if any(map(str.isascii, sign.lower()))]
    assert len(lowered) == 130
    for hint in HINTS:
        for place in range(len(hint) + 1):
            for sign in lowered:
                for told in (hint[:place] + sign + hint[place + 1 :], hint[:place] + sign + hint[place:]):
                    for text in (told, f":{told}", f"{told} x="):
                        assert native.may_hold_credentials(text) == may_hold_credentials(text), text


def ended(reason: str, url: str) -> Webhook:
    body = {"callId": "c", "requestType": "callStatus", "callStatus": "failed"}
    body |= {"callEndedReason": reason, "recordingUrl": url}
    return Webhook("freeclimb", 1_778_576_400_000_000, json.dumps(body).encode())


def test_what_is_read_is_what_python_reads_and_seldom_asked_of_it() -> None:
    dice = random.Random(2)
    told = list(texts(dice, 4_000))
    webhooks = [ended(dice.choice(told), dice.choice(told)) for _ in told]
    asked: list[str] = []

    def seen(text: str) -> str:
        asked.append(text)
        return without_credentials(text, OWN)

    events, left = native.Reader("freeclimb", seen, OWN).read_webhooks(webhooks)
    taken = [webhook for place, webhook in enumerate(webhooks) if place not in set(left)]
    assert len(taken) > 2_000
    found = [_events(webhook) for webhook in taken]
    assert repr(events.to_python()) == repr([event for several in found for event in several])
    assert all(may_hold_credentials(text) or any(own in text for own in OWN) for text in asked)
    assert 500 < len(asked) < len(taken) * 2


def _events(webhook: Webhook) -> list[Any]:
    found = NORMALISER.events(webhook)
    assert not isinstance(found, Rejection)
    return found


def test_our_own_secrets_are_dropped_wherever_they_stand() -> None:
    clean = partial(without_credentials, own=OWN)
    line = {"provider": "freeclimb", "received_at": "2026-05-12T09:00:00.000Z"}
    webhook = ended("a our-own-secret é", "x/Own")
    told = json.dumps({**line, "body": json.loads(webhook.body)}).encode()
    for events in (
        native.Reader("freeclimb", clean, OWN).read_webhooks([webhook])[0],
        native.LineReader(["freeclimb"], clean, OWN).read(b"", told).events,
    ):
        (event,) = events.to_python()
        assert (event.failure_reason, event.recording_url) == ("a [dropped] [dropped]", "x/[dropped]")

"""The quick way of redacting makes the bytes that the plain one makes, for whatever is sent, and is the one in use."""

import itertools
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_bodies import OWN, bent, payloads, written
from planted import posts

from pipeline.archive import read_archive
from pipeline.model import Webhook
from pipeline.normalise import Normaliser, Privacy, Redactor, in_place, webhook_id
from pipeline.providers import Redacted, providers
from pipeline.simulate import generate

FIXTURES = Path(__file__).parent.parent / "fixtures"
NAMES = tuple(providers())
PRIVACIES = [
    Privacy(numbers, b"key", transcripts, region, own)
    for numbers, transcripts in itertools.product(("keep", "mask", "hmac"), ("drop", "keep"))
    for region, own in ((None, ()), ("US", OWN))
]
ANYTHING = Redacted(
    secrets=frozenset({"hush", "Hush Hush"}),
    # `transcript` means two things, and ids stand in fields that are changed.
    numbers=frozenset({"who", "to", "transcript", "id", "call"}),
    transcripts=frozenset({"from", "message", "data", "said it"}),
    no_numbers=("web-", "+"),
    ids={"who": "whoId"},
    keys=(("id",), ("message", "call", "id"), ("zz", "id"), ("x y", "hush")),
)
"""A provider that asks for what none of the five does."""


def _redactors(privacy: Privacy) -> dict[str, Redactor]:
    made = {name: Redactor(p.redacted, privacy, p.kept_headers) for name, p in providers().items()}
    return made | {"anything": Redactor(ANYTHING, privacy)}


REDACTORS = [_redactors(privacy) for privacy in PRIVACIES]


def check(provider: str, body: bytes) -> None:
    """Under every setting, when it comes for the first time and when all that is in it has come before."""
    for place, redactors in enumerate(REDACTORS):
        plain = redactors[provider].plain_body(body)
        stored = redactors[provider].body(body)
        assert stored == plain, PRIVACIES[place]
        assert (stored is body) == (plain is body), PRIVACIES[place]
        again, packed = redactors[provider].body_and_identity(body)
        assert again == plain, PRIVACIES[place]
        told_by = Webhook(provider, 1, body if PRIVACIES[place].numbers == "keep" else stored)
        assert webhook_id(told_by, packed) == webhook_id(told_by)


def _bodies(file: Path) -> list[bytes]:
    return [webhook.body for webhook in read_archive(file) if isinstance(webhook, Webhook)]


BODIES = {
    name: [body for file in sorted(FIXTURES.glob(f"{name}/*/webhooks.ndjson")) for body in _bodies(file)]
    + [post.body for post in posts() if post.provider == name]
    for name in NAMES
}
BODIES["anything"] = [body for name in NAMES for body in BODIES[name][:6]]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> list[Webhook]:
    file = tmp_path_factory.mktemp("traffic") / "webhooks.ndjson"
    file.write_bytes(b"\n".join(generate(100, seed=5, duplicates=0.05, shuffle=0.1)))
    return [webhook for webhook in read_archive(file) if isinstance(webhook, Webhook)]


def test_traffic_and_what_is_planted_are_stored_the_same_either_way(traffic: list[Webhook]) -> None:
    for webhook in traffic:
        check(webhook.provider, webhook.body)
    for name, bodies in BODIES.items():
        for body in bodies:
            check(name, body)


@pytest.mark.parametrize("place", range(len(PRIVACIES)))
def test_all_traffic_goes_the_quick_way(
    place: int, traffic: list[Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[bytes] = []
    monkeypatch.setattr(Redactor, "plain_body", lambda self, body: gone.append(body) or body)
    for webhook in traffic:
        REDACTORS[place][webhook.provider].body(webhook.body)
    assert gone == []


LENIENT = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("provider", BODIES)
@settings(LENIENT, max_examples=40)
@given(payload=payloads(), seed=st.integers(0, 2**32))
def test_any_payload_is_stored_the_same_either_way(provider: str, payload: Any, seed: int) -> None:
    check(provider, written(payload, random.Random(seed)))


@pytest.mark.parametrize("provider", BODIES)
@settings(LENIENT, max_examples=100)
@given(data=st.data())
def test_bent_bodies_are_stored_the_same_either_way(provider: str, data: st.DataObject) -> None:
    check(provider, data.draw(bent(BODIES[provider])))


@settings(LENIENT, max_examples=150)
@given(
    body=st.one_of(
        st.binary(max_size=60), st.text(alphabet='{}[]",:+01 \\ae\u00e9', max_size=60).map(str.encode)
    )
)
def test_arbitrary_bytes_are_stored_the_same_either_way(body: bytes) -> None:
    check("anything", body)


@pytest.mark.parametrize("provider", BODIES)
def test_what_was_stored_before_stays_as_it_is_spaced(provider: str) -> None:
    for name in ("transcript", "summary", "messages", "text", "from", "who"):
        for told in ('"[dropped]"', '""', "[]", "null", '"hmac:%s"' % ("0" * 64), '"+*******0123"'):
            check(provider, f'{{ "{name}": {told}, "x": 1.0 }}'.encode())


def test_a_payload_in_a_text_is_looked_at_wherever_it_stands() -> None:
    # What lies too deep in one place does not in another, so it cannot be remembered what becomes of the text.
    text = "[" * 150 + "1" + "]" * 150
    for levels in (1, 60, 1):
        check("whippy", b'{"a":' + b"[" * levels + msgspec.json.encode(text) + b"]" * levels + b"}")


def test_what_is_remembered_is_bounded_and_forgetting_changes_nothing(
    traffic: list[Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "MOST_REMEMBERED", 3_000)
    monkeypatch.setattr(in_place, "MOST_KEYS", 20)
    # A privacy decides what becomes of a text, not how much is remembered: of each way with numbers one.
    for privacy in PRIVACIES[1::4]:
        for name, redactor in _redactors(privacy).items():
            quick = redactor._quick
            for body in [w.body for w in traffic if w.provider == name]:
                assert redactor.body(body) == redactor.plain_body(body)
                texts = [*quick._clean, *quick._changed, *quick._numbers]
                assert sum(map(len, texts)) <= 3_000
                assert len(quick._meanings) <= 20
                assert quick._neutral <= quick._meanings.keys()


def test_texts_and_keys_that_are_long_are_not_remembered() -> None:
    redactor = Redactor(providers()["whippy"].redacted, Privacy("mask"))
    for text in ("x" * (in_place.LONGEST_REMEMBERED + 1), "x" * in_place.LONGEST_REMEMBERED):
        body = msgspec.json.encode({text: text, "from": text})
        assert redactor.body(body) == redactor.plain_body(body)
        assert (text in redactor._quick._clean) == (text in redactor._quick._numbers) == (len(text) % 2 == 0)
        assert text not in redactor._quick._meanings


# The identities of webhooks are in lakes: these were told before there was a quick way. Numbers kept, and masked.
PINNED = {
    ("aircall_bus", "bare_events"): ("1620caa0a43e498eeddc2bb0bd9ae0f8", "1620caa0a43e498eeddc2bb0bd9ae0f8"),
    ("freeclimb", "documented_signature"): (
        "2cace5400cd539afcf8955a95c7301d5",
        "48342448abc593434804ba871bd942eb",
    ),
    ("interactly", "documented_trio"): (
        "bf7ab18cadf08dd22b6c4d98d928a1a7",
        "deb3155ad4d7c1da2a2dabe5a455a174",
    ),
    ("recho", "documented_sample"): ("b7ae02bc0a422f7ee2b096236480e2ca", "d5dd996af4717a06d05fcd5d98b4ba0e"),
    ("whippy", "documented_2024"): ("71e0f81c85fc6d85f2e060aa5c705b86", "b32a71b5445d63037518d0baf64a7225"),
}


@pytest.mark.parametrize(("provider", "case"), PINNED)
def test_identities_of_webhooks_are_what_they_always_were(provider: str, case: str) -> None:
    received = list(read_archive(FIXTURES / provider / case / "webhooks.ndjson"))[-1]
    assert isinstance(received, Webhook)
    told = [
        Normaliser(providers(), Privacy(numbers, b"key")).stored(received) for numbers in ("keep", "mask")
    ]
    assert tuple(stored.webhook_id for stored in told) == PINNED[provider, case]


def test_what_was_found_for_the_events_of_a_webhook_is_stored_of_no_other(traffic: list[Webhook]) -> None:
    normaliser, storing_only = (Normaliser(providers(), Privacy("mask")) for _ in range(2))
    for one, other in itertools.pairwise(traffic[:200]):
        normaliser.events(one)
        for webhook in (other, one, msgspec.structs.replace(one, received_us=7)):
            assert normaliser.stored(webhook) == storing_only.stored(webhook)

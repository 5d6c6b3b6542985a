"""Single values, texts and webhooks as they may be stored."""

import hashlib
import hmac
import json

import pytest

from pipeline.model import Webhook
from pipeline.normalise import Normaliser, Privacy
from pipeline.normalise.credentials import without_credentials
from pipeline.providers import providers

TOKEN, NUMBER, SAID, KEY = ("tok3n-of-theirs", "+14155550123", "we-said-this", "k3y")


def hashed(number: str) -> str:
    """What stands for a number under the setting `hmac`."""
    return "hmac:" + hmac.new(KEY.encode(), number.encode(), hashlib.sha256).hexdigest()


MASKED, HASHED = Privacy("mask"), Privacy("hmac", KEY.encode())


@pytest.mark.parametrize(
    "written",
    [
        "+13232139334",
        "+1 (323) 213-9334",
        "tel:+1-323-213-9334",
        "TEL:+13232139334;ext=5",
        "+1 323 213 9334 ext 5",
        "sip:+13232139334@pbx.example:5060",
        "<sips:+13232139334:pw@h;user=phone>",
        "\uff0b\uff11\uff13\uff12\uff13\uff12\uff11\uff13\uff19\uff13\uff13\uff14",
    ],
)
def test_one_number_has_one_hash_and_one_ending_however_it_is_written(written: str) -> None:
    assert HASHED.number(written) == hashed("+13232139334")
    masked = MASKED.number(written)
    assert masked is not None
    assert masked.endswith("9334")
    assert masked.count("*") == 7
    assert not any(part in masked for part in ("323", "213", "pw"))
    for privacy in (HASHED, MASKED):
        assert privacy.number(privacy.number(written)) == privacy.number(written)


def test_a_number_without_a_country_is_hashed_by_its_digits_unless_the_region_is_told() -> None:
    for written in ("3232139334", "(323) 213-9334"):
        assert HASHED.number(written) == hashed("3232139334")
        assert HASHED._replace(region="US").number(written) == hashed("+13232139334")
    assert HASHED._replace(region="US").number("+442079460123") == hashed("+442079460123")


@pytest.mark.parametrize("name", ["Jo Doe", "sip:desk12345@a.example", "hmac:Jo", "anonymous", "client:7"])
def test_a_name_in_place_of_a_number_goes_whole(name: str) -> None:
    assert MASKED.number(name) == "*" * min(8, len(name))
    assert HASHED.number(name) == hashed(name.lower())


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call +1 (323) 213-9334 now", "call +*******9334 now"),
        ("+13232139334 2026-05-12", "+*******9334 2026-05-12"),
        ("?to=%2B13232139334&a=%2b442079460123", "?to=+*******9334&a=+********0123"),
        ("tel:3232139334, sip:+13232139334@h, sip:1001@h", "tel:******9334, sip:+*******9334@h, sip:1001@h"),
        (r"\u002b13232139334 &#43;1 323 213 9334", "+*******9334 +*******9334"),
        ("+13232139334,+442079460123", "+*******9334,+********0123"),
    ],
)
def test_numbers_in_a_text_are_masked(text: str, masked: str) -> None:
    assert MASKED.numbers_in(text) == masked
    assert MASKED.numbers_in(masked) == masked
    hidden = HASHED.numbers_in(text)
    assert hashed("+13232139334") in hidden
    assert HASHED.numbers_in(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-05T09:21:19+05:30",
        "1772702523935",
        "WC-82015760-c3bd-427d-a23b-ba9b07e4ab85",
        "CA743d55cc78e16b1f09f839117df28cfc",
        "0.0397529186108",
        "+999123456789",
        "1 + 1 = 2, 50% off: +20 %",
        "3232139334",
    ],
)
def test_what_is_no_telephone_number_stays(text: str) -> None:
    assert MASKED.numbers_in(text) == HASHED.numbers_in(text) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"https://u:{TOKEN}@x/y?token={TOKEN}&x=1", "https://[dropped]@x/y?token=[dropped]&x=1"),
        (
            f"https://x/a.wav?X-Amz-Signature={TOKEN}&sig={TOKEN}",
            "https://x/a.wav?X-Amz-Signature=[dropped]&sig=[dropped]",
        ),
        (f"Authorization: Bearer {TOKEN}, next", "Authorization: [dropped], next"),
        (f"sent bearer {TOKEN}", "sent bearer [dropped]"),
        (f"assistantServer={{secret:{TOKEN},headers:{{a:{TOKEN}}}}} rest", "assistantServer=[dropped] rest"),
        (f'{{"password": "{TOKEN}"', '{"password": [dropped]'),
        (
            "author: Jane, secretary: Jo, sig=1, key: C major",
            "author: Jane, secretary: Jo, sig=1, key: C major",
        ),
        ("https://x/a.wav?id=5&v=2", "https://x/a.wav?id=5&v=2"),
    ],
)
def test_credentials_in_a_text_are_dropped(text: str, kept: str) -> None:
    assert without_credentials(text) == kept
    assert without_credentials(kept) == kept


def test_a_secret_of_ours_is_dropped_wherever_it_stands() -> None:
    normaliser = Normaliser(providers(), Privacy(own_secrets=(TOKEN,)))
    kept = normaliser.stored(
        Webhook("freeclimb", 0, json.dumps({"callId": "c", "x": f"a{TOKEN}b"}).encode(), {}, {"k2": TOKEN})
    )
    assert json.loads(kept.webhook.body) == {"callId": "c", "x": "a[dropped]b"}
    assert kept.webhook.query == {"k2": "[dropped]"}


def test_of_the_headers_only_what_a_replay_needs_is_kept() -> None:
    normaliser = Normaliser(providers(), Privacy())
    told = {"FreeClimb-Signature": f"t=1679944186,v1={TOKEN}", "X-Any": TOKEN, "User-Agent": "FreeClimb"}
    kept = normaliser.stored(Webhook("freeclimb", 0, b"{}", told)).webhook.headers
    assert kept == {"FreeClimb-Signature": "t=1679944186", "User-Agent": "FreeClimb"}
    assert (
        normaliser.stored(
            Webhook("whippy", 0, b"{}", {"x-whippy-signature": f"t=1,s={TOKEN}"})
        ).webhook.headers
        == {}
    )


def test_ids_that_the_fold_goes_by_stay_whatever_they_look_like() -> None:
    normaliser = Normaliser(providers(), MASKED)
    body = json.dumps(
        {"requestType": "callStatus", "callId": NUMBER, "from": NUMBER, "note": NUMBER}
    ).encode()
    kept = normaliser.stored(Webhook("freeclimb", 0, body)).webhook
    assert json.loads(kept.body) == {
        "requestType": "callStatus",
        "callId": NUMBER,
        "from": "+*******0123",
        "note": "+*******0123",
    }
    (event,) = normaliser.events(kept)
    assert event.call_id == NUMBER


def test_no_id_can_be_tried_out_against_a_number() -> None:
    one, other = (
        Webhook(
            "freeclimb", 7, json.dumps({"callId": "c", "from": number, "callEndedReason": number}).encode()
        )
        for number in ("+13232139334", "+13232149334")
    )
    normaliser = Normaliser(providers(), MASKED)
    assert normaliser.stored(one).webhook_id == normaliser.stored(other).webhook_id
    assert normaliser.events(one) == normaliser.events(other)
    plain = Normaliser(providers(), Privacy())
    assert plain.stored(one).webhook_id != plain.stored(other).webhook_id


def test_a_payload_in_a_text_is_redacted_like_any_other() -> None:
    inner = json.dumps({"assistantServer": TOKEN, "messages": [SAID], "userNumber": NUMBER, "n": 1})
    kept = Normaliser(providers(), MASKED).stored(
        Webhook("interactly", 0, json.dumps({"log": inner}).encode())
    )
    assert json.loads(json.loads(kept.webhook.body)["log"]) == {
        "messages": [],
        "userNumber": "+*******0123",
        "n": 1,
    }

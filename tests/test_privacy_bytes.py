"""What may not be kept is planted everywhere and looked for in every byte that Callfold leaves behind."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted import (
    AREA,
    IN_POSTS,
    NAME,
    OURS,
    SAID,
    TOKEN,
    Post,
    lines,
    posts,
    secret_of,
    signed,
    squeezed,
    texts_in,
    traces,
)
from running import PROVIDERS, Serving, count_in, until

from pipeline.archive import read_archive
from pipeline.backfill import backfill
from pipeline.cli import main
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection
from pipeline.normalise import Normaliser
from pipeline.privacy import privacy_of
from pipeline.providers import providers
from pipeline.settings import Settings, load_settings
from pipeline.stream.messages import event_message, quarantine_message

KEY = f"{OURS}-privacy-key"
QUARANTINED = 11
"""So many of the posts are in no provider's shape, do not parse or name no call."""
COMBINATIONS = [
    (numbers, transcripts) for numbers in ("keep", "mask", "hmac") for transcripts in ("drop", "keep")
]


def environment(numbers: str, transcripts: str) -> dict[str, str]:
    """The settings of an installation with secrets."""
    told = {
        "CALLFOLD_PRIVACY_NUMBERS": numbers,
        "CALLFOLD_PRIVACY_TRANSCRIPTS": transcripts,
        "CALLFOLD_PRIVACY_KEY": KEY,
    }
    for name in PROVIDERS:
        told[f"CALLFOLD_{name.upper()}_SECRET"] = secret_of(name)
        told[f"CALLFOLD_{name.upper()}_AUTH"] = "bearer" if name in ("recho", "aircall_bus") else "signature"
    return told


def check(texts: list[tuple[str, str]], numbers: str, transcripts: str) -> None:
    """What the settings allow is there, and nothing else."""
    for never in (TOKEN, OURS):
        assert traces(iter(texts), never) == []
    whole = "\n".join(text for _, text in texts)
    said = traces(iter(texts), SAID)
    assert bool(said) == (transcripts == "keep"), said[:5]
    whole = squeezed(whole)
    if numbers == "keep":
        # The search can find them: each place is one that it looks into.
        assert [number for number in IN_POSTS if number[1:] not in whole and number[2:] not in whole] == []
        assert traces(iter(texts), NAME)
        return
    for never in (AREA, NAME):
        assert traces(iter(texts), never) == []
    assert ("hmac:" in whole) == (numbers == "hmac")


def send(program: Serving, post: Post, headers: dict[str, str]) -> int:
    """The status of the answer."""
    query = "?" + urllib.parse.urlencode(post.query) if post.query else ""
    request = urllib.request.Request(f"{program.url}/webhooks/{post.provider}{query}", post.body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


def told_by(program: Serving, path: str) -> str:
    with urllib.request.urlopen(f"{program.url}{path}", timeout=10) as answer:
        return str(answer.read(), "utf-8")


@pytest.mark.parametrize(
    ("numbers", "transcripts", "arguments"),
    [
        ("keep", "drop", ("--debug",)),
        ("mask", "drop", ()),
        ("hmac", "keep", ("--debug",)),
    ],
)
def test_nothing_that_serve_leaves_behind_holds_what_it_may_not(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    numbers: str,
    transcripts: str,
    arguments: tuple[str, ...],
) -> None:
    program = Serving(tmp_path, *arguments, **environment(numbers, transcripts))
    try:
        every = list(posts())
        for post in every:
            assert send(program, post, signed(post)) == 202, post
            refused = signed(post) | {"Authorization": f"Bearer {TOKEN}", "X-Interactly-Secret": TOKEN}
            refused |= {"X-Whippy-Signature": f"t=1,s={TOKEN}", "FreeClimb-Signature": f"t=1,v1={TOKEN}"}
            assert send(program, post, refused) == 401
        until(
            lambda: count_in(program.lake, "webhooks") == len(every), f"all stored\n{program.said()[-2000:]}"
        )
        seen = [(path, told_by(program, path)) for path in ("/metrics", "/health/live", "/health/ready")]
        assert program.stop() == 0, program.said()
    finally:
        if program.process.poll() is None:
            program.kill_all()
    assert count_in(program.lake, "quarantine") == QUARANTINED
    for form in ("html", "json"):
        period = ("--period", "2026-05-12", "--format", form)
        assert (
            main(["report", *period, "-o", str(tmp_path / f"report.{form}"), "--lake", str(program.lake)])
            == 0
        )
    check([*seen, *texts_in(tmp_path), ("output", "".join(capfd.readouterr()))], numbers, transcripts)
    assert main(["compact", "--lake", str(program.lake)]) == 0
    check([*texts_in(tmp_path), ("output", "".join(capfd.readouterr()))], numbers, transcripts)


@pytest.fixture
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the posts, in a folder that is not looked into."""
    path = tmp_path_factory.mktemp("sent") / "webhooks.ndjson"
    path.write_bytes(b"\n".join(lines()) + b"\n")
    return path


def settings_for(lake: Path, numbers: str, transcripts: str) -> Settings:
    return load_settings({"lake": lake}, environment(numbers, transcripts), None, providers())


@pytest.mark.parametrize(("numbers", "transcripts"), COMBINATIONS)
def test_nothing_that_backfill_leaves_behind_holds_what_it_may_not(
    tmp_path: Path, archive: Path, capfd: pytest.CaptureFixture[str], numbers: str, transcripts: str
) -> None:
    settings = settings_for(tmp_path / "lake", numbers, transcripts)
    done = backfill(settings, [archive])
    assert (done.webhooks, done.quarantined, done.unreadable) == (len(list(posts())), QUARANTINED, 0)
    check([*texts_in(tmp_path), ("output", "".join(capfd.readouterr()))], numbers, transcripts)


@pytest.mark.parametrize(("numbers", "transcripts"), COMBINATIONS)
def test_nothing_behind_normalising_holds_what_it_may_not(
    tmp_path: Path, archive: Path, numbers: str, transcripts: str
) -> None:
    normaliser = Normaliser(providers(), privacy_of(settings_for(tmp_path, numbers, transcripts)))

    def messages() -> Iterator[tuple[str, str]]:
        for webhook in read_archive(archive):
            found = normaliser.events(webhook)
            stored = normaliser.stored(webhook)
            if isinstance(found, Rejection):
                told = quarantine_message(StoredRejection(*stored, found))
                yield "quarantine", told.decode() + base64.b64decode(json.loads(told)["body_base64"]).decode()
                continue
            yield from (("call-events", event_message(event).decode()) for event in found)
            if numbers != "keep":
                # What is stored tells the same story, under the same ids.
                assert normaliser.events(stored.webhook) == found
            assert normaliser.stored(stored.webhook).webhook == stored.webhook

    texts = list(messages())
    for never in (
        TOKEN,
        OURS,
        *(() if numbers == "keep" else (AREA, NAME)),
        *(() if transcripts == "keep" else (SAID,)),
    ):
        assert traces(iter(texts), never) == []

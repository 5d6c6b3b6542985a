"""Lines of an archive that the compiled part takes come to the events that Python makes of them."""

import gzip
import random
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline import native
from pipeline.archive import _webhook, read_archive, read_archive_quickly
from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.normalise.credentials import without_credentials
from pipeline.normalise.policy import Privacy
from pipeline.providers import providers

pytest.importorskip("pipeline.native._native")

world = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent.parent / "assemble" / "world.py")))
NORMALISER = Normaliser(providers(), Privacy())
ENCODE = msgspec.json.Encoder().encode
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    1.5,
    "",
    " ",
    "é",
    "x" * 2000,
    [],
    {},
    {"a": 1},
    ["a"],
    "2026-03-02T10:26:15Z",
]


def reader() -> native.LineReader:
    return native.LineReader(list(providers()), partial(without_credentials, own=()))


def bent(dice: random.Random, line: dict[str, Any]) -> bytes:
    """A line with something odd in its envelope, or in its bytes; sometimes only spaced otherwise."""
    line = dict(line)
    kind = dice.randrange(9)
    if kind == 0:
        line[dice.choice(["provider", "received_at", "headers", "query", "body", "more"])] = dice.choice(ODD)
    elif kind == 1:
        line.pop(dice.choice(list(line)))
    elif kind == 2:
        line["headers"] = {name.upper(): value for name, value in (line.get("headers") or {}).items()}
        line["headers"][dice.choice(["freeclimb-signature", "FreeClimb-Signature", "X"])] = dice.choice(
            [*ODD, "t=1772431831"]
        )
    elif kind == 3:
        line["provider"] = dice.choice(list(providers()))
    elif kind == 4:
        line["received_at"] = dice.choice(
            ["2026-03-02T10:26:15", "2026-03-02 10:26:15Z", "1772431831", "1772431831000", 1772431831]
        )
    elif kind == 5:
        line["body"] = ENCODE(line["body"]).decode()
    told = ENCODE(line)
    if kind == 6:
        place = dice.randrange(len(told))
        told = told[:place] + bytes([dice.randrange(256)]) + told[place + dice.randrange(2) :]
    elif kind == 7:
        told = told.replace(b":", b" :\t").replace(b",", b" , ")
    # A line end in its middle would make two of it.
    return told.replace(b"\n", b" ") + dice.choice([b"\n", b"\r\n", b"", b"  \n"])


def read_one(reader: native.LineReader, line: bytes) -> native.Taken:
    """The line by itself; a line that is cut in two somewhere comes to the same."""
    found = reader.read(b"", line)
    cut = len(line) // 2
    again = reader.read(line[:cut], line[cut:])
    assert (again.lines, again.left, again.newest_us) == (found.lines, found.left, found.newest_us)
    assert repr(again.events.to_python()) == repr(found.events.to_python())
    assert (found.lines, found.end) == (1, len(line))
    return found


def assert_is_what_python_makes_of_it(found: native.Taken, line: bytes) -> bool:
    """Whether the line was taken."""
    if found.left:
        told = (found.left, found.webhooks, found.newest_us, len(found.events))
        assert told == ([(0, line)], 0, None, 0)
        return False
    webhook = _webhook(Path("archive"), 1, line)
    assert isinstance(webhook, Webhook), line
    events = NORMALISER.events(webhook)
    assert not isinstance(events, Rejection), line
    assert repr(found.events.to_python()) == repr(events), line
    assert (found.webhooks, found.newest_us, found.events.others) == (1, webhook.received_us, int(not events))
    return True


def test_bent_lines() -> None:
    dice, quick = random.Random(7), reader()
    lines = world.simulated(150, 31)
    taken = 0
    for _ in range(6_000):
        line = bent(dice, dice.choice(lines))
        taken += assert_is_what_python_makes_of_it(read_one(quick, line), line)
    assert 1_500 < taken < 5_500


def test_ordinary_lines_are_taken() -> None:
    lines = [ENCODE(line) for line in world.simulated(300, 32)]
    found = reader().read(b"", b"".join(line + b"\n" for line in lines))
    assert len(found.left) < 0.05 * len(lines)
    assert found.webhooks == len(lines) - len(found.left)
    left = [b"\n", b" \n", b"{}\n", b"\xff\n"]
    assert reader().read(b"", b"".join(left)).left == list(enumerate(left))


def test_it_does_not_matter_where_the_body_of_a_line_stands() -> None:
    lines = world.simulated(300, 32)
    dice = random.Random(3)

    def found(order: Callable[[list[Any]], Any]) -> native.Taken:
        told = [{**line, "headers": {"x": "y"}, "more": [1, {"a": "b"}]} for line in lines]
        return reader().read(b"", b"".join(ENCODE(dict(order(list(line.items())))) + b"\n" for line in told))

    meant = found(lambda fields: sorted(fields, key=lambda field: field[0] == "body"))
    for order in (sorted, lambda fields: dice.sample(fields, len(fields))):
        other = found(order)
        assert repr(other.events.to_python()) == repr(meant.events.to_python())
        assert [place for place, _ in other.left] == [place for place, _ in meant.left]
    assert len(meant.left) < 0.05 * len(lines)


@pytest.mark.parametrize(
    "line",
    [
        b'{"provider":"recho","received_at":"2026-03-02T10:26:15Z","body":%s},"body":{}}',
        b'{"provider":"recho","received_at":"2026-03-02T10:26:15Z","body":%s}',
        b'{"provider":"recho","received_at":"2026-03-02T10:26:15Z","body":%s}}}',
        b'{"provider":"recho","received_at":"2026-03-02T10:26:15Z","body":%s,}',
        b'{"provider":"recho","provider":"recho","received_at":"2026-03-02T10:26:15Z","body":%s}}',
        b'{"provider":"recho","received_at":"2026-03-02T10:26:15Z","headers":{"a":1]},"body":%s}}',
        b'{"provider":"recho","received_at":"2026-03-02T10:26:15Z","\x01":1,"body":%s}}',
        b'{"provider":"recho","received_at":"2026-03-02T10:26:15Z","x":'
        + b"[" * 300
        + b"]" * 300
        + b',"body":%s}}',
        b'["provider":"recho","received_at":"2026-03-02T10:26:15Z","body":%s}]',
    ],
)
def test_what_only_looks_like_a_line_with_its_body_last_is_left(line: bytes) -> None:
    body = next(line["body"] for line in world.simulated(300, 32) if line["provider"] == "recho")
    whole = line % ENCODE(body)[:-1]
    assert reader().read(b"", whole).left == [(0, whole)]


@pytest.mark.parametrize("most", [1, 3, 1_000])
def test_a_block_is_read_in_parts_and_its_unfinished_line_is_none(most: int) -> None:
    lines = [ENCODE(line) + b"\n" for line in world.simulated(20, 32)]
    block = b"".join(lines)[5:] + b'{"provider":'
    quick, start, events = reader(), 0, []
    while start < len(block) - len(b'{"provider":'):
        found = quick.read(lines[0][:5], block, start, most)
        assert 0 < found.lines <= most
        events += found.events.to_python()
        start = found.end
    whole = quick.read(lines[0][:5], block)
    assert (whole.lines, whole.end) == (len(lines), start)
    assert repr(whole.events.to_python()) == repr(events)
    assert quick.read(b"", block, start).lines == quick.read(b"", block, len(block) + 9).lines == 0
    assert quick.read(b"", b"").lines == 0


def test_texts_of_the_senders_are_cleaned() -> None:
    line = next(
        line
        for line in map(ENCODE, world.simulated(300, 33))
        if _cleaned(line, str) is not None and b'"s3Bucket":"' in line
    )
    # A text that cannot hold any is not asked about.
    assert _cleaned(line, lambda _: "[dropped]") == _cleaned(line, str)
    line = line.replace(b'"s3Bucket":"', b'"s3Bucket":"token=')
    assert _cleaned(line, lambda _: "[dropped]") == "[dropped]"

    def fails(_: str) -> str:
        raise RuntimeError("not now")

    taken = native.LineReader(list(providers()), fails).read(b"", b"x\n" + line + b"\n")
    assert (taken.left, taken.webhooks, len(taken.events)) == ([(0, b"x\n"), (1, line + b"\n")], 0, 0)


def _cleaned(line: bytes, clean: Callable[[str], str]) -> str | None:
    found = native.LineReader(list(providers()), clean).read(b"", line).events.to_python()
    return found[0].recording_url if found else None


@pytest.mark.parametrize("most", [1, 7, 1_000])
def test_a_file_gives_the_same_webhooks_and_complaints(tmp_path: Path, most: int) -> None:
    dice = random.Random(most)
    lines = world.simulated(60, 34)
    told = [bent(dice, line) if dice.random() < 0.3 else ENCODE(line) + b"\n" for line in lines]
    file = tmp_path / "webhooks.ndjson"
    file.write_bytes(b"\n".join(part.rstrip(b"\r\n").replace(b"\n", b" ") for part in told) + b"\n\n \nx")
    meant = list(read_archive(file))
    advanced: list[int] = []
    found = list(read_archive_quickly(file, reader(), lambda: most, advanced.append))
    events, plain, complaints = [], 0, []
    for one in found:
        if isinstance(one, native.Taken):
            assert one.webhooks + len(one.left) <= most
            events += one.events.to_python()
            plain += one.webhooks
        elif isinstance(one, Webhook):
            plain += 1
            events += _events(one)
        else:
            complaints.append(one)
    webhooks = [one for one in meant if isinstance(one, Webhook)]
    assert plain == len(webhooks)
    assert complaints == [one for one in meant if not isinstance(one, Webhook)]
    assert sorted(map(repr, events)) == sorted(repr(event) for one in webhooks for event in _events(one))
    assert advanced[-1] == file.stat().st_size
    assert advanced == sorted(advanced)


def _events(webhook: Webhook) -> list[Any]:
    found = NORMALISER.events(webhook)
    return [] if isinstance(found, Rejection) else found


def test_what_could_be_read_of_a_cut_off_file_counts(tmp_path: Path) -> None:
    lines = [ENCODE(line) for line in world.simulated(300, 32)]
    file = tmp_path / "webhooks.ndjson.gz"
    whole = gzip.compress(b"\n".join(lines))
    file.write_bytes(whole[: len(whole) // 2])
    meant = list(read_archive(file))
    found = list(read_archive_quickly(file, reader(), lambda: 1_000))
    assert found[-1] == meant[-1]
    read = sum(one.webhooks if isinstance(one, native.Taken) else isinstance(one, Webhook) for one in found)
    assert read == len(meant) - 1 > 10

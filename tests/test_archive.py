"""Webhook archives: compressed, cut off, out of order, repeated, and with lines that are none."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from running import count_in

from pipeline.archive import UnreadableLine, read_archive
from pipeline.backfill import Summary, backfill
from pipeline.model import Webhook
from pipeline.providers import providers
from pipeline.query.views import connect
from pipeline.settings import Settings, load_settings

AT = "2026-05-12T09:00:00.000Z"
AT_US = 1_778_576_400_000_000


def line(body: Any = None, **fields: Any) -> dict[str, Any]:
    body = {"requestType": "callStatus", "callId": "c1", "callStatus": "busy"} if body is None else body
    return {"provider": "freeclimb", "received_at": AT, "body": body, **fields}


def text(*lines: Any) -> bytes:
    return b"".join(
        (item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in lines
    )


def written(folder: Path, content: bytes, name: str = "a.ndjson") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(path: Path) -> tuple[list[Webhook], list[UnreadableLine]]:
    found = list(read_archive(path))
    return [x for x in found if isinstance(x, Webhook)], [x for x in found if isinstance(x, UnreadableLine)]


def filled(folder: Path, *archives: bytes, **options: Any) -> tuple[Settings, Summary]:
    files = [written(folder, content, f"{n}.ndjson") for n, content in enumerate(archives)]
    settings = load_settings({"lake": folder / "lake", **options}, {}, None, providers())
    return settings, backfill(settings, files)


def counts(settings: Settings, *views: str) -> list[int]:
    return [count_in(settings.lake, view) for view in views]


MANY = text(*(line({"callId": f"{i:05}-{i * 2654435761 % 2**32}"}) for i in range(3000)))
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".ndjson": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.mark.parametrize("suffix", PACK)
def test_an_archive_is_read_whole_whatever_it_is_packed_in(tmp_path: Path, suffix: str) -> None:
    pack = PACK[suffix]
    webhooks, unreadable = read(written(tmp_path, pack(MANY), "a" + suffix))
    assert (len(webhooks), unreadable) == (3000, [])
    webhooks, unreadable = read(written(tmp_path, pack(MANY) + pack(text(line())), "b" + suffix))
    assert (len(webhooks), unreadable) == (3001, [])
    assert read(written(tmp_path, pack(b""), "empty" + suffix)) == ([], [])
    assert len(read(written(tmp_path, pack(text(line()).rstrip()), "no-newline" + suffix))[0]) == 1


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [0.002, 0.3, 0.5, 0.9, 0.9999])
def test_of_a_cut_off_file_what_can_be_read_counts_and_the_cut_is_told(
    tmp_path: Path, suffix: str, kept: float
) -> None:
    packed = PACK[suffix](MANY)
    path = written(tmp_path, packed[: max(1, int(len(packed) * kept))], "a" + suffix)
    webhooks, unreadable = read(path)
    assert len(webhooks) <= 3000
    assert unreadable
    assert unreadable[-1].file == path
    assert unreadable[-1].line >= len(webhooks) + 1
    assert str(unreadable[-1]).startswith(f"{path}:{unreadable[-1].line}: ")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_or_misnamed_file_is_told_and_not_fatal(tmp_path: Path, suffix: str) -> None:
    packed = bytearray(PACK[suffix](MANY))
    for place in range(len(packed) // 2, len(packed) // 2 + 40):
        packed[place] ^= 0x5A
    for content in (bytes(packed), MANY):
        _, unreadable = read(written(tmp_path, content, "a" + suffix))
        assert unreadable


def test_a_cut_off_last_line_is_told_and_the_others_count(tmp_path: Path) -> None:
    path = written(tmp_path, text(line(), line())[:-20])
    webhooks, unreadable = read(path)
    assert len(webhooks) == 1
    assert [(u.file, u.line) for u in unreadable] == [(path, 2)]


def test_unreadable_lines_are_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        json.dumps(line(received_at=None)).encode(),
        json.dumps(line(received_at="1066-10-14T00:00:00Z")).encode(),
        json.dumps(line(received_at="soon")).encode(),
        json.dumps(line(provider=5)).encode(),
        b'{"received_at": "2026-05-12T09:00:00Z", "body": {}}',
        b'{"provider": "freeclimb", "received_at": "2026-05-12T09:00:00Z"}',
        b'{"provider": 5, "received_at": "2026-05-12T09:00:00Z", "body": "\\ud800"}',
        b'{"provider": "freeclimb", "received_at": "2026-05-12T09:00:00Z", "body": '
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}",
    ]
    mixed = [
        item
        for pair in zip(bad, [line({"callId": f"c{i}"}) for i in range(len(bad))], strict=True)
        for item in pair
    ]
    settings, summary = filled(tmp_path, text(*mixed))
    assert (summary.webhooks, summary.unreadable, summary.open_calls) == (len(bad), len(bad), len(bad))
    complaints = capsys.readouterr().err.splitlines()
    assert [c.split(": ")[0] for c in complaints] == [
        f"{tmp_path / '0.ndjson'}:{n}" for n in range(1, 2 * len(bad), 2)
    ]
    assert counts(settings, "webhooks") == [len(bad)]


def test_many_unreadable_lines_are_counted_and_not_all_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, summary = filled(tmp_path, b"x\n" * 500)
    assert summary.unreadable == 500
    assert len(capsys.readouterr().err.splitlines()) < 30


def test_blank_lines_and_a_byte_order_mark_are_nothing(tmp_path: Path) -> None:
    webhooks, unreadable = read(written(tmp_path, b"\xef\xbb\xbf" + text(line(), b"", b"  ", line())))
    assert (len(webhooks), unreadable) == (2, [])


def test_headers_and_query_may_be_missing_or_odd(tmp_path: Path) -> None:
    lines = [
        line(),
        line(headers=None, query=None),
        line(headers=[1], query="x"),
        line(headers={"FreeClimb-Signature": "t=1", "n": 5, "l": []}, query={"agent_id": 9}),
    ]
    webhooks, _ = read(written(tmp_path, text(*lines)))
    assert [(w.headers, w.query) for w in webhooks] == [({}, {})] * 3 + [
        ({"freeclimb-signature": "t=1", "n": "5"}, {"agent_id": "9"})
    ]


def test_a_body_may_be_the_raw_text(tmp_path: Path) -> None:
    raw = ' {"callId": "c1",\n "x": "é"} '
    webhooks, _ = read(
        written(
            tmp_path,
            text(
                line(raw),
                line("not json"),
                line(""),
                line(7),
                line([1]),
                b'{"provider":"freeclimb","received_at":1778576400000,"body":null}',
            ),
        )
    )
    assert [w.body for w in webhooks] == [raw.encode(), b"not json", b"", b"7", b"[1]", b"null"]
    assert {w.received_us for w in webhooks} == {AT_US}


def test_lone_surrogates_anywhere_in_a_line_reach_the_lake(tmp_path: Path) -> None:
    odd = rb'{"provider":"freeclimb","received_at":1778576400000,"headers":{"a":"\ud800"},"query":{"a":"\udc00"},'
    odd += rb'"body":{"callId":"\ud800"}}'
    text_body = rb'{"provider":"free\ud800climb","received_at":1778576400000,"body":"\ud800"}'
    settings, summary = filled(tmp_path, text(odd, text_body))
    assert (summary.unreadable, summary.quarantined, summary.open_calls) == (0, 1, 1)
    assert counts(settings, "webhooks") == [2]


def test_the_same_line_twice_is_one_webhook_quarantined_or_not(tmp_path: Path) -> None:
    good, bad, broken = line(), line({"requestType": "callStatus"}), line("{not json")
    spaced = json.dumps(line(), indent=None, separators=(" , ", " :  ")).encode()
    once = text(good, bad, broken)
    settings, summary = filled(tmp_path, once + once + text(spaced), once)
    assert (summary.webhooks, summary.unreadable) == (10, 0)
    assert counts(settings, "webhooks", "quarantine", "call_events", "calls") == [
        3,
        2,
        1,
        1,
    ]
    backfill(settings, [tmp_path / "0.ndjson"])
    assert counts(settings, "webhooks", "quarantine", "call_events", "calls") == [
        3,
        2,
        1,
        1,
    ]


def test_two_receipts_of_one_event_are_two_webhooks_and_one_event(tmp_path: Path) -> None:
    settings, _ = filled(tmp_path, text(line(), line(received_at="2026-05-12T09:00:01.000Z")))
    assert counts(settings, "webhooks", "call_events", "calls") == [2, 1, 1]


def test_lines_may_come_in_any_order_and_from_several_files(tmp_path: Path) -> None:
    def status(word: str, second: int) -> bytes:
        body = {
            "message": {
                "type": "status-update",
                "timestamp": 1_778_576_400_000 + second * 1000,
                "call": {"id": "c1", "status": word},
            }
        }
        return text({"provider": "interactly", "received_at": f"2026-05-12T09:00:{second:02}Z", "body": body})

    settings, _ = filled(tmp_path, status("finished", 30) + status("queued", 0), status("ongoing", 10))
    with connect(settings.lake) as lake:
        found = lake.sql("select outcome, talk_seconds, event_count, revision from calls").fetchall()
    assert found == [("completed", 20.0, 3, 3)]


def test_the_archive_of_webhooks_can_be_left_out(tmp_path: Path) -> None:
    settings, _ = filled(tmp_path, text(line(), line("broken")), **{"archive.webhooks": "false"})
    assert counts(settings, "webhooks", "quarantine", "calls") == [0, 1, 1]


def test_an_absurd_duration_is_a_row_and_not_a_crash(tmp_path: Path) -> None:
    body = {
        "requestType": "callStatus",
        "callId": "c1",
        "callStatus": "completed",
        "callDuration": "999999999999999",
    }
    settings, summary = filled(tmp_path, text(line(body)))
    assert summary.records == 1
    with connect(settings.lake) as lake:
        assert lake.sql("select started_at, reported_seconds from calls").fetchall() == [
            (None, 999_999_999_999_999.0)
        ]

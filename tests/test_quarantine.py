"""What is in quarantine can be counted, listed and looked at, and whatever was sent does no harm in a terminal."""

import base64
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.cli import main
from pipeline.lake import LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, RejectionCode, Webhook
from pipeline.model.rejection import DEEPEST, MEANINGS
from pipeline.open_lake import open_lake
from pipeline.query.bodies import harmless, harmless_line, shown_body
from pipeline.stream.messages import quarantine_message

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

BODIES: list[tuple[str, str, Any]] = [
    ("recho", "2026-05-12T09:00:00Z", ""),
    ("recho", "2026-05-12T09:00:01Z", "not json \x1b[31mred\x1b[0m \u202e\n\tsecond line"),
    ("whippy", "2026-05-12T09:00:02Z", {"event": "call.ended", "data": {}}),
    ("whippy", "2026-05-12T09:00:03Z", {"event": "call.ended"}),
    ("whippy", "2026-05-13T09:00:04Z", {"event": "call.started", "note": "\x9b31m"}),
    ("nobody\x1b]0;x\x07", "2026-05-13T09:00:05Z", {"a": 1}),
    ("freeclimb", "2026-05-14T09:00:06Z", "[" * (DEEPEST + 1)),
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command line and gives its exit code and what it printed."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a handful of webhooks that nobody understands; to be read only."""
    folder = tmp_path_factory.mktemp("quarantine")
    lines = [
        {
            "provider": provider,
            "received_at": received_at,
            "headers": {"content-type": "text/x\x1b[2J"},
            "query": {"agent_id": "4"},
            "body": body,
        }
        for provider, received_at, body in BODIES
    ]
    archive = folder / "webhooks.ndjson"
    archive.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["backfill", str(archive), "--lake", str(folder / "lake")]) == 0
    return folder / "lake"


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with nothing in it."""
    root = tmp_path_factory.mktemp("empty") / "lake"
    open_lake(root)
    return root


def listed(run: Run, lake: Path, *options: str) -> list[dict[str, Any]]:
    code, out, _ = run("quarantine", "list", "--format", "json", "--lake", lake, *options)
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_every_code_has_its_meaning_and_the_readme_says_the_same() -> None:
    assert list(MEANINGS) == list(get_args(RejectionCode))
    section = README.partition("\n## Quarantine and replay\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    told = {cells[0].strip(" `"): tuple(cell.strip() for cell in cells[1:]) for cells in rows}
    assert told == {code: tuple(meaning) for code, meaning in MEANINGS.items()}


def test_the_summary_says_how_many_of_what_and_what_mends_it(run: Run, lake: Path) -> None:
    code, out, err = run("quarantine", "--lake", lake)
    assert (code, err) == (0, "")
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert table[0] == [
        "provider", "stage", "code", "field", "webhooks", "first_received", "last_received", "example",
    ]  # fmt: skip
    assert [row[:-1] for row in table[1:]] == [
        [
            "whippy", "normalise", "bad_shape", "data", "2",
            "2026-05-12T09:00:03Z", "2026-05-13T09:00:04Z",
        ],
        *(
            [provider, "normalise", why, field, "1", at, at]
            for provider, why, field, at in (
                ("freeclimb", "too_deep", "", "2026-05-14T09:00:06Z"),
                (r"nobody\u001b]0;x\u0007", "unknown_provider", "provider", "2026-05-13T09:00:05Z"),
                ("recho", "empty_body", "", "2026-05-12T09:00:00Z"),
                ("recho", "not_json", "", "2026-05-12T09:00:01Z"),
                ("whippy", "missing_field", "data.id", "2026-05-12T09:00:02Z"),
            )
        ),
    ]  # fmt: skip
    for found in {row[2] for row in table[1:]}:
        means, remedy = MEANINGS[found]  # type: ignore[index]
        assert f"{found}: {means}\n  -> {remedy}\n" in out
    assert f"callfold quarantine show {table[1][-1]}" in out
    assert not ACTING.search(out)


def test_a_list_is_newest_first_and_may_be_narrowed_down(run: Run, lake: Path) -> None:
    rows = listed(run, lake)
    assert [row["received_at"][:19] + "Z" for row in rows] == sorted(
        (at for _, at, _ in BODIES), reverse=True
    )
    assert list(rows[0]) == ["webhook_id", "received_at", "provider", "stage", "code", "field", "message"]
    assert {row["provider"] for row in rows} == {provider for provider, _, _ in BODIES}, (
        "JSON has them as they are"
    )

    def seconds(*options: str) -> list[str]:
        return [row["received_at"][17:19] for row in listed(run, lake, *options)]

    assert seconds("--provider", "recho") == ["01", "00"]
    assert seconds("--provider", "recho", "--provider", "freeclimb") == ["06", "01", "00"]
    assert seconds("--code", "bad_shape", "--code", "not_json") == ["04", "03", "01"]
    assert seconds("--provider", "whippy", "--code", "bad_shape", "--to", "2026-05-12") == ["03"]
    assert seconds("--from", "2026-05-13") == ["06", "05", "04"]
    assert seconds("--from", "2026-05-13", "--to", "2026-05-13") == ["05", "04"]
    assert seconds("--limit", "2") == ["06", "05"]
    assert seconds("--provider", "nobody") == []


def test_a_list_that_is_cut_says_so(run: Run, lake: Path) -> None:
    _, _, err = run("quarantine", "list", "--limit", 2, "--lake", lake)
    assert err == "the newest 2 of 7; --limit N gives more\n"
    assert run("quarantine", "list", "--limit", 7, "--lake", lake)[2] == ""


@pytest.mark.parametrize("action", ["summary", "list"])
def test_csv_and_json_say_the_same(run: Run, lake: Path, action: str) -> None:
    told = json.loads(run("quarantine", action, "--format", "json", "--lake", lake)[1])
    out = run("quarantine", action, "--format", "csv", "--lake", lake)[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    spelt = [{name: "" if v is None else harmless(str(v)) for name, v in row.items()} for row in told]
    assert rows == spelt
    assert len({len(row.get("webhook_id") or row["example"]) for row in rows} ^ {32}) == 0
    assert not ACTING.search(out)


def test_one_is_shown_whole(run: Run, lake: Path) -> None:
    (row,) = listed(run, lake, "--code", "not_json")
    code, out, err = run("quarantine", "show", row["webhook_id"][:10], "--lake", lake)
    assert (code, err) == (0, "")
    means, remedy = MEANINGS["not_json"]
    assert out.splitlines() == [
        f"webhook_id   {row['webhook_id']}",
        "received_at  2026-05-12T09:00:01.000000Z",
        "provider     recho",
        "stage        normalise",
        "code         not_json",
        "field        -",
        "message      Expecting value: line 1 column 1 (char 0)",
        f"means        {means}",
        f"remedy       {remedy}",
        "",
        "headers",
        r"  content-type: text/x\u001b[2J",
        "",
        "query",
        "  agent_id: 4",
        "",
        "body, 38 bytes, text; byte offsets on the left",
        r"       0  not json \u001b[31mred\u001b[0m \u202e",
        "      26  \tsecond line",
    ]


def test_a_body_that_parses_is_shown_as_json(run: Run, lake: Path) -> None:
    row = listed(run, lake, "--from", "2026-05-13", "--provider", "whippy")[0]
    lines = run("quarantine", "show", row["webhook_id"].upper(), "--lake", lake)[1].splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("body, "))
    assert lines[place + 1 :] == ["{", '  "event": "call.started",', '  "note": "\\u009b31m"', "}"]
    assert json.loads("\n".join(lines[place + 1 :])) == BODIES[4][2]


def test_as_json_one_has_the_untouched_bytes(run: Run, lake: Path) -> None:
    for row in listed(run, lake):
        out = run("quarantine", "show", row["webhook_id"], "--format", "json", "--lake", lake)[1]
        told = json.loads(out)
        assert not ACTING.search(out)
        assert {name: told[name] for name in row} == row
        sent = next(body for _, at, body in BODIES if at[:19] == row["received_at"][:19])
        kept = base64.b64decode(told["body_base64"])
        assert (json.loads(kept) if isinstance(sent, dict) else kept.decode()) == sent
        assert (told["headers"], told["query"]) == ({"content-type": "text/x\x1b[2J"}, {"agent_id": "4"})
        assert (told["means"], told["remedy"]) == MEANINGS[row["code"]]


def test_an_id_that_there_is_not_is_one_line(run: Run, lake: Path) -> None:
    code, out, err = run("quarantine", "show", "not-an-id", "--lake", lake)
    assert (code, out) == (1, "")
    assert err == "callfold: no webhook in quarantine has an id that begins with 'not-an-id'\n"
    assert run("quarantine", "show", "%", "--lake", lake)[0] == 1


def test_an_id_that_is_not_the_only_one_is_one_line(run: Run, tmp_path: Path) -> None:
    why = Rejection("normalise", "bad_shape", None, "made up")
    stored = [StoredRejection(f"abc{n}", Webhook("recho", 10**15 + n, b"x"), why) for n in range(7)]
    LakeSink(open_lake(tmp_path / "lake")).write_quarantine(stored, 1)
    code, out, err = run("quarantine", "show", "abc", "--lake", tmp_path / "lake")
    assert (code, out) == (1, "")
    assert err == "callfold: 7 ids begin with 'abc': abc0, abc1, abc2, abc3, abc4, …\n"
    assert run("quarantine", "show", "abc3", "--lake", tmp_path / "lake")[0] == 0


@pytest.mark.parametrize(
    "command", [["quarantine"], ["quarantine", "list"], ["replay"], ["replay", "--dry-run"]]
)
def test_where_nothing_is_quarantined_that_is_said(
    run: Run, command: list[str], empty_lake: Path, lake: Path
) -> None:
    assert run(*command, "--lake", empty_lake) == (0, "Nothing is in quarantine.\n", "")
    unmatched = (0, "Nothing in quarantine matches.\n", "")
    assert run(*command, "--provider", "aircall_bus", "--lake", lake) == unmatched


@pytest.mark.parametrize("action", ["summary", "list"])
def test_where_nothing_is_quarantined_a_script_gets_no_rows(run: Run, action: str, empty_lake: Path) -> None:
    assert run("quarantine", action, "--format", "json", "--lake", empty_lake)[1] == "[]\n"
    assert run("quarantine", action, "--format", "csv", "--lake", empty_lake)[1].count("\n") == 1


@pytest.mark.parametrize(
    "command", [["quarantine"], ["quarantine", "list"], ["quarantine", "show", "ab"], ["replay"]]
)
def test_where_there_is_no_lake_it_is_as_for_a_query(run: Run, command: list[str], tmp_path: Path) -> None:
    asked = run("query", "select 1", "--lake", tmp_path / "nowhere")
    assert asked[0] == 2
    assert run(*command, "--lake", tmp_path / "nowhere") == asked
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["quarantine", "show"], "WEBHOOK_ID"),
        (["quarantine", "list", "ab12"], "list takes no id"),
        (["quarantine", "ab12"], "'ab12' is not one of"),
        (["quarantine", "--limit", "3"], "--limit is for list"),
        (["quarantine", "list", "--limit", "0"], "not in the range"),
        (["quarantine", "show", "ab", "--code", "not_json"], "show takes no filter"),
        (["quarantine", "show", "ab", "--format", "csv"], "no --format csv"),
        (["quarantine", "--code", "nosuch"], "there is no code 'nosuch'; the codes are empty_body"),
        (["replay", "--code", "nosuch"], "there is no code 'nosuch'"),
        (["replay", "--from", "2026-05-12", "--to", "2026-05-11"], "--to is before --from"),
        (["quarantine", "--from", "yesterday"], "does not match the format"),
    ],
)  # fmt: skip
def test_wrong_use_is_told_in_one_line(run: Run, arguments: list[str], says: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_a_replay_shows_what_became_of_each(run: Run, lake: Path) -> None:
    code, out, err = run("replay", "--dry-run", "--provider", "whippy", "--lake", lake)
    assert (code, err) == (0, "")
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert table == [
        ["provider", "code", "now", "field", "webhooks", "events"],
        ["whippy", "bad_shape", "bad_shape", "data", "2", "0"],
        ["whippy", "missing_field", "missing_field", "data.id", "1", "0"],
    ]
    assert out.splitlines()[-1] == (
        "dry run: 0 of 3 webhooks would leave the quarantine as 0 events, 3 would stay; nothing was changed"
    )


def test_a_code_of_another_version_is_shown_all_the_same(run: Run, tmp_path: Path) -> None:
    why = Rejection("normalise", "invented_later", None, "made up")  # type: ignore[arg-type]
    stored = StoredRejection("ab12", Webhook("recho", 10**15, b"x"), why)
    LakeSink(open_lake(tmp_path / "lake")).write_quarantine([stored], 1)
    for command in (
        ["quarantine"],
        ["quarantine", "list"],
        ["quarantine", "show", "ab"],
        ["replay", "--dry-run"],
    ):
        code, out, _ = run(*command, "--lake", tmp_path / "lake")
        assert (code, "invented_later" in out) == (0, True)


@pytest.mark.parametrize("code", list(MEANINGS))
def test_a_message_of_the_topic_has_the_columns_of_the_view(code: Any, run: Run, tmp_path: Path) -> None:
    stored = StoredRejection(
        "ab12", Webhook("recho", 10**15, b"\xff"), Rejection("normalise", code, "a.b", "made up")
    )
    LakeSink(open_lake(tmp_path / "lake")).write_quarantine([stored], 1)
    told = json.loads(quarantine_message(stored))
    shown = json.loads(run("quarantine", "show", "ab12", "--format", "json", "--lake", tmp_path / "lake")[1])
    assert {name: shown[name] for name in told} == told


@pytest.mark.parametrize(
    ("body", "kind", "lines"),
    [
        (b"", "empty", []),
        (b'{"a":[1,2]}', "JSON", ["{", '  "a": [', "    1,", "    2", "  ]", "}"]),
        (b'{"a": NaN}', "JSON", ["{", '  "a": null', "}"]),
        ('{"a": 1}'.encode("utf-16"), "JSON", ["{", '  "a": 1', "}"]),
        (b'"\xc2\x9b"', "JSON", [r'"\u009b"']),
        ("ü\r\nb\r".encode(), "text; byte offsets on the left", [r"       0  ü\u000d", r"       4  b\u000d"]),
        (
            b"\xff" + bytes(range(48, 64)) + b"\x1b",
            "not UTF-8; offset, bytes, ASCII",
            [
                "       0  ff 30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d 3e  .0123456789:;<=>",
                "      16  3f 1b                                            ?.",
            ],
        ),
    ],
)
def test_a_body_is_shown_as_what_it_is(body: bytes, kind: str, lines: list[str]) -> None:
    told, shown = shown_body(body)
    assert (told, list(shown)) == (kind, lines)


@pytest.mark.parametrize("sign", ["[", '{"a":'])
def test_a_body_that_is_too_deep_is_shown_as_text(sign: str) -> None:
    kind, lines = shown_body(sign.encode() * 100_000)
    assert kind.startswith("text")
    assert list(lines) == ["       0  " + sign * 100_000]


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    everything = "".join(map(chr, range(0x3000)))
    assert not ACTING.search(harmless(everything))
    assert "\n" not in harmless_line(everything)
    assert harmless("a\tb\nÜ €") == "a\tb\nÜ €"
    assert json.loads(harmless(json.dumps(everything, ensure_ascii=False))) == everything

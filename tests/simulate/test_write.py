"""What `callfold simulate` writes: files that appear whole, compressed by name, with the truth beside them."""

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from pipeline.errors import UserError
from pipeline.simulate import Disturbance, generate, truth, write


def test_archive_and_truth_belong_together(tmp_path: Path) -> None:
    out, true = tmp_path / "w.ndjson", tmp_path / "t.ndjson"
    written = write(40, 3, out=out, truth=true, disturbance=Disturbance(0.1, 0.1, 0.1, 0.1))
    lines = out.read_bytes().splitlines()
    assert lines == list(generate(40, 3, duplicates=0.1, shuffle=0.1, late=0.1, lose=0.1))
    records = [msgspec.json.decode(line) for line in true.read_bytes().splitlines()]
    assert records == truth(msgspec.json.decode(line) for line in lines)
    assert (written.webhooks, written.records, written.sent) == (len(lines), len(records), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.ndjson", "w.ndjson"]


def test_names_say_how_to_compress_and_the_bytes_stay_the_same(tmp_path: Path) -> None:
    plain = b"".join(line + b"\n" for line in generate(10, 3))
    write(10, 3, out=tmp_path / "a.ndjson.gz")
    write(10, 3, out=tmp_path / "b.ndjson.gz")
    assert (tmp_path / "a.ndjson.gz").read_bytes() == (tmp_path / "b.ndjson.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.ndjson.gz").read_bytes()) == plain
    write(10, 3, out=tmp_path / "c.ndjson.zst")
    with (tmp_path / "c.ndjson.zst").open("rb") as file:
        assert zstandard.ZstdDecompressor().stream_reader(file).read() == plain


def test_without_a_file_the_lines_are_printed(capfdbinary: Any) -> None:
    ticks: list[int] = []
    written = write(5, 3, progress=ticks.append)
    assert capfdbinary.readouterr().out == b"".join(line + b"\n" for line in generate(5, 3))
    assert sum(ticks) == written.webhooks


def test_a_file_that_cannot_be_written_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write(5, 3, out=tmp_path / "missing" / "w.ndjson")
    assert list(tmp_path.iterdir()) == []

"""Writes simulated webhooks and their truth to files that appear whole, to standard output, or to a collector."""

import asyncio
import contextlib
import gzip
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BufferedWriter
from pathlib import Path
from typing import IO, Any

import msgspec
import zstandard

from pipeline.errors import UserError
from pipeline.simulate.send import Sent, send
from pipeline.simulate.traffic import MONDAY, Disturbance, generate
from pipeline.simulate.truth import truth as true_records


class Written(msgspec.Struct, frozen=True):
    """What was written: webhooks in the archive, true call records, and what the collector answered."""

    webhooks: int
    records: int | None
    sent: Sent | None


def write(
    calls: int,
    seed: int,
    out: Path | None = None,
    truth: Path | None = None,
    url: str | None = None,
    disturbance: Disturbance | None = None,
    start: datetime = MONDAY,
    days: float | None = None,
    idle_seconds: float = 14400,
    concurrency: int = 16,
    headers: dict[str, dict[str, str]] | None = None,
    progress: Callable[[int], None] = lambda webhooks: None,
) -> Written:
    """Simulates once for every destination: the archive, its truth, and the collector at `url`.

    Without `out` and `url` the lines go to standard output. Names ending in .gz and .zst are compressed. `progress`
    gets the number of webhooks done since it was last called. Raises `UserError` if a file cannot be written and
    `DestinationUnavailable` if the collector cannot be reached.
    """
    kinds = disturbance or Disturbance()

    def lines() -> Iterator[bytes]:
        return generate(calls, seed, start, days, *kinds)

    count = 0
    records: int | None = None
    sent: Sent | None = None
    if out is not None or url is None or truth is not None:
        count, records = _write_files(lines(), out, truth, url is None, idle_seconds, progress)
    if url is not None:
        sent = asyncio.run(send(lines(), url, concurrency, progress, headers))
        count = count or sent.posted
    return Written(count, records, sent)


def _write_files(
    lines: Iterator[bytes],
    out: Path | None,
    truth: Path | None,
    to_stdout: bool,
    idle_seconds: float,
    progress: Callable[[int], None],
) -> tuple[int, int | None]:
    """One pass: every line is written, and read by the oracle if its truth is wanted."""
    count = 0
    with contextlib.ExitStack() as stack:
        target: IO[bytes] | None = sys.stdout.buffer if to_stdout else None
        if out is not None:
            target = stack.enter_context(whole_file(out))

        def webhooks() -> Iterator[dict[str, Any]]:
            nonlocal count
            for line in lines:
                count += 1
                if target is not None:
                    target.write(line)
                    target.write(b"\n")
                progress(1)
                yield msgspec.json.decode(line) if truth is not None else {}

        if truth is None:
            for _ in webhooks():
                pass
            return count, None
        records = true_records(webhooks(), idle_seconds)
        with whole_file(truth) as file:
            file.writelines(msgspec.json.encode(record) + b"\n" for record in records)
        return count, len(records)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file for writing that takes its name only once it is complete; compressed if its name says so."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as raw, _compressed(path.suffix, raw) as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _compressed(suffix: str, raw: BufferedWriter) -> contextlib.AbstractContextManager[IO[bytes]]:
    if suffix == ".gz":
        # No name and no time in the header: the same webhooks are the same file.
        return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0)  # type: ignore[return-value]
    if suffix == ".zst":
        return zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False)
    return contextlib.nullcontext(raw)

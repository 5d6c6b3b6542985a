"""The proof that something is forgotten: every file below the lake is read once more, and searched for it.

It takes no notice of what was erased, of datasets or manifests: whatever stands below the lake's folder counts.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.forget_find import named, traced
from pipeline.lake import Lake
from pipeline.lake.erase import BATCH_ROWS
from pipeline.lake.forgotten import FOLDER
from pipeline.storage.store import parquet_source
from pipeline.traces import Traces


class Proof(NamedTuple):
    """What a search of everything came to."""

    scanned: Counter[str]
    """Files by the folder below the lake that they are in."""
    traces: Counter[str]
    """Rows, or whole files that are not Parquet, in which something was found, by file."""
    unreadable: list[str]
    """Files that could not be searched."""

    @property
    def files(self) -> int:
        """Files searched."""
        return self.scanned.total()

    @property
    def left(self) -> int:
        """Traces left; a file that could not be searched counts as one."""
        return self.traces.total() + len(self.unreadable)


def prove(lake: Lake, traces: Traces, gone: frozenset[int]) -> Proof:
    """Searches every file of the lake for the traces, and for rows of what is forgotten."""
    proof = Proof(Counter(), Counter(), [])
    for file in sorted(file for file in lake.root.glob("**/*") if file.is_file()):
        name = str(file.relative_to(lake.root))
        try:
            count = _in_parquet(file, traces, gone) if name.endswith(".parquet") else _in_bytes(file, traces)
        except FileNotFoundError:
            continue  # a writer's, finished meanwhile, and then listed under its own name or the next run's
        except (OSError, pa.ArrowException):
            proof.unreadable.append(name)
            continue
        proof.scanned[name.partition("/")[0] if "/" in name else "."] += 1
        if count:
            proof.traces[name] = count
    return proof


def _in_bytes(file: Path, traces: Traces) -> int:
    return int(traces.in_text(file.read_bytes()))


def _in_parquet(file: Path, traces: Traces, gone: frozenset[int]) -> int:
    if file.parent.name == FOLDER:
        return 0
    count = 0
    with parquet_source(file) as source:
        for batch in pq.ParquetFile(source).iter_batches(BATCH_ROWS):
            count += pc.sum(_rows_with(batch, traces, gone)).as_py() or 0
    return count


def _rows_with(batch: pa.RecordBatch, traces: Traces, gone: frozenset[int]) -> pa.Array:
    mask = traced(batch, traces)
    for name, column in named(batch):
        if name == "key_hash":
            mask = pc.or_(mask, pc.is_in(column, pa.array(list(gone), column.type)))
    return mask

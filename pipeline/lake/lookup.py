"""Which files of the lake may hold rows of some streams, told without reading them again.

No name in a lake ever gets other bytes, so what a file holds is learned once: of each row group, the first and last
key, and a filter over its keys (16 bits a stream, right about all that are there and wrong about one of 700 that are
not). A row group is learned when a key between its first and last is first looked for. What cannot be learned may
hold everything: DuckDB then reads it, and says what is wrong.

A hot file that this process wrote itself need not be learned: the sink says what is in it (`note`).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DestinationUnavailable
from pipeline.lake.files import SCHEMA_FILE, SEALED_ONLY, Lake, quoted, unreadable
from pipeline.lake.key_filter import Asked, KeyFilter, hashes_of
from pipeline.lake.merge import rows_of
from pipeline.lake.rows import key_hash
from pipeline.lake.sealed import current_files
from pipeline.storage.place import is_remote
from pipeline.storage.reading import listed, opened

KEY: Final = "stream_key"
NAMED_KEYS: Final = 10_000
"""Streams up to this number are named in the statement: DuckDB reads by them 2 to 5 times as fast as by a join."""
FILES_APART: Final = 64
"""Sealed files up to this number are asked each for its own keys. Of five and fifty scattered calls' events in as many
files 0.12 and 1.1 s, asked for all keys 0.2 and 2.3: by one key DuckDB reads other columns only where it is."""
AT_ONCE: Final = 16
"""Files on object storage that are asked for what they hold at a time."""
MOST_NOTED: Final = 512
"""Files of this process whose keys are known from their writing: those of a flush of 40,000 events take 16 KB."""


class _Group:
    """What is known of a row group that has keys."""

    __slots__ = ("filter", "first", "last", "number")

    def __init__(self, number: int, first: str, last: str) -> None:
        self.number, self.first, self.last = number, first, last
        self.filter: KeyFilter | None = None


def file_gone(root: Path, file: object) -> DestinationUnavailable:
    """A file that was listed is there no more: a new listing does without it."""
    return DestinationUnavailable(f"cannot read the lake at {root}: No such file: {file}")


def is_there(root: Path, file: Path) -> bool:
    """Whether there is such a file; DestinationUnavailable if there is no telling."""
    try:
        return file.exists()
    except OSError as error:
        raise unreadable(root, error) from error


class Lookup:
    """The files of one dataset, hot and sealed. Not for several threads at once, but for `note`."""

    def __init__(self, lake: Lake, dataset: str) -> None:
        self._lake, self._dataset = lake, dataset
        self._known: dict[Path, list[_Group]] = {}
        self._noted: dict[Path, KeyFilter] = {}
        self._manifests: list[Path] = []
        self._sealed: list[Path] = []

    def note(self, file: Path, hashes: Iterable[int]) -> None:
        """A file of today's schema is there, with rows of the streams of these `key_hash`es and of no others."""
        self._noted[file] = KeyFilter(hashes_of(hashes))
        if len(self._noted) > MOST_NOTED:
            # The oldest: most likely a compaction has taken it by now, and if not, it is learned like any other.
            del self._noted[next(iter(self._noted))]

    def is_noted(self, file: Path) -> bool:
        """Whether this process wrote the file, with today's schema, as far as it remembers."""
        return file in self._noted

    def files(self, stream_keys: Sequence[str]) -> dict[Path, list[str]]:
        """The files that may hold rows of these streams, which are in order and each there once; of which, by file.

        Every row that is durable now is in one of them. Raises DestinationUnavailable: "No such file" if a compaction
        has just removed one, and it is to be tried again.
        """
        every = self._listed()
        self._known = {file: groups for file, groups in self._known.items() if file in every}
        # Python's own hashes are the quickest for many keys; they differ from process to process.
        asked, named = Asked(hashes_of(map(hash, stream_keys))), Asked(hashes_of(map(key_hash, stream_keys)))

        def may_hold(file: Path) -> list[str]:
            noted = self._noted.get(file)
            if noted is None:
                return self._may_hold(file, stream_keys, asked)
            return [stream_keys[place] for place in noted.places(named)]

        if is_remote(self._lake.root):
            with ThreadPoolExecutor(AT_ONCE) as several:
                found = list(several.map(may_hold, every))
        else:
            found = list(map(may_hold, every))
        return {file: keys for file, keys in zip(every, found, strict=True) if keys}

    def _listed(self) -> dict[Path, None]:
        """Hot files first: what a compaction has taken from there, the manifest that is read after it names."""
        hot = [] if self._dataset in SEALED_ONLY else self._files_in(self._lake.hot(self._dataset))
        manifests = self._files_in(self._lake.manifest(self._dataset))
        if manifests != self._manifests:
            try:
                self._sealed = sorted(current_files(self._lake, self._dataset).values())
            except FileNotFoundError as error:
                raise file_gone(self._lake.root, error.filename) from error
            self._manifests = manifests
        return dict.fromkeys(file for file in (*hot, *self._sealed) if file.name != SCHEMA_FILE)

    def _files_in(self, folder: Path) -> list[Path]:
        try:
            found = listed(folder)
        except OSError as error:
            raise unreadable(self._lake.root, error) from error
        if not found:
            # Not even the one without rows. That there is no lake must not look as if nothing were in it.
            raise DestinationUnavailable(f"cannot read the lake at {self._lake.root}: no files in {folder}")
        return found

    def _may_hold(self, file: Path, keys: Sequence[str], asked: Asked) -> list[str]:
        try:
            groups = self._known.get(file)
            if groups is None:
                groups = self._known[file] = _outline(file)
            places = sorted({place for group in groups for place in _places_held(file, group, keys, asked)})
            return [] if places and self._is_lost(file) else [keys[place] for place in places]
        except FileNotFoundError as error:
            if self._is_lost(file):
                return []
            raise file_gone(self._lake.root, file) from error
        except (OSError, pa.ArrowException, TypeError, ValueError):
            # Not to be learned: damaged, or keys that are no text. DuckDB reads it, or says what is wrong.
            return list(keys)

    def _is_lost(self, file: Path) -> bool:
        """Whether the manifest in force names a sealed file that is not there: then there is nothing to read."""
        root, schema_file = self._lake.root, self._lake.sealed(self._dataset) / SCHEMA_FILE
        if is_there(root, file):
            return False
        is_in_force = self._files_in(self._lake.manifest(self._dataset)) == self._manifests
        if file in self._sealed and is_in_force and is_there(root, schema_file):
            return True
        raise file_gone(root, file)


def _places_held(file: Path, group: _Group, keys: Sequence[str], asked: Asked) -> list[int]:
    start, end = bisect_left(keys, group.first), bisect_right(keys, group.last)
    if start == end:
        return []
    if group.filter is None:
        group.filter = KeyFilter(hashes_of(map(hash, _keys_of(file, group.number))))
    return group.filter.places(asked, start, end)


def _outline(file: Path) -> list[_Group]:
    """The row groups of a file, those without a key left out."""
    with opened(file) as source:
        about = pq.ParquetFile(source).metadata
    column = next((n for n in range(about.num_columns) if about.schema.column(n).path == KEY), None)
    groups = []
    for number in range(about.num_row_groups if column is not None else 0):
        told = about.row_group(number).column(column).statistics
        if told is not None and told.has_min_max and isinstance(told.min, str):
            groups.append(_Group(number, told.min, told.max))
            continue
        keys = _keys_of(file, number)
        if keys:
            groups.append(_Group(number, min(keys), max(keys)))
    return groups


def _keys_of(file: Path, number: int) -> list[str]:
    with opened(file) as source:
        rows = pq.ParquetFile(source, read_dictionary=[KEY]).read_row_group(number, columns=[KEY])
    # Not as a dictionary, whose values become Python's one by one: 120 ms for 100,000 keys, and 5 so.
    keys = rows.column(KEY).unique().cast(pa.string())
    return [key for key in keys.to_pylist() if key is not None]


def rows_in(
    connection: duckdb.DuckDBPyConnection,
    files: Mapping[Path, Sequence[str]],
    hot: Path,
    schema: pa.Schema,
    rest: str,
    is_noted: Callable[[Path], bool] = lambda file: False,
) -> pa.Table:
    """The rows of these streams in these files, at least one; `rest` completes the statement.

    What `is_noted` has the columns of the schema, in their order: declared once more they take DuckDB 9 ms a statement.
    """
    keys = sorted({key for some in files.values() for key in some})
    if len(keys) > NAMED_KEYS:
        return _joined(connection, rows_of(list(files), schema), keys, rest)
    # Asked once: a file that is forgotten meanwhile must not fall between the two.
    own = {file for file in files if is_noted(file)}
    together = [file for file in files if file.parent == hot and file not in own]
    apart = [file for file in files if file.parent != hot or file in own]
    if len(apart) > FILES_APART:
        together, apart = list(files), []
    parts = [
        (f"read_parquet({quoted(file)}, hive_partitioning = false)" if file in own else rows_of([file], schema),
         files[file])
        for file in apart
    ]  # fmt: skip
    if together:
        parts.append((rows_of(together, schema), sorted({key for file in together for key in files[file]})))
    every = " union all ".join(
        f"(select * from {rows} where {KEY} in ({', '.join('?' * len(named))}))" for rows, named in parts
    )
    named_keys = [key for _, named in parts for key in named]
    return connection.sql(f"select * from ({every}) {rest}", params=named_keys).to_arrow_table()


def _joined(connection: duckdb.DuckDBPyConnection, rows: str, keys: Sequence[str], rest: str) -> pa.Table:
    connection.register("wanted", pa.table({KEY: pa.array(keys, pa.string())}))
    try:
        # Sealed events are in the order of their keys: of keys that stand together (a rebuild's) few groups are read.
        return connection.sql(
            f"select r.* from {rows} r semi join wanted using ({KEY}) where {KEY} between $1 and $2 {rest}",
            params=[keys[0], keys[-1]],
        ).to_arrow_table()
    finally:
        connection.unregister("wanted")

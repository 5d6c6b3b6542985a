"""Turns the SELECTs of `sql/` into views over one lake: in a connection, or as the lake's own `views.sql`.

Each `<name>.sql` is a SELECT and becomes the view `<name>`; what it depends on is found by scanning it for
the names of other models after `from` and `join`. Paths inside the SQL are relative to the lake.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final, TypeVar

import duckdb

from pipeline.errors import CallfoldError, UserError
from pipeline.storage.engine import in_one_line, is_gone, lake_connection
from pipeline.storage.place import is_address, is_remote

VIEW_FOLDERS: Final = ("staging", "marts")
CHECK_FOLDER: Final = "checks"
TRIES: Final = 5

T = TypeVar("T")

_REFERENCE: Final = re.compile(r"\b(?:from|join)\s+([a-z_][a-z0-9_]*)", re.IGNORECASE)
_COMMENT: Final = re.compile(r"--[^\n]*")
_PARQUET_PATH: Final = re.compile(r"read_parquet\('([^']+)'")
_READ: Final = re.compile(
    r"read_parquet\('((\w+)/(hot|manifest)/[^']+)', union_by_name = true, hive_partitioning = false\)"
)
_GLOB_SIGNS: Final = re.compile(r"[\[*?]")

_HEADER: Final = """\
-- Callfold: every view over this lake, in plain DuckDB (1.4 or newer), no extension needed.
-- Use it from inside the lake's folder:  duckdb -init views.sql
-- Written by Callfold; changes made here are lost.
"""

_HEADER_REMOTE: Final = """\
-- Callfold: every view over this lake, in plain DuckDB (1.4 or newer), by the addresses of its files on S3.
-- DuckDB reads them with its extensions httpfs and aws. Before this file:
--   install httpfs; install aws; create secret (type s3, provider credential_chain);
-- Written by Callfold; changes made here are lost.
"""


def sql_folder() -> Path:
    """The folder that holds the SQL: inside the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_sql"
    return installed if installed.is_dir() else package.parent / "sql"


@cache
def models() -> dict[str, str]:
    """The SELECT of every view by its name, each after all that it depends on."""
    sources = {
        path.stem: _typed(path.read_text(encoding="utf-8").strip().rstrip(";"))
        for folder in VIEW_FOLDERS
        for path in sorted((sql_folder() / folder).glob("*.sql"))
    }
    if not sources:
        raise CallfoldError(
            f"no SQL models in {sql_folder()}: the installation is incomplete, install it again"
        )
    graph = {name: sorted(_references(sql) & (sources.keys() - {name})) for name, sql in sources.items()}
    return {name: sources[name] for name in TopologicalSorter(graph).static_order()}


def views_sql(root: str = "") -> str:
    """The statements that create all views. With `root` "" paths stay relative to the lake's folder."""
    statements = [
        f"create or replace view {name} as\n{_rooted(sql, root)};\n" for name, sql in models().items()
    ]
    header = _HEADER_REMOTE if is_address(root) else _HEADER
    # Footers are read once and not for each query: no name gets other bytes.
    settings = "set timezone = 'UTC';\nset parquet_metadata_cache = true;\n"
    return "\n".join([header, settings, *statements])


def create_views(connection: duckdb.DuckDBPyConnection, root: str) -> None:
    """Creates all views over the lake at `root`, as `views_sql` does, in a third of its time.

    To create a view, DuckDB opens the files of all that it is made of: the same ones for nearly every view, at 10 ms
    each in a small lake and 60 ms in one of ninety dates. Here only the few views that read files open them; the
    others are made over stand-ins, which have the same columns and no rows. `views.sql` has to be plain SQL, and
    readable.
    """
    readers = {f"{name}_files": name for name, sql in models().items() if _PARQUET_PATH.search(sql)}
    for files, name in readers.items():
        connection.execute(f"create or replace view {files} as\n{_rooted(models()[name], root)}")
    stand_ins = connection.execute(
        """
        select table_name, string_agg(format('null::{} as "{}"', data_type, column_name), ', ' order by column_index)
        from duckdb_columns() where list_contains($files, table_name) group by table_name
        """,
        {"files": list(readers)},
    ).fetchall()
    for files, columns in stand_ins:
        connection.execute(f"create or replace view {readers[files]} as select {columns} where false")
    for name, sql in models().items():
        if name not in readers.values():
            connection.execute(f"create or replace view {name} as\n{sql}")
    for files, name in readers.items():
        connection.execute(f"drop view {name}")
        connection.execute(f"alter view {files} rename to {name}")


def connect(lake: Path) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with all views over `lake` and its time zone at UTC; the caller closes it."""
    folder = lake if is_remote(lake) else lake.expanduser().absolute()
    if not is_remote(lake) and not folder.is_dir():
        raise UserError(f"no lake at {lake}: the folder does not exist (name it with --lake)")
    try:
        is_there = any((folder / "calls" / "hot").glob("*.parquet"))
    except OSError as error:
        raise CallfoldError(f"the lake at {lake} cannot be read: {error.strerror or error}") from error
    if not is_there:
        raise UserError(f"no lake at {lake}: the folder holds no calls (name the lake's folder with --lake)")
    connection = lake_connection(folder)
    try:
        # Of what is opened for the views, the queries open most again.
        connection.execute("set parquet_metadata_cache = true")
        connection.execute("set timezone = 'UTC'")
        again(lambda: create_views(connection, str(folder)))
    except duckdb.Error as error:
        connection.close()
        raise CallfoldError(f"the lake at {lake} cannot be read: {one_line(error)}") from error
    return connection


def again(read: Callable[[], T]) -> T:
    """What `read` returns, tried a few times where a file is missing.

    DuckDB lists files before it opens them; one that a compaction has merged may be removed in between, and its
    rows are then found where they were merged to.
    """
    for _ in range(TRIES - 1):
        try:
            return read()
        except duckdb.Error as error:
            if not is_gone(error):
                raise
    return read()


def one_line(error: duckdb.Error) -> str:
    """DuckDB's message without the excerpt of the statement, in one line."""
    return in_one_line(error)


def _references(sql: str) -> set[str]:
    return {name.lower() for name in _REFERENCE.findall(_COMMENT.sub("", sql))}


def _typed(sql: str) -> str:
    """Lets every file be read with the declared columns and types, whatever the file has.

    One that lacks a column has NULL there, and one whose values are none of the declared type is an error that names
    it: `union_by_name` would make text of a column that is an instant in one file and text in another. Sealed files
    are all written by the compaction, which sees to their types; read this way, a KPI takes twice the time.
    """
    return _READ.sub(lambda read: f"read_parquet('{read[1]}', {_columns(read[2], read[3])})", sql)


@cache
def _columns(dataset: str, folder: str) -> str:
    declared = json.loads((sql_folder() / "columns.json").read_text(encoding="utf-8"))
    columns = declared["manifest" if folder == "manifest" else dataset]
    every = (
        f"'{name}': {{name: '{name}', type: '{kind}', default_value: null}}" for name, kind in columns.items()
    )
    return f"schema = map {{{', '.join(every)}}}, hive_partitioning = false"


def _rooted(sql: str, root: str) -> str:
    if not root:
        return sql
    # The folder's name is no pattern and no SQL: its signs are taken literally, its quotes are doubled.
    literal = _GLOB_SIGNS.sub(lambda sign: f"[{sign[0]}]", root.rstrip("/")).replace("'", "''")
    return _PARQUET_PATH.sub(lambda path: f"read_parquet('{literal}/{path[1]}'", sql)

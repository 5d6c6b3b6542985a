"""The DuckDB with which the tests of a process look at their lakes."""

import atexit
from functools import cache

import duckdb


@cache
def engine() -> duckdb.DuckDBPyConnection:
    """One for all lakes in folders, which keeps no file: to make one takes as long as a small view."""
    # Before Python takes itself apart, or DuckDB complains of what is left of it.
    atexit.register(engine.cache_clear)
    return duckdb.connect(config={"threads": 1, "enable_external_file_cache": False})

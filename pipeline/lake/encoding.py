"""How columns become bytes: encodings and compression, chosen by what it costs to write a flush and to read a KPI.

Every choice is one that any reader of Parquet understands; figures are DuckDB's, of CPU time.
"""

from typing import Any, Final

import pyarrow as pa

ROW_GROUP_ROWS: Final = 122_880
"""Rows of a row group at most: DuckDB's own, which its threads divide a file by."""

SHORT_LENGTHS: Final = ("ring_seconds", "wrap_up_seconds")
"""Lengths of few values, which are read in two thirds of the time by a dictionary."""


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """What pyarrow's writer is told for files of this schema: hot ones, sealed ones, manifests."""
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": _with_repeats(schema),
    }
    if not _is_sealed(schema):
        return options
    # One page a row group: DuckDB reads a sealed file in a twentieth less of time; as much again by pages of version
    # 2, whose truth values are run lengths.
    options |= {"max_rows_per_page": ROW_GROUP_ROWS, "data_page_size": 8 << 20, "data_page_version": "2.0"}
    if "event_id" in schema.names:
        # For a hundredth more of room, one call's events among 100 million are found in 75 ms of CPU; by statistics
        # alone in 600.
        options["bloom_filter_options"] = {"call_key": {"ndv": ROW_GROUP_ROWS // 4, "fpp": 0.01}}
    elif "revision" in schema.names:
        options |= _of_measures(schema)
    return options


def _of_measures(schema: pa.Schema) -> dict[str, Any]:
    """How the instants and lengths of sealed calls are written, of which KPIs are made.

    Over five million calls in the order of their sealed files, instants as differences take DuckDB 26 to 48 ms a column
    and three quarters of the room, where zstd takes 75 to 87; lengths by LZ4 22 to 58 ms and the same room, where
    zstd takes 30 to 80. Texts stay with zstd: half as large as by LZ4, and hardly a KPI reads those that take room.
    """
    instants = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    lengths = [field.name for field in schema if pa.types.is_floating(field.type)]
    compression = dict.fromkeys(schema.names, "zstd") | dict.fromkeys(lengths, "lz4")
    compression |= dict.fromkeys(instants, "none")
    return {
        "compression": compression,
        "compression_level": {name: 1 for name, kind in compression.items() if kind == "zstd"},
        "column_encoding": dict.fromkeys(instants, "DELTA_BINARY_PACKED"),
    }


def _is_sealed(schema: pa.Schema) -> bool:
    return "generation" in schema.names and "version" not in schema.names


def _with_repeats(schema: pa.Schema) -> list[str]:
    # A dictionary of what hardly repeats is built for nothing: without, a flush's file of events takes an eighth
    # less of time to write, and of room. In a sealed file that holds for hashes and lengths, too: they take half
    # the room, and a third less of time to read.
    return [f.name for f in schema if f.name != "event_id" and not _is_various(f, _is_sealed(schema))]


def _is_various(field: pa.Field, is_sealed: bool) -> bool:
    if pa.types.is_timestamp(field.type):
        return True
    is_length = pa.types.is_floating(field.type) and field.name not in SHORT_LENGTHS
    return is_sealed and (is_length or pa.types.is_uint64(field.type))

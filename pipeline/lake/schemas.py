"""The declared Arrow schemas of the lake, one per dataset. Never inferred from a batch: types may not drift.

Rows carry columns beyond those the views show: `key_hash` (what views join on, eight bytes instead of a string),
`published_at` (breaks a tie between two rows of one revision: the newer is right) and `is_retracted`.
"""

from typing import Final

import pyarrow as pa

INSTANT: Final = pa.timestamp("us", tz="UTC")
SCHEMA_VERSION: Final = 2
"""In the metadata of every file. 1: a manifest has one file a date. 2: it may have one for each provider."""


def _schema(dataset: str, *fields: tuple[str, pa.DataType]) -> pa.Schema:
    metadata = {"callfold.dataset": dataset, "callfold.schema_version": str(SCHEMA_VERSION)}
    return pa.schema([pa.field(name, kind) for name, kind in fields], metadata=metadata)


_TEXT: Final = pa.string()
_REAL: Final = pa.float64()
_INT: Final = pa.int32()
_FLAG: Final = pa.bool_()

CALLS: Final = _schema(
    "calls",
    ("call_key", _TEXT),
    ("provider", _TEXT),
    ("call_id", _TEXT),
    ("provider_call_id", _TEXT),
    ("parent_call_id", _TEXT),
    ("is_root", _FLAG),
    ("account_id", _TEXT),
    ("agent_id", _TEXT),
    ("direction", _TEXT),
    ("channel", _TEXT),
    ("from_number", _TEXT),
    ("to_number", _TEXT),
    ("state", _TEXT),
    ("outcome", _TEXT),
    ("failure_class", _TEXT),
    ("failure_reason", _TEXT),
    ("raw_status", _TEXT),
    ("end_trigger", _TEXT),
    ("is_answered", _FLAG),
    ("answered_by", _TEXT),
    ("is_transferred", _FLAG),
    ("attempts", _INT),
    ("error_count", _INT),
    ("queued_at", INSTANT),
    ("ringing_at", INSTANT),
    ("started_at", INSTANT),
    ("answered_at", INSTANT),
    ("ended_at", INSTANT),
    ("ring_seconds", _REAL),
    ("talk_seconds", _REAL),
    ("wrap_up_seconds", _REAL),
    ("total_seconds", _REAL),
    ("reported_seconds", _REAL),
    ("time_source", _TEXT),
    ("recording_url", _TEXT),
    ("has_analysis", _FLAG),
    ("success_evaluation", _TEXT),
    ("cost_total", _REAL),
    ("first_event_at", INSTANT),
    ("last_event_at", INSTANT),
    ("event_count", _INT),
    ("revision", _INT),
    ("closed_by", _TEXT),
    ("date", pa.date32()),
    # Not shown by the views.
    ("key_hash", pa.uint64()),
    ("published_at", INSTANT),
    ("is_retracted", _FLAG),
    ("stream_key", _TEXT),
)
"""One row per published revision of a call. A retraction is a row with `is_retracted`."""

CALL_EVENTS: Final = _schema(
    "call_events",
    ("event_id", _TEXT),
    ("call_key", _TEXT),
    ("provider", _TEXT),
    ("stream_key", _TEXT),
    ("call_id", _TEXT),
    ("event_type", _TEXT),
    ("raw_status", _TEXT),
    ("is_unknown", _FLAG),
    ("state", _TEXT),
    ("event_at", INSTANT),
    ("received_at", INSTANT),
    ("at_source", _TEXT),
    ("queued_at", INSTANT),
    ("ringing_at", INSTANT),
    ("started_at", INSTANT),
    ("answered_at", INSTANT),
    ("hangup_at", INSTANT),
    ("ended_at", INSTANT),
    ("start_is_first_event", _FLAG),
    ("end_rank", _INT),
    ("outcome", _TEXT),
    ("unanswered_outcome", _TEXT),
    ("failure_reason", _TEXT),
    ("end_trigger", _TEXT),
    ("answer_evidence", _FLAG),
    ("transferred", _FLAG),
    ("attempt_id", _TEXT),
    ("leg", _TEXT),
    ("errors", pa.list_(_TEXT)),
    ("reported_seconds", _REAL),
    ("fact_rank", _INT),
    ("talk_is_reported", _FLAG),
    ("total_is_reported", _FLAG),
    ("provider_call_id", _TEXT),
    ("parent_call_id", _TEXT),
    ("account_id", _TEXT),
    ("agent_id", _TEXT),
    ("direction", _TEXT),
    ("channel", _TEXT),
    ("from_number", _TEXT),
    ("to_number", _TEXT),
    ("recording_url", _TEXT),
    ("has_analysis", _FLAG),
    ("success_evaluation", _TEXT),
    ("cost_total", _REAL),
    ("cut", _TEXT),
    ("session_id", _TEXT),
    ("seq", pa.int64()),
    ("date", pa.date32()),
    # Not shown by the views.
    ("key_hash", pa.uint64()),
    ("published_at", INSTANT),
)
"""One row per distinct event (a row written twice has the same `event_id`). `date` is the UTC date of `event_at`."""

WEBHOOKS: Final = _schema(
    "webhooks",
    ("webhook_id", _TEXT),
    ("provider", _TEXT),
    ("received_at", INSTANT),
    ("headers", _TEXT),
    ("query", _TEXT),
    ("body", _TEXT),
    ("date", pa.date32()),
    ("published_at", INSTANT),
)
"""One row per webhook as received, redacted. `headers` and `query` are JSON objects, `body` is the payload's text."""

QUARANTINE: Final = _schema(
    "quarantine",
    ("webhook_id", _TEXT),
    ("provider", _TEXT),
    ("received_at", INSTANT),
    ("stage", _TEXT),
    ("code", _TEXT),
    ("field", _TEXT),
    ("message", _TEXT),
    ("headers", _TEXT),
    ("query", _TEXT),
    ("body", pa.binary()),
    ("date", pa.date32()),
    # Not shown by the views.
    ("published_at", INSTANT),
    ("is_resolved", _FLAG),
)
"""One row per webhook that could not be processed; a row with `is_resolved` withdraws it after a replay."""

MANIFEST: Final = _schema(
    "manifest",
    ("version", pa.int64()),
    ("date", pa.date32()),
    ("generation", pa.int64()),
    ("provider", _TEXT),
)
"""One row per sealed file that counts; the rows of the highest version say which.

`provider` is NULL where the file holds all of its date. `generation` is 0 in the one row of a manifest without files.
"""

SCHEMAS: Final = {"calls": CALLS, "call_events": CALL_EVENTS, "webhooks": WEBHOOKS, "quarantine": QUARANTINE}


def sealed_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a dataset's sealed files: each row says which generation of its date's file it is in."""
    return schema.append(pa.field("generation", pa.int64()))


UNSEALED_IN: Final = "unsealed_in"

CARRIED_CALLS: Final = CALLS.append(pa.field(UNSEALED_IN, _TEXT))
"""Rows of `calls` that a compaction carries over, as the calls are still going on.

`unsealed_in` is the manifest (`lake/sealed.py: InForce`) of which no file has a row of the call: while that one is in
force, nobody need look for it there. NULL, as in all other hot files: not known. No version of its own: a Callfold that
does not know the column looks in the sealed files, as it did before.
"""


_DUCKDB: Final = {
    _TEXT: "VARCHAR",
    _REAL: "DOUBLE",
    _INT: "INTEGER",
    _FLAG: "BOOLEAN",
    INSTANT: "TIMESTAMPTZ",
    pa.date32(): "DATE",
    pa.int64(): "BIGINT",
    pa.uint64(): "UBIGINT",
    pa.binary(): "BLOB",
    pa.list_(_TEXT): "VARCHAR[]",
}

_WITHOUT_LOSS: Final[dict[pa.DataType, tuple[pa.DataType, ...]]] = {
    _TEXT: (pa.large_string(), pa.string_view()),
    pa.binary(): (pa.large_binary(), pa.binary_view()),
    pa.list_(_TEXT): (pa.large_list(_TEXT), pa.list_(pa.large_string())),
    _REAL: (pa.float32(), pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32()),
    _INT: (pa.int8(), pa.int16(), pa.uint8(), pa.uint16()),
    pa.int64(): (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32()),
    pa.uint64(): (pa.uint8(), pa.uint16(), pa.uint32()),
}
"""Types of which every value is one of the declared type, too."""


def duckdb_type(kind: pa.DataType) -> str:
    """What DuckDB calls a column's declared type."""
    return _DUCKDB[kind]


def declared(schema: pa.Schema) -> str:
    """The option of `read_parquet` that gives files these columns, by name and whatever the files have."""
    columns = (
        f"'{field.name}': {{name: '{field.name}', type: '{duckdb_type(field.type)}', default_value: null}}"
        for field in schema
    )
    # `date` is a column of each file, and not to be made up from its folder.
    return f"schema = map {{{', '.join(columns)}}}, hive_partitioning = false"


def type_problem(found: pa.DataType, declared: pa.DataType) -> str | None:
    """Why a file's column cannot be read as the declared type without loss; None if it can."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_list(found) and found.value_type == getattr(declared, "value_type", None):
        return None  # the name of the element's field differs between writers
    is_instant = pa.types.is_timestamp(found) and found.tz is not None and found.unit in ("s", "ms", "us")
    if found == declared or found in _WITHOUT_LOSS.get(declared, ()) or (is_instant and declared == INSTANT):
        return None
    if pa.types.is_null(found):
        return None
    return f"is {found}, and not {declared}"

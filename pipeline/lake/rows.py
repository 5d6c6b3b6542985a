"""Records as columns of the declared schemas, and back. Instants go as whole microseconds, never as objects."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
from msgspec.structs import astuple

from pipeline.lake import schemas
from pipeline.model import CallEvent, CallRecord, Rejection, Webhook

DAY_US: Final = 86_400_000_000


def column_of(field: str) -> str:
    """The column that a record's field is stored in: the same name, instants with `_at` for `_us`."""
    renamed = {"at_us": "event_at", "first_event_us": "first_event_at", "date_day": "date"}
    return renamed.get(field) or (field[:-3] + "_at" if field.endswith("_us") else field)


RECORD_FIELDS: Final = CallRecord.__struct_fields__
EVENT_FIELDS: Final = CallEvent.__struct_fields__


_EMPTY: Final = hashlib.blake2b(digest_size=8)


def key_hash(key: str) -> int:
    """64 bits of a key, for joins: eight bytes compare faster than strings."""
    # A copy takes 0.2 us less than a new one of this size.
    hashed = _EMPTY.copy()
    hashed.update(key.encode("utf-8", "replace"))
    return int.from_bytes(hashed.digest(), "big")


class StoredRejection(NamedTuple):
    """A webhook that could not be processed, as it is kept."""

    webhook_id: str
    webhook: Webhook
    rejection: Rejection
    is_resolved: bool = False


def _table(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


_ROWS_TURNED: Final = 4_096
"""Rows that are turned into columns at a time: while they are being turned they fit into the processor's cache."""


def _in_parts(
    rows: Sequence[Any], schema: pa.Schema, columns_of: Callable[[Sequence[Any]], dict[str, Any]]
) -> pa.Table:
    parts = [rows[start : start + _ROWS_TURNED] for start in range(0, len(rows), _ROWS_TURNED)]
    return pa.concat_tables([_table(schema, columns_of(part)) for part in parts] or [schema.empty_table()])


def _columns(fields: Sequence[str], rows: Iterable[msgspec.Struct]) -> dict[str, Any]:
    # All values in one list, row after row, of which a column is every width-th: 0.8 us an event, where
    # `zip(*map(attrgetter(*fields), rows))` took 4.
    values, width = list(chain.from_iterable(map(astuple, rows))), len(fields)
    return {column_of(name): values[place::width] for place, name in enumerate(fields)}


def _key_hashes(keys: Sequence[str]) -> list[int]:
    # The events of a call stand together, and have one key.
    hashes = {key: key_hash(key) for key in set(keys)}
    return [hashes[key] for key in keys]


def calls_table(
    records: Sequence[tuple[str, CallRecord]],
    retracted: Sequence[tuple[str, CallRecord]],
    published_us: int,
) -> pa.Table:
    """(stream key, record) pairs as rows of `calls`; the retracted ones marked as such."""
    every = [(key, record, False) for key, record in records] + [
        (key, record, True) for key, record in retracted
    ]

    def columns_of(part: Sequence[tuple[str, CallRecord, bool]]) -> dict[str, Any]:
        columns = _columns(RECORD_FIELDS, [record for _, record, _ in part])
        columns["key_hash"] = _key_hashes(columns["call_key"])
        columns["published_at"] = [published_us] * len(part)
        columns["is_retracted"] = [is_retracted for _, _, is_retracted in part]
        columns["stream_key"] = [stream_key for stream_key, _, _ in part]
        return columns

    return _in_parts(every, schemas.CALLS, columns_of)


def events_table(placed: Sequence[tuple[CallEvent, str | None]], published_us: int) -> pa.Table:
    """(event, call key) pairs as rows of `call_events`."""

    def columns_of(part: Sequence[tuple[CallEvent, str | None]]) -> dict[str, Any]:
        columns = _columns(EVENT_FIELDS, [event for event, _ in part])
        columns["call_key"] = [call for _, call in part]
        columns["date"] = [at_us // DAY_US for at_us in columns["event_at"]]
        columns["key_hash"] = _key_hashes([call or event.stream_key for event, call in part])
        columns["published_at"] = [published_us] * len(part)
        return columns

    return _in_parts(placed, schemas.CALL_EVENTS, columns_of)


def table_of_buffers(
    schema: pa.Schema, rows: int, columns: Iterable[tuple[int, Sequence[bytes | None]]]
) -> pa.Table:
    """The table of columns that are in Arrow's layouts already: of each the number of NULLs, and its buffers.

    `pipeline/native` makes them. Nothing is copied, and nothing is checked.
    """
    arrays = [
        _array_of_buffers(
            field.type, rows, nulls, [None if part is None else pa.py_buffer(part) for part in parts]
        )
        for field, (nulls, parts) in zip(schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array_of_buffers(kind: pa.DataType, rows: int, nulls: int, parts: list[Any]) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.Array.from_buffers(kind, rows, parts, nulls)
    # The lists' own buffers, then those of the texts in them, which end where a number of four bytes says.
    text_ends = parts[2]
    texts = pa.Array.from_buffers(kind.value_type, text_ends.size // 4 - 1, [None, *parts[2:]], 0)
    return pa.Array.from_buffers(kind, rows, parts[:2], nulls, children=[texts])


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _receipts(webhooks: Sequence[tuple[str, Webhook]], published_us: int) -> dict[str, Any]:
    return {
        "webhook_id": [webhook_id for webhook_id, _ in webhooks],
        "provider": [webhook.provider for _, webhook in webhooks],
        "received_at": [webhook.received_us for _, webhook in webhooks],
        "headers": [_json(webhook.headers) for _, webhook in webhooks],
        "query": [_json(webhook.query) for _, webhook in webhooks],
        "date": [webhook.received_us // DAY_US for _, webhook in webhooks],
        "published_at": [published_us] * len(webhooks),
    }


def webhooks_table(webhooks: Sequence[tuple[str, Webhook]], published_us: int) -> pa.Table:
    """(webhook id, redacted webhook) pairs as rows of `webhooks`."""
    columns = _receipts(webhooks, published_us)
    columns["body"] = [webhook.body.decode("utf-8", "replace") for _, webhook in webhooks]
    return _table(schemas.WEBHOOKS, columns)


def quarantine_table(stored: Sequence[StoredRejection], published_us: int) -> pa.Table:
    """Rejected webhooks as rows of `quarantine`."""
    columns = _receipts([(s.webhook_id, s.webhook) for s in stored], published_us)
    for name in ("stage", "code", "field", "message"):
        columns[name] = [getattr(s.rejection, name) for s in stored]
    columns["body"] = [s.webhook.body for s in stored]
    columns["is_resolved"] = [s.is_resolved for s in stored]
    return _table(schemas.QUARANTINE, columns)


_ROWS_AT_ONCE: Final = 20_000
"""Rows that stand as Python values of every column at a time."""


def _plain_rows(table: pa.Table, fields: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Each row's values by the field that its column is called in `fields`; columns that hold nothing are left out.

    Taken column by column: there are too many to look into each for each row.
    """
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        names, columns = [], []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in fields and column.null_count < len(column):
                names.append(fields[name])
                columns.append(_plain(column))
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))


def _plain(column: pa.Array) -> list[Any]:
    """Instants and dates as whole numbers; texts that are the same are one object, however many rows have them."""
    if pa.types.is_string(column.type):
        encoded = column.dictionary_encode()
        texts = [*encoded.dictionary.to_pylist(), None]
        return [texts[index] for index in encoded.indices.fill_null(-1).to_pylist()]
    if pa.types.is_timestamp(column.type):
        # One engine may hand back another unit or zone; microseconds since the epoch are meant.
        column = column.cast(schemas.INSTANT).cast(pa.int64())
    elif pa.types.is_date(column.type):
        column = column.cast(pa.int32())
    values: list[Any] = column.to_pylist()
    return values


def records_from(table: pa.Table) -> Iterable[tuple[str, CallRecord]]:
    """(stream key, record) of every row of `calls`."""
    fields = {column_of(name): name for name in RECORD_FIELDS} | {"stream_key": "stream_key"}
    nothing: dict[str, Any] = dict.fromkeys(RECORD_FIELDS)
    for row in _plain_rows(table, fields):
        stream_key = row.pop("stream_key")
        yield stream_key, CallRecord(**(nothing | row))


def events_from(table: pa.Table) -> Iterable[CallEvent]:
    """The event of every row of `call_events`."""
    fields = {column_of(name): name for name in EVENT_FIELDS}
    for row in _plain_rows(table, fields):
        row["errors"] = tuple(row.get("errors") or ())
        yield CallEvent(**row)

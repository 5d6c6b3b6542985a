"""What is in quarantine: counted, listed, one shown whole, and read back a few at a time for a replay."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import duckdb
import msgspec

from pipeline.errors import CallfoldError
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, Webhook
from pipeline.query.values import rows_of
from pipeline.query.views import again, connect, one_line

ROWS_AT_ONCE: Final = 256
"""Bodies in memory at a time. At the collector's default limit of 1 MiB each that is 256 MiB; usually it is 400 KB."""
IDS_SHOWN: Final = 5

Rows = list[tuple[Any, ...]]
T = TypeVar("T")

SUMMARY: Final = (
    "provider", "stage", "code", "field", "webhooks", "first_received", "last_received", "example",
)  # fmt: skip
LISTED: Final = ("webhook_id", "received_at", "provider", "stage", "code", "field", "message")


class Wanted(NamedTuple):
    """Which quarantined webhooks are meant; what is empty or None does not restrict. Dates are UTC dates of receipt."""

    providers: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None


def summary(lake: Path, wanted: Wanted) -> Rows:
    """Rows of `SUMMARY`: one for each provider, stage, code and field, the most frequent first."""
    with closing(connect(lake)) as connection:
        return _rows(
            connection,
            f"""
            select
                provider, stage, code, field, count(*), min(received_at), max(received_at),
                arg_max(webhook_id, (received_at, webhook_id))
            from {_those(wanted)}
            group by provider, stage, code, field
            order by count(*) desc, provider, stage, code, field
            """,
            _values(wanted),
        )


def listing(lake: Path, wanted: Wanted, limit: int) -> tuple[Rows, int]:
    """Rows of `LISTED`, newest first, at most `limit` of them, and how many there are in all."""
    with closing(connect(lake)) as connection:
        values = _values(wanted)
        ((count,),) = _rows(connection, f"select count(*) from {_those(wanted)}", values)
        rows = _rows(
            connection,
            f"""
            select {", ".join(LISTED)} from {_those(wanted)}
            order by received_at desc, webhook_id
            limit $most
            """,
            {**values, "most": limit},
        )
    return rows, count


def find(lake: Path, beginning: str) -> StoredRejection:
    """The one quarantined webhook whose id begins so; CallfoldError if there is none, or more than one."""
    with closing(connect(lake)) as connection:
        found = _rows(
            connection,
            "select webhook_id from quarantine where starts_with(webhook_id, $beginning) order by 1",
            {"beginning": beginning.lower()},
        )
        if not found:
            raise CallfoldError(f"no webhook in quarantine has an id that begins with {beginning!r:.80}")
        if len(found) > 1:
            some = ", ".join(webhook_id for (webhook_id,) in found[:IDS_SHOWN])
            more = ", …" if len(found) > IDS_SHOWN else ""
            raise CallfoldError(f"{len(found):,} ids begin with {beginning!r:.80}: {some}{more}")
        return next(iter(_whole(connection, [found[0][0]])))


class Quarantine:
    """The webhooks wanted, in the order of their receipt. The ids are known at once, the bodies come in chunks."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> None:
        self._connection = connection
        found = _rows(
            connection,
            f"select webhook_id from {_those(wanted)} order by received_at, webhook_id",
            _values(wanted),
        )
        self._ids = [webhook_id for (webhook_id,) in found]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[StoredRejection]:
        for start in range(0, len(self._ids), ROWS_AT_ONCE):
            yield from _whole(self._connection, self._ids[start : start + ROWS_AT_ONCE])


def _whole(connection: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> list[StoredRejection]:
    # As a list of constants the ids reach the files themselves; joined, every body would be read first.
    listed = ", ".join("'" + webhook_id.replace("'", "''") + "'" for webhook_id in ids)
    query = f"""
        select
            webhook_id, provider, epoch_us(received_at), headers, query, body, stage, code, field, message
        from quarantine
        where webhook_id in ({listed})
        order by received_at, webhook_id
    """
    return [_stored(*row) for row in _tried(lambda: connection.execute(query).fetchall())]


def _stored(
    webhook_id: str, provider: str, received_us: int, headers: str, query: str, body: bytes, *why: Any
) -> StoredRejection:
    told = msgspec.json.decode(headers), msgspec.json.decode(query)
    return StoredRejection(webhook_id, Webhook(provider, received_us, bytes(body), *told), Rejection(*why))


def _those(wanted: Wanted) -> str:
    conditions = [
        condition
        for is_given, condition in (
            (wanted.providers, "list_contains($providers, provider)"),
            (wanted.codes, "list_contains($codes, code)"),
            (wanted.first, "date >= $first"),
            (wanted.last, "date <= $last"),
        )
        if is_given
    ]
    return "quarantine" + (" where " + " and ".join(conditions) if conditions else "")


def _values(wanted: Wanted) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in wanted._asdict().items()
        if value
    }


def _rows(connection: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any]) -> Rows:
    read = _tried(lambda: connection.sql(query, params=values).to_arrow_table())
    return [row for batch in read.to_batches() for row in rows_of(batch)]


def _tried(read: Callable[[], T]) -> T:
    try:
        return again(read)
    except duckdb.Error as error:
        raise CallfoldError(f"the quarantine cannot be read: {one_line(error)}") from error

"""Batches of records as a broker sends them, and what is told of the records that come of them."""

import struct
from collections.abc import Iterable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

TP = TopicPartition("t", 0)
GZIP, LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 1, 8, 16, 32
Header = tuple[str, bytes | None]
Content = tuple[int, bytes | None, bytes | None, list[Header]]
"""Timestamp, key, value, headers."""
Told = tuple[int, int, int, bytes | None, bytes | None, list[Header]]
ONE: list[Content] = [(1, b"k", b"v" * 300, [("a", b"1")])]


def sealed(batch: bytearray) -> bytes:
    """With the checksum that its bytes have."""
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    return bytes(batch)


def batch_of(
    records: Iterable[Content],
    base: int = 0,
    *,
    attributes: int = 0,
    step: int = 1,
    more: int = 0,
    gzip: bool = False,
) -> bytes:
    """A batch as it comes from a broker; of a compacted one records are missing, in between or at the end."""
    builder = DefaultRecordBatchBuilder(2, GZIP if gzip else 0, 0, -1, -1, -1, 10**9)
    for place, (timestamp, key, value, headers) in enumerate(records):
        assert builder.append(place * step, timestamp, key, value, headers) is not None
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base)
    struct.pack_into(">h", batch, 21, struct.unpack_from(">h", batch, 21)[0] | attributes)
    struct.pack_into(">i", batch, 23, struct.unpack_from(">i", batch, 23)[0] + more)
    return sealed(batch)


def told(records: Iterable[Any]) -> list[Told]:
    return [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, list(r.headers)) for r in records]

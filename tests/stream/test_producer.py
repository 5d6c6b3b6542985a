"""The partitions of keyed messages."""

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stream.producer import murmur2_partition


@given(st.binary(max_size=80), st.integers(1, 1000))
def test_records_go_where_javas_client_would_put_them(key: bytes, partitions: int) -> None:
    assert murmur2_partition(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions

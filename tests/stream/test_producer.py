"""The partitions of keyed messages."""

import random

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stream.producer import murmur2_partition, murmur2_partitions


@given(st.binary(max_size=80), st.integers(1, 1000))
def test_records_go_where_javas_client_would_put_them(key: bytes, partitions: int) -> None:
    assert murmur2_partition(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([1, 3, 64, 65, 200])), max_size=8),
    st.integers(1, 1000),
    st.randoms(use_true_random=False),
)
def test_many_records_go_where_each_would_go_alone(
    lengths: list[tuple[int, int]], partitions: int, chance: random.Random
) -> None:
    keys = [chance.randbytes(length) for length, count in lengths for _ in range(count)]
    chance.shuffle(keys)
    assert murmur2_partitions(keys, partitions) == [murmur2_partition(key, partitions) for key in keys]

"""The timetable is a dict of keys with their buckets."""

import random

from pipeline.assemble.timetable import Timetable


def test_a_timetable_gives_out_what_was_put_in_and_not_taken_back() -> None:
    for seed in range(60):
        dice, table = random.Random(seed), Timetable()
        stands: dict[tuple[int, str], int] = {}
        for number in range(300):
            partition, key = dice.randrange(2), f"{dice.randrange(40)}"
            if dice.random() < 0.04:
                now_us = dice.randrange(6) * 2**20 + dice.choice([0, 2**19])
                due = {
                    own for own, bucket in stands.items() if own[0] == partition and bucket << 20 <= now_us
                }
                if partition in table.partitions():
                    taken = list(table.take_due(partition, now_us))
                    assert sorted(taken) == sorted(key for _, key in due), (seed, number)
                stands = {own: bucket for own, bucket in stands.items() if own not in due}
            elif (partition, key) in stands:
                table.discard(partition, key, stands.pop((partition, key)))
            else:
                stands[partition, key] = dice.randrange(6)
                table.put(partition, key, stands[partition, key])

"""An agent's calls that are not folded again are what a fold of all of them gives."""

import random
import runpy
from pathlib import Path
from types import SimpleNamespace

from pipeline.assemble.cut import fold_stream
from pipeline.assemble.fold import FOREVER_US

HERE = Path(__file__).parent
lives = SimpleNamespace(**runpy.run_path(str(HERE / "lives.py")))
plain = SimpleNamespace(**runpy.run_path(str(HERE / "plain_assembler.py")))

SECOND, IDLE_US = lives.SECOND, lives.IDLE_US


def test_calls_that_are_not_folded_again_are_what_they_would_be() -> None:
    spared = 0
    for seed in range(150):
        dice, settled = random.Random(seed), {}
        steps = (step for step in lives.life(seed).steps if step[0] == "add")
        told = [event for step in steps for event in step[1] if event.stream_key == "bus:0"]
        told_once = list({event.event_id: event for event in told}.values())
        for _ in range(40 if told else 0):
            # Some of them, each as one of the times that it came: whatever came or went in between.
            gone = dice.choice([0, 0, 1, 3, len(told)])
            kept = dice.sample(told, len(told) - dice.randrange(gone + 1)) if gone else told
            events = list({event.event_id: event for event in kept}.values())
            if dice.random() < 0.6:
                # Up to some event: what had closed a call is gone.
                events = plain.in_stream_order(told_once)[: dice.randrange(len(told_once) + 1)]
            as_of_us = dice.choice([0, 30 * SECOND, 70 * SECOND, FOREVER_US])
            known = {call: held.record for call, held in settled.items()}
            folded = fold_stream(events, as_of_us=as_of_us, idle_us=IDLE_US, settled=settled)
            assert folded == plain.fold_stream(events, as_of_us=as_of_us, idle_us=IDLE_US), seed
            assert settled.keys() <= {record.call_id for record, _ in folded}
            spared += sum(held.record is known.get(call) for call, held in settled.items())
            for record, _ in folded:
                record.revision += dice.choice([0, 1])
    assert spared > 1_000

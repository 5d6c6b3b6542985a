"""How often Python looks for cyclic garbage while webhooks are folded."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = (70_000, 20, 20)
"""New containers until the youngest are searched, and how many such searches until the older ones are."""


@contextmanager
def rarely_searched() -> Iterator[None]:
    """Within it, the search comes a hundred times less often, and leaves alone what is there already.

    Folding makes hundreds of thousands of objects a second that live until their flush, none of them in cycles;
    looking through them after every 700, as Python does by itself, takes a seventh of the time.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*EVERY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

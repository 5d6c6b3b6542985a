"""The hot path, compiled: what other packages say in Python, for ordinary webhooks (see README.md beside this).

Where it was not built `IS_COMPILED` is False, and everything is done in Python, with the same results.
"""

import os
from typing import Any, Final

__all__ = [
    "IS_COMPILED", "Assembler", "Batches", "Changes", "Events", "LineReader", "Messages", "Reader", "Records", "Taken"
]  # fmt: skip

# The allocator of the compiled part (and of Arrow, if it comes later) gives memory back after 10 ms, and takes it again
# at the next flush, in fresh pages that the kernel must clear: a third of all page faults. It reads this when loaded.
os.environ.setdefault("MIMALLOC_PURGE_DELAY", "10000")

try:
    from pipeline.native._native import (
        Assembler,
        Batches,
        Changes,
        Events,
        LineReader,
        Messages,
        Reader,
        Records,
        Taken,
    )
except ImportError:

    class _Absent:
        """Stands for each class where none is compiled: nothing is one of it, and nobody may make one."""

        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("the compiled part of Callfold is not there")

    Assembler = Batches = Changes = Events = LineReader = _Absent  # type: ignore[misc,assignment]
    Messages = Reader = Records = Taken = _Absent  # type: ignore[misc,assignment]
    IS_COMPILED: Final = False
else:
    IS_COMPILED = True  # type: ignore[misc]

"""The hot path, compiled: what other packages say in Python, for ordinary webhooks (see README.md beside this).

Where it was not built `IS_COMPILED` is False, and everything is done in Python, with the same results.
"""

from typing import Any, Final

__all__ = [
    "IS_COMPILED", "Assembler", "Batches", "Changes", "Events", "LineReader", "Messages", "Reader", "Records", "Taken"
]  # fmt: skip

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

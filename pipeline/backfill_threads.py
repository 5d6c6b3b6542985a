"""The threads of a backfill whose lines are read compiled: some that read ahead, and one that writes.

The compiled part parses, folds and makes columns without Python's lock, pyarrow writes without it, and so do files and
their compression: threads share the cores then, and need not tell one another what they have read.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from pipeline import native
from pipeline.archive import Ahead, Block, Blocks, ReadBlocks

BLOCKS_AHEAD = 3
"""Blocks that are on their way beside those that are just being read."""

Read = tuple[Block, native.Taken | None]


@contextmanager
def lines_ahead(readers: Sequence[native.LineReader]) -> Iterator[Ahead]:
    """Reads the lines of blocks on a thread for each reader, some blocks ahead, and gives them in their order."""
    # One thread for the file: its blocks are cut one after the other, and unpacked while others are read.
    file, lines = ThreadPoolExecutor(1, "callfold-file"), ThreadPoolExecutor(len(readers), "callfold-lines")
    idle = list(readers)

    def read(block: Block) -> Read:
        reader = idle.pop()
        try:
            return block, reader.read(block.head, block.data)
        finally:
            idle.append(reader)

    def begun(blocks: Blocks) -> "Future[Read] | None":
        block = next(blocks, None)
        return None if block is None else lines.submit(read, block)

    def ahead(blocks: Blocks) -> ReadBlocks:
        waiting = deque(file.submit(begun, blocks) for _ in range(len(readers) + BLOCKS_AHEAD))
        try:
            while (reading := waiting.popleft().result()) is not None:
                waiting.append(file.submit(begun, blocks))
                yield reading.result()
        finally:
            # Whoever closes the blocks must be the only one that has them.
            for left in waiting:
                left.cancel()
            wait(waiting)

    try:
        yield ahead
    finally:
        for pool in (file, lines):
            pool.shutdown(cancel_futures=True)


class LakeThread:
    """Does one thing at a time on a thread of its own; in a `with`, at whose end nothing is under way any more."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "callfold-lake")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> "LakeThread":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin(self, work: Callable[[], None]) -> None:
        """Begins with it, once what was begun before is done."""
        self.wait()
        self._under_way = self._pool.submit(work)

    def wait(self) -> None:
        """Until what was begun is done; raises what that raised."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

"""Keeps account of what was handed over and acknowledged, partition by partition, in ranges of offsets."""

from collections import defaultdict, deque
from dataclasses import dataclass

from faust.types import TP


@dataclass(slots=True, eq=False)
class Receipt:
    """One batch handed over: what its acknowledgement is worth and how far it has come."""

    #: offset of the first record after the batch
    next_offset: int
    is_taken: bool = False
    is_acked: bool = False
    #: its partition was revoked in the meantime: acknowledging it does nothing
    is_void: bool = False


class OffsetLedger:
    """Which offset of each partition may be committed (rules 1 and 2)."""

    def __init__(self) -> None:
        self._open: dict[TP, deque[Receipt]] = defaultdict(deque)
        self._handed_over: dict[TP, int] = {}
        self._committable: dict[TP, int] = {}

    def hand_over(self, tp: TP, next_offset: int) -> Receipt:
        """Note a batch in the order in which it was read."""
        receipt = Receipt(next_offset)
        self._open[tp].append(receipt)
        self._handed_over[tp] = next_offset
        return receipt

    def settle(self, tp: TP, receipt: Receipt) -> bool:
        """Acknowledge one batch; false if that no longer counts."""
        if receipt.is_void or receipt.is_acked:
            return False
        receipt.is_acked = True
        waiting = self._open[tp]
        while waiting and waiting[0].is_acked:
            self._committable[tp] = waiting.popleft().next_offset
        return True

    def forget(self, partitions: set[TP]) -> None:
        """Void everything handed over from these partitions."""
        for tp in partitions:
            for receipt in self._open.pop(tp, ()):
                receipt.is_void = True
            self._handed_over.pop(tp, None)
            self._committable.pop(tp, None)

    def next_offset(self, tp: TP) -> int | None:
        """The offset after everything handed over since the partition was assigned; None if nothing was."""
        return self._handed_over.get(tp)

    def committable(self) -> dict[TP, int]:
        """The next offset to commit of every partition that has one."""
        return dict(self._committable)

    def is_waiting(self, tp: TP) -> bool:
        """Whether a batch was read that its handler has not taken yet (batches are taken in order)."""
        waiting = self._open.get(tp)
        return waiting is not None and len(waiting) > 0 and not waiting[-1].is_taken

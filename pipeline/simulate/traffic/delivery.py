"""From sending to receipt: lags, repeats, losses, and the order in which webhooks come in."""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.simulate.traffic.chance import MILLISECOND, SECOND, Dice, iso_ms
from pipeline.simulate.traffic.plan import Plan, Sending


class Disturbance(NamedTuple):
    """Shares of webhooks, each between 0 and 1."""

    duplicates: float = 0
    shuffle: float = 0
    late: float = 0
    lose: float = 0


class Delivery:
    """Takes the webhooks of calls and gives them back as archive lines in the order of receipt.

    Holds only those not yet received. Disturbances have dice of their own: the calls stay the same under them.
    """

    def __init__(self, seed: int, disturbance: Disturbance) -> None:
        self.disturbance = disturbance
        self.lags = Dice(f"callfold-{seed}-lags")
        self.luck = Dice(f"callfold-{seed}-luck")
        self.pending: list[tuple[int, int, bytes]] = []
        self.count = 0
        self.agents: dict[str, int] = {}

    def until(self, before_us: int | None) -> Iterator[bytes]:
        """The lines received before an instant, or all of them."""
        pending = self.pending
        while pending and (before_us is None or pending[0][0] < before_us):
            yield heapq.heappop(pending)[2]

    def add(self, plan: Plan) -> None:
        """All the webhooks of a call, each after the one before it unless it is disturbed."""
        head = b'{"provider":"%b","received_at":"' % plan.provider.encode()
        query = b'"query":%b,' % plan.query if plan.query else b""
        before_us = self.agents.get(plan.stream, 0)
        for sending in plan.sendings:
            lag_us = 0 if sending.is_instant else self.lags.wait(0.15, 0.7, 20)
            before_us = max(sending.at_us + lag_us, before_us + MILLISECOND) // MILLISECOND * MILLISECOND
            tail = b'",%b%b"body":%b}' % (self._headers(sending), query, sending.body)
            for received_us in self._receipts(before_us, sending):
                self.count += 1
                line = b"".join((head, iso_ms(received_us).encode(), tail))
                heapq.heappush(self.pending, (received_us, self.count, line))
        if plan.provider == "aircall_bus":
            self.agents[plan.stream] = before_us

    def _receipts(self, received_us: int, sending: Sending) -> list[int]:
        """When the webhook comes in: once, twice or never."""
        luck, shares = self.luck, self.disturbance
        if luck.random() < shares.lose:
            return []
        if sending.is_movable and luck.random() < shares.shuffle:
            received_us += luck.wait(25, 1.0, 900)
        if sending.is_movable and luck.random() < shares.late:
            received_us += 60 * SECOND + luck.wait(1500, 1.0, 3 * 3600)
        if not sending.is_instant and luck.random() < shares.duplicates:
            return [received_us, received_us + luck.wait(8, 1.2, 900)]
        return [received_us]

    def _headers(self, sending: Sending) -> bytes:
        if sending.signed_at is None:
            return b""
        signature = self.lags.hex(64).encode()
        return b'"headers":{"freeclimb-signature":"t=%d,v1=%b"},' % (sending.signed_at, signature)

"""Says in the log what was refused, without letting a bad sender fill it."""

import logging
import time

log = logging.getLogger(__name__)

SAME_AGAIN_SECONDS = 10.0


class Refusals:
    """The first refusal of a kind is told at once, then one each ten seconds, with how many came between."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int], float] = {}
        self._untold: dict[tuple[str, int], int] = {}

    def tell(self, provider: str, status: int, why: str, request_id: str, body_bytes: int) -> None:
        """One webhook was refused. `provider` and `why` are words of ours, never the sender's."""
        kind, now = (provider, status), time.monotonic()
        if now - self._told.get(kind, -SAME_AGAIN_SECONDS) < SAME_AGAIN_SECONDS:
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return
        self._told[kind] = now
        fields = {
            "provider": provider,
            "answer": status,
            "request_id": request_id,
            "body_bytes": body_bytes,
            "not_told": self._untold.pop(kind, 0),
        }
        log.warning("a webhook was refused: %s", why, extra=fields)

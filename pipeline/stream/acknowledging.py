"""An acknowledgement that several must give: a batch is done with when everything that came of it is durable."""

from collections.abc import Callable


class SharedAck:
    """Acknowledges once each of its parts has; begins with one part, the maker's own."""

    __slots__ = ("_acknowledge", "_waiting")

    def __init__(self, acknowledge: Callable[[], object]) -> None:
        self._acknowledge = acknowledge
        self._waiting = 1

    def part(self) -> Callable[[], None]:
        """One more that must acknowledge, before the maker has; each part does so once."""
        self._waiting += 1
        return self.done

    def done(self) -> None:
        """One part is durable."""
        self._waiting -= 1
        if not self._waiting:
            self._acknowledge()

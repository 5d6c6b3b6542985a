"""How a service logs to stderr: a line for people, or a JSON object a line; what it is about in fields of its own.

A message never holds a body, a header or a secret: whoever logs names what is wrong, where, and the request's id.
"""

import logging
import math
from typing import Final, Literal, NamedTuple

REPEAT_SECONDS: Final = 10.0

#: what every record has; anything else was given as `extra`, and is shown
_PLAIN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
#: control characters, with which one line could look like two, or a terminal be told something
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127) if code != ord("\t")}


class LogSetup(NamedTuple):
    """How this program logs; to be handed to the processes that it starts."""

    form: Literal["human", "json"] = "human"
    level: int = logging.NOTSET
    """Of this package; other packages have to say warnings only."""


class _HumanFormatter(logging.Formatter):
    """`2026-03-05 09:21:19,627 WARNING pipeline.collect: refused [answer=401 provider=recho]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the library's name
        """The line, with the fields behind it; one line, whatever is in them."""
        fields = [f"{name}={value}" for name, value in record.__dict__.items() if name not in _PLAIN]
        line = super().formatMessage(record) + (f" [{' '.join(fields)}]" if fields else "")
        return line.translate(_ESCAPED)


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    names = {"levelname": "level", "name": "logger"}
    return JsonFormatter(
        "%(levelname)s %(name)s %(processName)s %(message)s", rename_fields=names, timestamp=True
    )


class RepeatsLeftOut(logging.Filter):
    """Of what the Kafka client says again and again, the first, then one each ten seconds with how many came between.

    One that cannot reach its broker says so sixty times a second, for as long as the broker is away. What has a
    traceback is let through: two of one message may be two faults.
    """

    KINDS_AT_MOST = 1_000

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}
        """By logger and message without its arguments: when it was last let through, and how often not since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; one that is has `repeated`, how many like it were not."""
        if record.name.partition(".")[0] != "aiokafka" or record.exc_info:
            return True
        kind = (record.name, str(record.msg))
        told_at, left_out = self._told.get(kind, (-math.inf, 0))
        if 0 <= record.created - told_at < REPEAT_SECONDS:
            self._told[kind] = (told_at, left_out + 1)
            return False
        if len(self._told) >= self.KINDS_AT_MOST:
            self._told.clear()
        self._told[kind] = (record.created, 0)
        if left_out:
            record.repeated = left_out
        return True


_in_force = [LogSetup()]
_ours: list[logging.Handler] = []


def logging_setup() -> LogSetup:
    """How this process logs."""
    return _in_force[0]


def set_up_logging(setup: LogSetup) -> None:
    """All logging of this process, from now on; where somebody else has set it up already, only what is logged."""
    _in_force[0] = setup
    root = logging.getLogger()
    if not root.handlers:
        _ours[:] = [logging.StreamHandler()]
        root.addHandler(_ours[0])
        root.setLevel(logging.WARNING)
    for handler in _ours:
        handler.filters = [] if setup.level == logging.DEBUG else [RepeatsLeftOut()]
        handler.setFormatter(_json_formatter() if setup.form == "json" else _HumanFormatter())
    logging.getLogger("pipeline").setLevel(setup.level)
    if setup.form == "json":
        # Python's own warnings would be plain text between the objects.
        logging.captureWarnings(True)

"""How a service logs to stderr: a line for people, or a JSON object a line; what it is about in fields of its own.

A message never holds a body, a header or a secret: whoever logs names what is wrong, where, and the request's id.
"""

import logging
from typing import Literal, NamedTuple

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
        handler.setFormatter(_json_formatter() if setup.form == "json" else _HumanFormatter())
    logging.getLogger("pipeline").setLevel(setup.level)
    if setup.form == "json":
        # Python's own warnings would be plain text between the objects.
        logging.captureWarnings(True)

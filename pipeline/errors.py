"""The exceptions that reach a user, by whose fault they are.

- `CallfoldError`: base of all; its text is one clear line that says what to do
  - `UserError`: the command, a setting or the machine's set-up is wrong (exit code 2)
  - `DestinationUnavailable`: Kafka or the lake cannot take the data now; nothing is lost, try again
"""

from typing import ClassVar


class CallfoldError(Exception):
    """A failure the user is told about in one line; `exit_code` is what the program then exits with."""

    exit_code: ClassVar[int] = 1


class UserError(CallfoldError):
    """Wrong use or wrong settings: trying again without a change cannot help."""

    exit_code: ClassVar[int] = 2


class DestinationUnavailable(CallfoldError):  # noqa: N818  says what is the case, not that a rule was broken
    """A destination cannot take the data now: keep it, acknowledge nothing, back off and try again."""

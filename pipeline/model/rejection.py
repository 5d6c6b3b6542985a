"""Why a webhook could not be processed: a value, not an exception, so that it can be stored and replayed."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import msgspec

DEEPEST: Final = 200
"""Levels of arrays and objects that a body may have, one inside the other.

Far more than any provider sends, and far less than what recursion over a body could not stand: without a limit of our
own, the interpreter's would decide, and whether a body is understood would depend on who calls.
"""

Stage = Literal["normalise", "assemble"]
RejectionCode = Literal[
    "empty_body",
    "bad_encoding",
    "not_json",
    "too_deep",
    "bad_shape",
    "missing_field",
    "unknown_provider",
    "internal_error",
]


class Meaning(NamedTuple):
    """What a code says, and what mends it."""

    means: str
    remedy: str


MEANINGS: Final[Mapping[RejectionCode, Meaning]] = MappingProxyType(
    {
        "empty_body": Meaning(
            "there is nothing in the body",
            "nothing is lost; if a probe or a test sends it, switch that off at the sender",
        ),
        "bad_encoding": Meaning(
            "the body is not in UTF-8, nor in UTF-16 or UTF-32",
            "look for what recodes or compresses bodies on the way here; have the sender send UTF-8",
        ),
        "not_json": Meaning(
            "the body is not JSON: cut off, a form, a page",
            "look at the body: if it is cut off, find where on the way; else set the sender to JSON",
        ),
        "too_deep": Meaning(
            f"arrays and objects lie more than {DEEPEST} levels deep in one another",
            "no provider sends that: find out who does",
        ),
        "bad_shape": Meaning(
            "JSON, but not what this provider sends; `field` is where it differs",
            "see that the sender's address names the right provider; if the provider has changed its webhooks, "
            "mend its module, then replay",
        ),
        "missing_field": Meaning(
            "the field is missing without which it belongs to no call",
            "ask the provider; if it names the call elsewhere now, mend its module, then replay",
        ),
        "unknown_provider": Meaning(
            "no module knows a provider of this name",
            "mend the name in the archive and backfill it again, or add the provider's module, then replay",
        ),
        "internal_error": Meaning(
            "our fault: the code failed on it; the message says where",
            "report it with the message; once the code is mended, replay",
        ),
    }
)
"""Every code. Words are only ever added: those that stand in lakes stay valid."""


class Rejection(msgspec.Struct, frozen=True):
    """The sender's fault, named: which field, what was expected. The bytes travel beside it."""

    stage: Stage
    code: RejectionCode
    field: str | None
    """Path of the field in the payload, for example `message.call.id`; None when the whole body is at fault."""
    message: str

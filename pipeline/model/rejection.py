"""Why a webhook could not be processed: a value, not an exception, so that it can be stored and replayed."""

from typing import Literal

import msgspec

Stage = Literal["normalise", "assemble"]
RejectionCode = Literal[
    "not_json",  # the body does not parse
    "bad_shape",  # it parses, but is not this provider's webhook
    "missing_field",  # the field without which it belongs to no call (call id, agent) is absent
    "unknown_provider",  # the topic or the archive names a provider that there is no module for
    "internal_error",  # our fault: the code failed on it; the message says where
]


class Rejection(msgspec.Struct, frozen=True):
    """The sender's fault, named: which field, what was expected. The bytes travel beside it."""

    stage: Stage
    code: RejectionCode
    field: str | None
    """Path of the field in the payload, for example `message.call.id`; None when the whole body is at fault."""
    message: str

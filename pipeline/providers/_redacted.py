"""What of a provider's payload may not be stored as it is. Fields are named by their key, at any depth, in any case."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Redacted(NamedTuple):
    """Names of payload fields, by what they hold."""

    secrets: frozenset[str] = frozenset()
    """Removed always, with everything below them."""
    numbers: frozenset[str] = frozenset()
    """Telephone numbers and names of persons: kept, masked or hashed as the privacy setting says."""
    transcripts: frozenset[str] = frozenset()
    """What was said, summaries and prompts: dropped unless the privacy setting keeps them."""
    no_numbers: tuple[str, ...] = ()
    """How a value in a number's field begins if it is a name: it stays recognisable as one."""
    ids: Mapping[str, str] = MappingProxyType({})
    """Number fields that hold an id when they say the same as this field beside them; an id stays as it is."""
    keys: tuple[tuple[str, ...], ...] = ()
    """Paths of the ids that the fold goes by: they stay as they are, whatever they look like."""

"""Which of the two a lake's path is, and how its text becomes one."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final, cast

EXTRA: Final = "pip install 'callfold[s3]'"
"""What brings the packages for object storage."""

_ADDRESS: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._=-]+)*/?")


def is_remote(root: Path) -> bool:
    """Whether the lake is on object storage."""
    return not isinstance(root, Path)


def is_address(text: str) -> bool:
    """Whether a text means something else than a folder, well written or not."""
    return "://" in text


def remote_path(address: str) -> Path:
    """The path of `s3://bucket/prefix`. Raises ValueError, whose text completes "<setting>: '<value>' …"."""
    if not _ADDRESS.fullmatch(address) or "/../" in f"{address}/" or "/./" in f"{address}/":
        raise ValueError("is neither a folder nor s3://bucket/prefix (letters, digits and . _ - =)")
    if find_spec("s3fs") is None or find_spec("upath") is None:
        raise ValueError(f"is on object storage, whose packages are not installed: {EXTRA}")
    from pipeline.storage.s3 import LakePath

    return cast(Path, LakePath(address.rstrip("/")))

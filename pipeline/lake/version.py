"""Which version of Callfold's schema a lake has, and what an older Callfold may do with it.

A newer version reads what an older one wrote, and lets it write beside it while workers are exchanged one by one. An
older one reads a newer lake as well, by the columns that it knows; but what it sealed anew would lose the others. So it
neither opens such a lake for writing, nor compacts it.
"""

from typing import Final

from pipeline.errors import UserError
from pipeline.lake.files import SCHEMA_FILE, Lake
from pipeline.lake.schemas import SCHEMA_VERSION, SCHEMAS

VERSION_KEY: Final = b"callfold.schema_version"


def lake_version(lake: Lake) -> int:
    """The newest version that has laid out this lake; 0 if it does not say."""
    files = [lake.hot(dataset) / SCHEMA_FILE for dataset in SCHEMAS]
    told = [lake.footer(file).metadata or {} for file in files if file.exists()]
    return max((int(metadata.get(VERSION_KEY, b"0")) for metadata in told), default=0)


def version_problem(lake: Lake) -> str | None:
    """Why this Callfold must not write the lake, in one line that says what to mend; None if it may."""
    found = lake_version(lake)
    if found <= SCHEMA_VERSION:
        return None
    return (
        f"the lake at {lake.root} has schema version {found}, and this Callfold knows {SCHEMA_VERSION}: "
        "install the Callfold that the other writers of this lake have"
    )


def refuse_newer(lake: Lake) -> None:
    """Raises UserError where a newer Callfold has written."""
    problem = version_problem(lake) if lake.exists() else None
    if problem:
        raise UserError(problem)

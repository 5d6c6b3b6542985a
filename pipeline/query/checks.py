"""Runs the checks of `sql/checks/`: each is a SELECT that returns the rows that should not be there."""

from dataclasses import dataclass
from functools import cache

import duckdb

from pipeline.errors import CallfoldError
from pipeline.query.bodies import harmless_line
from pipeline.query.views import CHECK_FOLDER, one_line, sql_folder


@dataclass(frozen=True, slots=True)
class Check:
    """One rule about the lake, as its SQL and its .yml state it."""

    name: str
    description: str
    severity: (
        str  # "error": the record is wrong; "warning": worth a look, the provider may really have said so
    )
    why: str
    sql: str

    @property
    def is_error(self) -> bool:
        """Whether a row of it means that a record is wrong, and somebody has to act."""
        return self.severity == "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that returned rows: how many, and the keys of the first few."""

    check: Check
    rows: int
    examples: tuple[str, ...]

    @property
    def told(self) -> str:
        """The finding in one line; keys are strangers' words, and are shown without acting on a terminal."""
        rows = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        examples = ", ".join(harmless_line(key) for key in self.examples)
        return f"{self.check.name}: {rows}, such as {examples}"


@cache
def checks() -> tuple[Check, ...]:
    """All checks, by name."""
    found = []
    for path in sorted((sql_folder() / CHECK_FOLDER).glob("*.sql")):
        stated = _stated(path.with_suffix(".yml").read_text(encoding="utf-8"))
        sql = path.read_text(encoding="utf-8").strip().rstrip(";")
        found.append(Check(path.stem, stated["description"], stated["severity"], stated["why"], sql))
    return tuple(found)


def run_checks(connection: duckdb.DuckDBPyConnection, *, examples: int = 3) -> list[Finding]:
    """The checks that return rows, over the views of `connection`. Nothing found is an empty list."""
    return [finding for check in checks() if (finding := _run(connection, check, examples)) is not None]


def _run(connection: duckdb.DuckDBPyConnection, check: Check, examples: int) -> Finding | None:
    counted = (
        f"select count(*), list(key order by key)[:{examples:d}] from (select #1 as key from ({check.sql}))"
    )
    try:
        row = connection.execute(counted).fetchone()
    except duckdb.Error as error:
        raise CallfoldError(f"check {check.name} cannot run: {one_line(error)}") from error
    if row is None or row[0] == 0:
        return None
    return Finding(check, row[0], tuple(str(key) for key in row[1]))


def _stated(text: str) -> dict[str, str]:
    """The one-line `key: value` pairs at the top level: all of YAML that is needed here."""
    pairs = (line.partition(": ") for line in text.splitlines() if line[:1].isalpha())
    return {key: value.strip() for key, separator, value in pairs if separator}

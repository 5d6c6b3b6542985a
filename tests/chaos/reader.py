"""An analyst who asks all the time: a fresh DuckDB over the lake's own `views.sql`, several times a second."""

import threading
import time
from pathlib import Path

import duckdb

from pipeline.query.views import again, views_sql

PAUSE_SECONDS = 0.1
CALLS = "select call_key, revision from int_latest_calls"
"""What `calls` and `open_calls` both are views of. Of the two of them, DuckDB lists the files once for each: a call
that ends in between is in neither, in one statement even."""


class Reader(threading.Thread):
    """Remembers what it saw, and what should not have been."""

    def __init__(self, lake: Path) -> None:
        super().__init__(daemon=True)
        self.problems: list[str] = []
        self.vanished: dict[str, float] = {}
        """Calls that were seen and then not any more, and when; right only if they never were."""
        self.queries = 0
        self._lake = lake
        self._seen: dict[str, int] = {}
        self._is_over = threading.Event()
        self._began = time.monotonic()

    def run(self) -> None:
        """Asks until it is stopped."""
        while not self._is_over.wait(PAUSE_SECONDS):
            if (self._lake / "views.sql").exists():
                try:
                    self._ask()
                except duckdb.Error as error:
                    self._note(f"a query failed: {' '.join(str(error).split())[:400]}")

    def _ask(self) -> None:
        # Once more if a file is gone that was merged: the README tells analysts to do the same.
        rows = again(self._rows)
        self.queries += 1
        now = dict(rows)
        if len(now) != len(rows):
            twice = sorted({key for key, _ in rows if sum(key == other for other, _ in rows) > 1})
            self._note(f"{len(rows) - len(now)} calls were shown twice: {', '.join(twice[:5])}")
        for key, revision in self._seen.items():
            if key not in now:
                self.vanished.setdefault(key, time.monotonic() - self._began)
            elif now[key] < revision and key not in self.vanished:
                self._note(f"{key} went back from revision {revision} to {now[key]}")
        self._seen = self._seen | now

    def _rows(self) -> list[tuple[str, int]]:
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute(views_sql(str(self._lake)))
            return connection.execute(CALLS).fetchall()

    def _note(self, problem: str) -> None:
        self.problems.append(f"reader at {time.monotonic() - self._began:.1f} s: {problem}")

    def stop(self) -> None:
        """One last look is not needed: the judge has it."""
        self._is_over.set()
        self.join(60)

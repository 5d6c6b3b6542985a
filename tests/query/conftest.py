"""Small lakes, built as in `tests/sql`."""

import runpy
from pathlib import Path

_BUILDER = runpy.run_path(str(Path(__file__).parents[1] / "sql" / "conftest.py"))
lake, make_lake = _BUILDER["lake"], _BUILDER["make_lake"]

"""What every writer of the lake does first."""

from pathlib import Path

from pipeline.lake import Lake
from pipeline.query.views import views_sql


def open_lake(root: Path) -> Lake:
    """The lake at `root`, laid out and with its `views.sql`; DestinationUnavailable if it cannot be written."""
    lake = Lake(root)
    lake.lay_out()
    lake.write_text(views_sql(), root / "views.sql")
    return lake

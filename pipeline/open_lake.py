"""What every writer of the lake does first."""

from pathlib import Path

from pipeline.lake import Lake
from pipeline.lake.compact import only_one
from pipeline.lake.files import SEALED_ONLY
from pipeline.lake.schemas import SCHEMAS
from pipeline.lake.sealed import adopt_older, older_files
from pipeline.lake.version import refuse_newer
from pipeline.query.views import views_sql
from pipeline.storage.place import is_remote


def open_lake(root: Path) -> Lake:
    """The lake at `root`, laid out and with its `views.sql`.

    DestinationUnavailable if it cannot be written, UserError if a newer Callfold has written it.
    """
    lake = Lake(root)
    refuse_newer(lake)
    lake.lay_out()
    datasets = SCHEMAS | dict.fromkeys(SEALED_ONLY, SCHEMAS["calls"])
    older = [name for name in datasets if older_files(lake, name)]
    if older:
        with only_one(root, "compaction") as chosen:
            # Whoever is compacting now has done this.
            for name in older if chosen else ():
                adopt_older(lake, name, datasets[name])
    lake.write_text(views_sql(str(root) if is_remote(root) else ""), root / "views.sql")
    return lake

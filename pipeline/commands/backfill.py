"""The commands that run the same code as the stream over data at rest."""

import os
from datetime import date, datetime
from pathlib import Path

import click

from pipeline.commands.options import command, progress_on_terminal, settings_of


@command(example="callfold backfill webhooks.ndjson.zst --lake ./lake")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--close-open", is_flag=True, help="Close the calls that never ended, as their timeout would.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that fold, if there are many webhooks; threads that read, if webhooks are not archived. "
    "The CPUs that this one may use if not given.",
)
def backfill(
    lake: Path | None, config: Path | None, files: tuple[Path, ...], close_open: bool, processes: int | None
) -> None:
    """Fold webhook archives into the lake, without a broker.

    An archive holds one webhook per line as JSON, plain or .gz or .zst.
    Lines may repeat and come in any order; running an archive twice changes nothing.
    Neither does the number of processes or threads.
    """
    settings = settings_of(lake, config)
    from pipeline.backfill import backfill as run

    with progress_on_terminal("backfill") as progress:
        summary = run(
            settings,
            list(files),
            close_open=close_open,
            progress=progress,
            processes=processes or _cpus(),
        )
    click.echo(str(summary))


def _cpus() -> int:
    """Those that this process may use; where a system does not tell, all there are."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


_DAY = click.DateTime(["%Y-%m-%d"])


@command(example="callfold rebuild --from 2026-03-01 --to 2026-03-31 --lake ./lake")
@click.option("--from", "first", type=_DAY, required=True, metavar="D", help="First UTC date, YYYY-MM-DD.")
@click.option("--to", "last", type=_DAY, required=True, metavar="D", help="Last UTC date, itself included.")
@click.option("--close-open", is_flag=True, help="Close the calls that never ended, as their timeout would.")
def rebuild(
    lake: Path | None, config: Path | None, first: datetime, last: datetime, close_open: bool
) -> None:
    """Fold the calls of some dates again, from the lake's events.

    What is missing or damaged is written again; over a sound lake nothing is. May be stopped and run again.
    """
    if last < first:
        raise click.UsageError("--to is before --from.")
    settings = settings_of(lake, config)
    from pipeline.lake import Lake
    from pipeline.rebuild import rebuild as run

    if not Lake(settings.lake).exists():
        raise click.ClickException(f"no lake at {settings.lake} (name it with --lake)")
    with progress_on_terminal("rebuild") as progress:
        summary = run(settings, _date(first), _date(last), close_open=close_open, progress=progress)
    click.echo(str(summary))


def _date(midnight: datetime) -> date:
    return midnight.date()

"""The commands that work on the lake itself."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import command, settings_of

if TYPE_CHECKING:
    from pipeline.query.run import Format


@command(example="callfold compact --lake ./lake")
def compact(lake: Path | None, config: Path | None) -> None:
    """Merge the lake's small files now; `serve` does it by itself."""
    settings = settings_of(lake, config)
    from pipeline.lake.compact import compact as run

    click.echo(str(run(settings.lake, settings.compact_grace_seconds)))


@command(example='callfold query "select outcome, count(*) as calls from calls group by all" --lake ./lake')
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="json is one array of objects, times in ISO 8601 and UTC.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Instead of stdout.",
)
def query(lake: Path | None, config: Path | None, sql: str, form: "Format", output: Path | None) -> None:
    """Run SQL over the lake's views. With "-" for SQL it is read from stdin."""
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a terminal: give -o FILE, or redirect.")
    settings = settings_of(lake, config)
    from pipeline.query.run import run_query

    run_query(
        settings.lake,
        sys.stdin.read() if sql == "-" else sql,
        form,
        output or click.get_binary_stream("stdout"),
    )

"""The command that writes one report on call outcomes."""

from datetime import UTC, datetime
from pathlib import Path

import click

from pipeline.commands.options import command, settings_of, write_whole

_FORMATS = ("html", "md", "csv", "json")


@command(example="callfold report --period last7d -o report.html --lake ./lake")
@click.option(
    "--period",
    default="yesterday",
    show_default=True,
    help="yesterday, today, last7d, all, YYYY-MM-DD, YYYY-MM or YYYY-MM-DD..YYYY-MM-DD; dates are UTC.",
)
@click.option("--format", "form", type=click.Choice(_FORMATS), help="Default: what FILE ends in, else html.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Instead of stdout.",
)
def report(
    lake: Path | None, config: Path | None, period: str, form: str | None, output: Path | None
) -> None:
    """Write one report on the call outcomes of a period."""
    settings = settings_of(lake, config)
    from pipeline.report.build import build_report
    from pipeline.report.period import parse_period
    from pipeline.report.render import render

    now = datetime.now(UTC)
    figures = build_report(settings.lake, parse_period(period, now), now)
    text = render(figures, form or _format_of(output))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_whole(output, text)


def _format_of(output: Path | None) -> str:
    ending = output.suffix.removeprefix(".").lower() if output else ""
    return ending if ending in _FORMATS else "html"

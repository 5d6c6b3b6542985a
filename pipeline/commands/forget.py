"""The command that erases a person from the lake."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import command, settings_of

if TYPE_CHECKING:
    from pipeline.forget import Told
    from pipeline.forget_find import Found
    from pipeline.lake.erase import Erased


@command(example='callfold forget --number "+49 30 1234567" --dry-run --lake ./lake')
@click.option(
    "--number",
    "numbers",
    multiple=True,
    metavar="N",
    help="A telephone number, however written; - reads one per line from stdin. May be repeated.",
)
@click.option("--call", "calls", multiple=True, metavar="KEY", help="A call_key; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--now", "at_once", is_flag=True, help="Do not wait for readers of the old files.")
@click.option(
    "--force", is_flag=True, help="Also calls that are going on, or while webhooks wait in the spool."
)
def forget(
    lake: Path | None,
    config: Path | None,
    numbers: tuple[str, ...],
    calls: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    at_once: bool,
    force: bool,
) -> int:
    """Erase a person, or single calls, from every dataset, sealed files included, and prove it.

    With --number all calls go that come from it, go to it or name it, with their legs, events and webhooks.
    Running it again completes what was interrupted, and changes nothing else.
    """
    if not (numbers or calls):
        raise click.UsageError("Name a --number or a --call.")
    settings = settings_of(lake, config)
    numbers = tuple(
        n for told in numbers for n in (sys.stdin.read().splitlines() if told == "-" else [told]) if n
    )
    is_asked = not (yes or dry_run)
    if is_asked and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at: say --yes, or look first with --dry-run.")
    from pipeline.forget import Wanted
    from pipeline.forget import forget as run
    from pipeline.forget_beyond import spool_problem, withdraw_records

    problem = spool_problem(settings)
    if problem and not (force or dry_run):
        raise click.ClickException(problem)

    def agreed(found: "Found", erased: "list[Erased]") -> None:
        if is_asked:
            _print_rows(erased)
            rows = sum(each.rows for each in erased)
            click.confirm(f"Erase {len(found.newest):,} calls, {rows:,} rows, for good?", abort=True)

    def told_first(keys: Iterable[str]) -> None:
        click.echo(withdraw_records(settings, keys))

    told = run(
        settings,
        Wanted(numbers, calls),
        dry_run=dry_run,
        at_once=at_once,
        force=force,
        agreed=agreed,
        told_first=told_first,
        say=lambda line: click.echo(line, err=True),
    )
    return _tell(told)


def _print_rows(erased: "list[Erased]") -> None:
    from rich.console import Console

    from pipeline.query.tables import print_table

    names = ("dataset", "files scanned", "files with traces", "rows")
    print_table(Console(highlight=False), names, [list(one) for one in erased])


def _tell(told: "Told") -> int:
    _print_rows(told.erased)
    calls = f"{len(told.found.newest):,} calls"
    rows = sum(one.rows for one in told.erased)
    if told.proof is None:
        click.echo(f"dry run: {calls}, {rows:,} rows would be erased; nothing was changed")
        return 0
    proof = told.proof
    click.echo(f"{calls}, {rows:,} rows erased; {proof.files:,} files searched, {proof.left:,} traces left")
    for name, count in sorted(proof.traces.items()):
        click.echo(f"callfold: {name}: {count:,} traces left", err=True)
    for name in proof.unreadable:
        click.echo(
            f"callfold: {name} cannot be read, so nobody knows: remove it, or run this again", err=True
        )
    return 1 if proof.left else 0

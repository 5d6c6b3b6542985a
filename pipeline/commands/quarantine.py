"""The commands over the webhooks that could not be processed: look at them, and put them through again."""

import csv
import json
import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.commands.options import command, progress_on_terminal, settings_of

if TYPE_CHECKING:
    from pipeline.lake.rows import StoredRejection
    from pipeline.quarantine import Wanted

Function = TypeVar("Function", bound=Callable[..., Any])

ROWS_LISTED = 50
SHORT_ID = 12
"""Characters of an id in a table: enough to be the only one that begins so."""

LONGEST_CELL = 120

_DAY = click.DateTime(["%Y-%m-%d"])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _filters(function: Function) -> Function:
    """`--provider`, `--code`, `--from` and `--to`."""
    for option in (
        click.option(
            "--to", "last", type=_DAY, metavar="D", help="Last UTC date of receipt, itself included."
        ),
        click.option(
            "--from", "first", type=_DAY, metavar="D", help="First UTC date of receipt, YYYY-MM-DD."
        ),
        click.option("--code", "codes", multiple=True, metavar="C", help="Only this code; may be repeated."),
        click.option(
            "--provider", "providers", multiple=True, metavar="P", help="Only this provider; may be repeated."
        ),
    ):
        function = option(function)
    return function


def _wanted(
    providers: tuple[str, ...], codes: tuple[str, ...], first: datetime | None, last: datetime | None
) -> "Wanted":
    from pipeline.model.rejection import MEANINGS
    from pipeline.quarantine import Wanted

    unknown = [code for code in codes if code not in MEANINGS]
    if unknown:
        raise click.UsageError(
            f"--code: there is no code {unknown[0]!r}; the codes are {', '.join(MEANINGS)}."
        )
    if first is not None and last is not None and last < first:
        raise click.UsageError("--to is before --from.")
    return Wanted(providers, codes, _date(first), _date(last))


def _date(midnight: datetime | None) -> date | None:
    return None if midnight is None else midnight.date()


@command(example="callfold quarantine list --code internal_error --lake ./lake")
@click.argument(
    "action", type=click.Choice(["summary", "list", "show"]), default="summary", metavar="[list|show]"
)
@click.argument("webhook_id", required=False)
@_filters
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help=f"Rows of a list, else {ROWS_LISTED}.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="json and csv have the whole ids; json of `show` has the body in Base64 as well.",
)
def quarantine(
    lake: Path | None,
    config: Path | None,
    action: str,
    webhook_id: str | None,
    limit: int | None,
    form: str,
    **filters: Any,
) -> None:
    """Show the webhooks that could not be processed, and why.

    \b
    callfold quarantine           how many, by reason, and what mends it
    callfold quarantine list      one row each, newest first
    callfold quarantine show ID   one of them whole; the beginning of its id will do
    """  # noqa: D301  \b is click's
    wanted = _wanted(**filters)
    _agree(action, webhook_id, limit, form, is_filtered=any(wanted))
    settings = settings_of(lake, config)
    if action == "show":
        from pipeline.quarantine import find

        stored = find(settings.lake, webhook_id or "")
        click.echo(_whole_json(stored) if form == "json" else "\n".join(_whole_text(stored)))
    elif action == "list":
        from pipeline.quarantine import LISTED, listing

        rows, count = listing(settings.lake, wanted, limit or ROWS_LISTED)
        _print(form, LISTED, rows, wanted)
        if count > len(rows):
            click.echo(f"the newest {len(rows):,} of {count:,}; --limit N gives more", err=True)
    else:
        from pipeline.quarantine import SUMMARY, summary

        rows = summary(settings.lake, wanted)
        _print(form, SUMMARY, rows, wanted)
        if form == "table" and rows:
            _explain(sorted({row[SUMMARY.index("code")] for row in rows}), rows[0][SUMMARY.index("example")])


def _agree(action: str, webhook_id: str | None, limit: int | None, form: str, *, is_filtered: bool) -> None:
    if (action == "show") != bool(webhook_id):
        raise click.UsageError(
            "show needs the WEBHOOK_ID, or its beginning." if action == "show" else f"{action} takes no id."
        )
    if limit is not None and action != "list":
        raise click.UsageError("--limit is for list.")
    if action == "show" and (is_filtered or form == "csv"):
        raise click.UsageError("show takes no filter, and no --format csv.")


def _print(form: str, names: Sequence[str], rows: Sequence[Sequence[Any]], wanted: "Wanted") -> None:
    from pipeline.query.bodies import harmless

    if form == "json":
        lines = (json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows)
        click.echo("[" + harmless(",\n ".join(lines)) + "]")
    elif form == "csv":
        told = [[harmless(value) if isinstance(value, str) else value for value in row] for row in rows]
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *told])
    elif not rows:
        _say_nothing(wanted)
    else:
        _print_table(names, rows)


def _print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console

    from pipeline.query.bodies import harmless_line
    from pipeline.query.tables import print_table

    longest = [SHORT_ID if name in ("webhook_id", "example") else LONGEST_CELL for name in names]
    told = [
        [harmless_line(v)[:most] if isinstance(v, str) else v for v, most in zip(row, longest, strict=True)]
        for row in rows
    ]
    print_table(Console(highlight=False), names, told)


def _say_nothing(wanted: "Wanted") -> None:
    click.echo("Nothing in quarantine matches." if any(wanted) else "Nothing is in quarantine.")


def _explain(codes: Sequence[str], example: str) -> None:
    for code in codes:
        means, remedy = _meaning(code)
        click.echo(f"{code}: {means}\n  -> {remedy}")
    click.echo(
        f"\none row each: callfold quarantine list; one whole: callfold quarantine show {example[:SHORT_ID]}"
    )


def _meaning(code: str) -> tuple[str, str]:
    from pipeline.model.rejection import MEANINGS

    known: dict[str, tuple[str, str]] = dict(MEANINGS)  # type: ignore[arg-type]
    return known.get(code, ("a code that this version does not know", "use the version that wrote it"))


def _facts(stored: "StoredRejection") -> dict[str, str | None]:
    from pipeline.query.values import instant_text

    webhook, why = stored.webhook, stored.rejection
    means, remedy = _meaning(why.code)
    return {
        "webhook_id": stored.webhook_id,
        "received_at": instant_text(_EPOCH + timedelta(microseconds=webhook.received_us)),
        "provider": webhook.provider,
        "stage": why.stage,
        "code": why.code,
        "field": why.field,
        "message": why.message,
        "means": means,
        "remedy": remedy,
    }


def _whole_text(stored: "StoredRejection") -> list[str]:
    from pipeline.query.bodies import harmless_line, shown_body

    webhook = stored.webhook
    lines = [f"{name:<12} {harmless_line(value or '-')}" for name, value in _facts(stored).items()]
    for title, values in (("headers", webhook.headers), ("query", webhook.query)):
        lines += ["", title if values else f"{title}: none"]
        lines += [harmless_line(f"  {name}: {value}") for name, value in sorted(values.items())]
    kind, body = shown_body(webhook.body)
    return [*lines, "", f"body, {len(webhook.body):,} bytes, {kind}", *body]


def _whole_json(stored: "StoredRejection") -> str:
    from pipeline.query.bodies import harmless

    webhook = stored.webhook
    told = {
        **_facts(stored),
        "headers": webhook.headers,
        "query": webhook.query,
        "body": webhook.body.decode("utf-8", "backslashreplace"),
        "body_base64": b64encode(webhook.body).decode(),
    }
    return harmless(json.dumps(told, indent=2, ensure_ascii=False))


@command(example="callfold replay --dry-run --code internal_error --lake ./lake")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@_filters
def replay(lake: Path | None, config: Path | None, dry_run: bool, **filters: Any) -> None:
    """Run quarantined webhooks through the current code again.

    What is understood now leaves the quarantine; running it twice changes nothing.
    """
    wanted = _wanted(**filters)
    settings = settings_of(lake, config)
    from pipeline.replay import replay as run

    with progress_on_terminal("replay") as progress:
        told = run(settings, wanted, dry_run=dry_run, progress=progress)
    if not told.webhooks:
        _say_nothing(wanted)
        return
    outcomes = sorted(
        (*outcome[:3], outcome.field or "", count, told.events[outcome])
        for outcome, count in told.webhooks.items()
    )
    _print_table(("provider", "code", "now", "field", "webhooks", "events"), outcomes)
    click.echo(str(told))

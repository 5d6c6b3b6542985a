"""The command that makes up realistic traffic."""

from pathlib import Path

import click

from pipeline.commands.options import command, progress_on_terminal, settings_of

_FILE = click.Path(dir_okay=False, path_type=Path)
_SHARE = click.FloatRange(0.0, 1.0)


@command(example="callfold simulate --calls 1000 --seed 7 --out webhooks.ndjson --truth truth.ndjson")
@click.option(
    "--calls", type=click.IntRange(0), default=1000, show_default=True, metavar="N", help="How many calls."
)
@click.option("--seed", type=int, default=1, show_default=True, metavar="S", help="Same seed, same bytes.")
@click.option(
    "--out", type=_FILE, metavar="FILE", help="Write a webhook archive; .gz and .zst are compressed."
)
@click.option("--url", metavar="URL", help="Post the webhooks to a collector, e.g. http://127.0.0.1:8080.")
@click.option(
    "--truth", type=_FILE, metavar="FILE", help="Write the true call records, one JSON object per line."
)
@click.option(
    "--duplicates", type=_SHARE, default=0.0, metavar="P", help="Share of webhooks delivered twice."
)
@click.option(
    "--shuffle", type=_SHARE, default=0.0, metavar="P", help="Share of webhooks out of their order."
)
@click.option("--late", type=_SHARE, default=0.0, metavar="P", help="Share of webhooks that come much later.")
@click.option("--lose", type=_SHARE, default=0.0, metavar="P", help="Share of webhooks that never come.")
def simulate(
    lake: Path | None,
    config: Path | None,
    calls: int,
    seed: int,
    out: Path | None,
    url: str | None,
    truth: Path | None,
    duplicates: float,
    shuffle: float,
    late: float,
    lose: float,
) -> None:
    """Make up realistic webhooks of all five providers.

    Without --out and --url they are printed, one JSON object per line.
    """

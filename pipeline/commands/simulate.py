"""The command that makes up realistic traffic."""

from pathlib import Path

import click

from pipeline.commands.options import command, count_on_terminal, settings_of

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
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.BadParameter("a collector's address starts with http:// or https://", param_hint="--url")
    settings = settings_of(lake, config)
    from pipeline.simulate import Disturbance, write

    with count_on_terminal("webhooks") as count:
        done = write(
            calls,
            seed,
            out=out,
            truth=truth,
            url=url,
            disturbance=Disturbance(duplicates=duplicates, shuffle=shuffle, late=late, lose=lose),
            idle_seconds=settings.idle_seconds,
            progress=count,
        )
    if done.sent is not None:
        click.echo(f"{done.sent.posted:,} webhooks posted in {done.sent.seconds:.1f} s")
        if done.sent.refused:
            answers = ", ".join(
                f"{count:,} answered {code}" for code, count in done.sent.by_answer.items() if code != 202
            )
            raise click.ClickException(f"{url} did not take {done.sent.refused:,} webhooks: {answers}.")

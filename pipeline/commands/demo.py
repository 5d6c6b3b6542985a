"""The command that shows the whole pipeline at work and proves its result."""

from pathlib import Path

import click

from pipeline.commands.options import command


@command(example="callfold demo --calls 2000 --seed 7")
@click.option("--calls", type=click.IntRange(1), default=2000, show_default=True, help="Calls to simulate.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same webhooks.")
def demo(lake: Path | None, config: Path | None, calls: int, seed: int) -> int:
    """Run everything on simulated calls, and prove the result right.

    Starts an embedded broker, a collector and a worker, posts webhooks of all five providers, prints the KPIs,
    writes an HTML report. Exits 0 only if every call is in the lake once and right.
    Works in the folder ./demo, or in the one that --lake names, and leaves it there to look around in.
    """
    from pipeline.demo import demo as run
    from pipeline.storage.place import is_address

    if is_address(str(lake)):
        raise click.UsageError("--lake: the demo works in a folder of this machine.")
    return run(lake or Path("demo"), calls=calls, seed=seed)

"""The command that looks whether everything is in place."""

from pathlib import Path

import click

from pipeline.commands.options import broker_option, command, settings_of


@command(example="callfold doctor --broker kafka://localhost:9092")
@broker_option
def doctor(lake: Path | None, config: Path | None, broker: str | None) -> None:
    """Check whether everything is in place, and say what to mend.

    Looks at settings, broker, topics, lake and each provider's auth.
    """
    settings = settings_of(lake, config, broker=broker)
    from pipeline.doctor import doctor as examine

    findings = examine(settings)
    for finding in findings:
        click.echo(str(finding))
    broken = sum(finding.is_broken for finding in findings)
    if broken:
        raise click.ClickException(f"{broken} of {len(findings)} checks need mending, see above.")

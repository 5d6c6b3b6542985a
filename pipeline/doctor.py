"""The doctor: looks whether everything is in place, and says what to mend."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb

from pipeline.doctor_kafka import Finding, broker_findings
from pipeline.errors import CallfoldError
from pipeline.lake import Lake
from pipeline.query.checks import run_checks
from pipeline.query.views import connect
from pipeline.settings import ProviderAuth, Settings


def doctor(settings: Settings) -> list[Finding]:
    """Everything that can be looked at from here; the settings themselves were read to get here."""
    findings = [Finding("settings", "all readable")]
    findings += broker_findings(settings)
    findings += _lake(settings.lake)
    findings += [_provider(name, settings.providers[name]) for name in sorted(settings.providers)]
    return findings


def _lake(root: Path) -> Iterator[Finding]:
    nearest = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        advice = f"make {nearest} writable for this user, or set lake (CALLFOLD_LAKE) to another folder"
        yield Finding("lake", f"{root} cannot be written: {error.strerror}", advice, is_broken=True)
        return
    if not Lake(root).exists():
        yield Finding(
            "lake", f"{root} is not there yet", "the first webhook, or `callfold backfill`, creates it"
        )
        return
    try:
        with connect(root) as connection:
            counted = connection.execute(
                "select (select count(*) from calls), (select count(*) from open_calls), "
                "(select count(*) from quarantine)"
            ).fetchone()
            problems = run_checks(connection)
    except (CallfoldError, duckdb.Error) as error:
        advice = "the file named is damaged: restore it, or remove it and run `callfold rebuild`"
        yield Finding("lake", f"{root} cannot be read: {error}", advice, is_broken=True)
        return
    calls, open_calls, quarantined = counted or (0, 0, 0)
    yield Finding("lake", f"{root}: {calls:,} calls, {open_calls:,} open")
    if quarantined:
        yield Finding("quarantine", f"{quarantined:,} webhooks", 'look: callfold query "from quarantine"')
    for problem in problems:
        yield Finding("check", str(problem), "", is_broken=False)


def _provider(name: str, auth: ProviderAuth) -> Finding:
    variable = f"CALLFOLD_{name.upper()}"
    if auth.auth == "none":
        return Finding(
            name, "accepts every request", f"anyone may post: set {variable}_AUTH and {variable}_SECRET"
        )
    if not auth.secrets:
        advice = f"set {variable}_SECRET, or {variable}_AUTH=none for a test"
        return Finding(
            name, f"auth is {auth.auth} and there is no secret: every request is refused (401)", advice
        )
    return Finding(name, f"auth is {auth.auth}, {len(auth.secrets)} secret(s)")

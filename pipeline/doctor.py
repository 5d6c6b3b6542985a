"""The doctor: looks whether everything is in place, and says what to mend."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb

from pipeline.collect.spool_file import spool_stocks
from pipeline.collect.verify import secret_problems
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
    findings += _spool(settings)
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
        yield Finding("quarantine", f"{quarantined:,} webhooks", "look: callfold quarantine")
    for problem in problems:
        yield Finding("check", str(problem), "", is_broken=False)


def _spool(settings: Settings) -> Iterator[Finding]:
    """What waits in the spools of this directory; those that a collector has open tell it in their metrics."""
    directory = settings.spool
    if settings.spool_max_bytes == 0:
        yield Finding(
            "spool", "none: while Kafka is away every webhook is answered 503", "set spool.max_bytes"
        )
        return
    if not directory.exists():
        yield Finding("spool", f"{directory} is not there yet: the first collector makes it")
        return
    if not os.access(directory, os.W_OK | os.X_OK):
        advice = f"make {directory} writable for this user, or set spool.dir (CALLFOLD_SPOOL_DIR)"
        yield Finding("spool", f"{directory} cannot be written", advice, is_broken=True)
        return
    stocks = spool_stocks(directory)
    held = sum(stock is None for stock in stocks)
    waiting = sum(stock.webhooks for stock in stocks if stock is not None)
    aside = sum(stock.set_aside for stock in stocks if stock is not None)
    told = f"{directory}: {waiting:,} webhooks wait" if waiting else f"{directory}: empty"
    advice = "they go on when a collector of this directory runs and Kafka is there" if waiting else ""
    yield Finding("spool", told + (f", {held} open in a collector" if held else ""), advice)
    if aside:
        advice = f"look: sqlite3 {directory}/spool-0.db 'select id, reason from set_aside'"
        yield Finding("spool", f"{aside:,} webhooks were set aside in {directory}", advice)


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
    problems = secret_problems(name, auth)
    if problems:
        told = "; ".join(problem.told for problem in problems)
        is_broken = any(problem.is_useless for problem in problems)
        return Finding(name, f"auth is {auth.auth}, but {told}", f"mend {variable}_SECRET", is_broken)
    return Finding(name, f"auth is {auth.auth}, {len(auth.secrets)} secret(s)")

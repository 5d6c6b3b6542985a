"""The doctor: looks whether everything is in place, and says what to mend."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import duckdb

from pipeline.collect.spool_file import spool_stocks
from pipeline.collect.verify import secret_problems
from pipeline.doctor_kafka import Finding, broker_findings
from pipeline.errors import CallfoldError
from pipeline.lake import Lake
from pipeline.lake.compact import waiting
from pipeline.lake.version import version_problem
from pipeline.query.checks import checks, run_checks
from pipeline.query.views import connect
from pipeline.settings import ProviderAuth, Settings
from pipeline.storage.place import is_remote
from pipeline.storage.store import store_of

MANY_HOT_FILES: Final = 2_000
"""A worker writes some 120 between two compactions as they come (300 s, a flush every 10 s, four datasets)."""


def doctor(settings: Settings) -> list[Finding]:
    """Everything that can be looked at from here; the settings themselves were read to get here."""
    findings = [Finding("settings", "all readable")]
    findings += broker_findings(settings)
    findings += _lake(settings.lake)
    findings += _spool(settings)
    findings += [_provider(name, settings.providers[name]) for name in sorted(settings.providers)]
    return findings


def _bucket_problem(root: Path) -> Finding | None:
    """What keeps this machine from writing there, tried with an object that is removed again."""
    store, probe = store_of(root), root / "_tmp" / f"doctor-{uuid4().hex}.txt"
    try:
        store.put_text("1", probe, is_new=True)
        try:
            store.put_text("2", probe, is_new=True)
        except FileExistsError:
            return None
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        told = f"{root} cannot be written: {error.strerror or error}"
        return Finding("lake", told, "mend that, or set lake (CALLFOLD_LAKE)", is_broken=True)
    told = f"{root}: the object store takes no notice of If-None-Match, so compaction refuses to run"
    return Finding("lake", told, "use one that keeps to it, or a newer version of it", is_broken=True)


def _folder_problem(root: Path) -> Finding | None:
    nearest = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        advice = f"make {nearest} writable for this user, or set lake (CALLFOLD_LAKE) to another folder"
        return Finding("lake", f"{root} cannot be written: {error.strerror}", advice, is_broken=True)
    return None


def _lake(root: Path) -> Iterator[Finding]:
    obstacle = _bucket_problem(root) if is_remote(root) else _folder_problem(root)
    if obstacle is not None:
        yield obstacle
        return
    if not Lake(root).exists():
        yield Finding(
            "lake", f"{root} is not there yet", "the first webhook, or `callfold backfill`, creates it"
        )
        return
    newer = version_problem(Lake(root))
    if newer is not None:
        yield Finding(
            "lake", newer, "queries still work, by the columns that this version knows", is_broken=True
        )
    many = waiting(Lake(root))
    if many > MANY_HOT_FILES:
        advice = "run `callfold compact`; if a worker runs, its log says why compaction fails"
        yield Finding("compaction", f"{many:,} small files wait to be merged: queries are slow", advice)
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
    if not problems:
        yield Finding("rules", f"no row of the lake breaks one of the {len(checks())}")
    for problem in problems:
        advice = f"{problem.check.description} {problem.check.why}"
        yield Finding("rules", problem.told, advice, is_broken=problem.check.is_error)


def _spool(settings: Settings) -> Iterator[Finding]:
    """What waits in the spools of this directory; those that a collector has open tell it in their metrics."""
    if settings.spool_max_bytes == 0:
        yield Finding(
            "spool", "none: while Kafka is away every webhook is answered 503", "set spool.max_bytes"
        )
        return
    if settings.spool_dir is None and is_remote(settings.lake):
        yield Finding(
            "spool",
            "no directory: the lake is not on this machine",
            "for a collector, set spool.dir (CALLFOLD_SPOOL_DIR)",
        )
        return
    directory = settings.spool
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

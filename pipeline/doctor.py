"""The doctor: looks whether everything is in place, and says what to mend."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.errors import CallfoldError
from pipeline.lake import Lake
from pipeline.providers import provider_names
from pipeline.query.checks import run_checks
from pipeline.query.views import connect
from pipeline.settings import ProviderAuth, Settings
from pipeline.stream.topics import bootstrap_servers, topic_specs


class Finding(NamedTuple):
    """One thing that was looked at. `advice` is empty where all is well."""

    what: str
    told: str
    advice: str = ""
    is_broken: bool = False

    def __str__(self) -> str:
        sign = "FAIL" if self.is_broken else "warn" if self.advice else "ok"
        return f"{sign:<4}  {self.what:<22}  {self.told}" + (
            f"\n      -> {self.advice}" if self.advice else ""
        )


def doctor(settings: Settings) -> list[Finding]:
    """Everything that can be looked at from here; the settings themselves were read to get here."""
    findings = [Finding("settings", "all readable")]
    findings += _broker(settings)
    findings += _lake(settings.lake)
    findings += [_provider(name, settings.providers[name]) for name in sorted(settings.providers)]
    return findings


def _broker(settings: Settings) -> list[Finding]:
    if settings.is_embedded:
        told = "embedded: in memory, one worker, for a laptop and for tests"
        return [Finding("broker", told, "for production set broker to kafka://host:port")]
    try:
        topics = asyncio.run(_topics(settings.broker))
    except (KafkaError, OSError) as error:
        advice = "start Kafka, or mend broker (CALLFOLD_BROKER)"
        return [Finding("broker", f"{settings.broker} cannot be reached: {error!r}", advice, is_broken=True)]
    missing = [spec.name for spec in topic_specs(settings, provider_names()) if spec.name not in topics]
    found = [Finding("broker", f"{settings.broker} answers")]
    if missing:
        found.append(
            Finding("topics", f"not there yet: {', '.join(missing)}", "a worker creates them at its start")
        )
    else:
        found.append(Finding("topics", "all there"))
    return found


async def _topics(broker_url: str) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers(broker_url), request_timeout_ms=5_000)
    try:
        await admin.start()
        return set(await admin.list_topics())
    finally:
        await admin.close()


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

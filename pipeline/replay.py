"""Replay: quarantined webhooks through the current code. What is understood now leaves the quarantine."""

import time
from collections.abc import Iterable

import msgspec

from pipeline.backfill import Progress, Summary, run
from pipeline.lake import LakeSink
from pipeline.lake.rows import StoredRejection
from pipeline.model import Rejection, Webhook
from pipeline.normalise import Normaliser
from pipeline.open_lake import open_lake
from pipeline.privacy import privacy_of
from pipeline.providers import providers
from pipeline.query.views import connect
from pipeline.settings import Settings

_COLUMNS = "webhook_id, provider, epoch_us(received_at), headers, query, body, stage, code, field, message"


def replay(
    settings: Settings, *, dry_run: bool = False, progress: Progress = lambda done, total: None
) -> Summary:
    """Puts what the current code understands into the lake; a dry run only counts it. Idempotent."""
    with connect(settings.lake) as connection:
        rows = connection.execute(
            f"select {_COLUMNS} from quarantine order by received_at, webhook_id"
        ).fetchall()
    normaliser = Normaliser(providers(), privacy_of(settings))
    understood: list[StoredRejection] = []
    told = Summary()
    for done, (webhook_id, provider, received_us, headers, query, body, *why) in enumerate(rows, start=1):
        webhook = Webhook(
            provider, received_us, bytes(body), msgspec.json.decode(headers), msgspec.json.decode(query)
        )
        found = normaliser.events(webhook)
        if isinstance(found, Rejection):
            told.quarantined += 1
        else:
            told.events += len(found)
            understood.append(StoredRejection(webhook_id, webhook, Rejection(*why), is_resolved=True))
        progress(done, len(rows))
    told.webhooks = len(rows)
    if dry_run or not understood:
        return told

    def webhooks(_: Summary) -> Iterable[Webhook]:
        return (stored.webhook for stored in understood)

    summary = run(settings, webhooks, archive=False)
    # Only now: after a crash before this line they are replayed again, which changes nothing.
    LakeSink(open_lake(settings.lake)).write_quarantine(understood, time.time_ns() // 1_000)
    summary.webhooks, summary.quarantined = len(rows), told.quarantined
    return summary

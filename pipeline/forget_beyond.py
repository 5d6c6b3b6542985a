"""What of a person is outside the lake: webhooks on their way in the spool, and records on Kafka."""

import asyncio
from collections.abc import Iterable

from pipeline.collect.spool_file import spool_stocks
from pipeline.errors import CallfoldError
from pipeline.settings import Settings
from pipeline.storage.place import is_remote
from pipeline.topic_names import call_records_topic


def spool_problem(settings: Settings) -> str | None:
    """Why the spool may bring somebody back: webhooks in it are no rows yet. None if it is empty or out of reach."""
    if settings.spool_dir is None and is_remote(settings.lake):
        return None  # a collector of this machine would need one
    if not settings.spool.is_dir():
        return None
    stocks = [stock for stock in spool_stocks(settings.spool) if stock is not None]
    waiting = sum(stock.webhooks + stock.set_aside for stock in stocks)
    if not waiting:
        return None
    return (
        f"{waiting:,} webhooks wait in the spool {settings.spool} and may be about the same person: start the "
        "collector until it is empty, then run this again (--force: erase the rest now)"
    )


def withdraw_records(settings: Settings, calls: Iterable[str]) -> str:
    """Tombstones for these calls on `call-records`; a line that says what became of it."""
    keys, topic = list(calls), call_records_topic(settings.topic_prefix)
    if not keys:
        return f"{topic}: nothing to withdraw"
    if settings.is_embedded:
        return (
            f"{topic}: the embedded broker keeps its records in memory, until `callfold serve` is restarted"
        )
    from pipeline.stream.connection import check_access, client_options
    from pipeline.stream.producer import BulkProducer

    async def send() -> None:
        options = client_options(settings)
        await check_access(settings.broker, options)
        producer = BulkProducer(settings.broker, options)
        await producer.start()
        try:
            await producer.send(topic, [(key, None) for key in keys])
        finally:
            await producer.stop()

    try:
        asyncio.run(send())
    except CallfoldError as away:
        told = " ".join(keys)
        return (
            f"{topic}: NOT withdrawn ({away}); produce a message without value for each of these keys: {told}"
        )
    return f"{topic}: {len(keys):,} tombstones sent; Kafka removes the records when it compacts the topic"

"""From a webhook to events: the provider's module does the reading, this does what is the same for all."""

import hashlib
import traceback
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.normalise.redact import Privacy, Redactor
from pipeline.providers import Provider, Redacted


class StoredWebhook(NamedTuple):
    """A webhook as it may be kept: redacted, with its identity."""

    webhook_id: str
    webhook: Webhook


class Normaliser:
    """Reads webhooks of all providers. Every webhook ends as events (perhaps none) or as a rejection."""

    def __init__(self, providers: Mapping[str, Provider], privacy: Privacy) -> None:
        self._providers = providers
        self._privacy = privacy
        self._keeps_numbers = privacy.numbers == "keep"
        self._redactors = {name: Redactor(p.redacted, privacy) for name, p in providers.items()}
        self._strictest = Redactor(_all_of([p.redacted for p in providers.values()]), privacy)

    def events(self, webhook: Webhook) -> list[CallEvent] | Rejection:
        """The webhook's events, numbers as the privacy setting says, or why there are none."""
        provider = self._providers.get(webhook.provider)
        if provider is None:
            return Rejection(
                "normalise", "unknown_provider", "provider", f"no provider {webhook.provider!r:.80}"
            )
        try:
            found = provider.events(webhook)
        except Exception as error:  # noqa: BLE001  whatever it is, it must not stop the stream
            # Our fault, but no reason to lose the webhook or to stop the stream: it is replayed after the fix.
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__} in {where.name}, line {where.lineno}"
            return Rejection("normalise", "internal_error", None, message)
        if not self._keeps_numbers and not isinstance(found, Rejection):
            for event in found:
                event.from_number = self._privacy.number(event.from_number)
                event.to_number = self._privacy.number(event.to_number)
        return found

    def stored(self, webhook: Webhook) -> StoredWebhook:
        """The webhook as it may be archived or quarantined."""
        redactor = self._redactors.get(webhook.provider, self._strictest)
        kept = msgspec.structs.replace(
            webhook,
            body=redactor.body(webhook.body),
            headers=redactor.headers(webhook.headers),
            query=redactor.query(webhook.query),
        )
        return StoredWebhook(webhook_id(webhook), kept)


def _all_of(every: Sequence[Redacted]) -> Redacted:
    """What any provider would have redacted: for a webhook of which nobody knows whose it is."""
    return Redacted(
        secrets=frozenset().union(*(redacted.secrets for redacted in every)),
        numbers=frozenset().union(*(redacted.numbers for redacted in every)),
        transcripts=frozenset().union(*(redacted.transcripts for redacted in every)),
    )


def webhook_id(webhook: Webhook) -> str:
    """The identity of a receipt: the same line of an archive twice is one webhook, however it is spaced."""
    try:
        body = msgspec.json.format(webhook.body, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = webhook.body
    digest = hashlib.blake2b(digest_size=16)
    query = msgspec.json.encode(webhook.query, order="sorted")
    for part in (webhook.provider.encode("utf-8", "replace"), b"%d" % webhook.received_us, query, body):
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()

"""From a webhook to events: the provider's module does the reading, this does what is the same for all."""

import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pipeline import native
from pipeline.model import CallEvent, Rejection, Webhook
from pipeline.normalise.credentials import without_credentials
from pipeline.normalise.policy import Privacy
from pipeline.normalise.redact import Redactor
from pipeline.providers import Provider, Redacted, is_too_deep, providers


class StoredWebhook(NamedTuple):
    """A webhook as it may be kept: redacted, with its identity."""

    webhook_id: str
    webhook: Webhook


class Normaliser:
    """Reads webhooks of all providers. Every webhook ends as events (perhaps none) or as a rejection."""

    def __init__(self, providers: Mapping[str, Provider], privacy: Privacy) -> None:
        self.privacy = privacy
        self._keeps_numbers = privacy.numbers == "keep"
        self._own = privacy.own_secrets
        self._events = {name: p.events for name, p in providers.items()}
        self._redactors = {
            name: Redactor(p.redacted, privacy, p.kept_headers) for name, p in providers.items()
        }
        # The webhook whose events were read last, and what is stored of it: it is often stored next.
        self._redacted: tuple[Webhook | None, tuple[bytes, bytes | None]] = (None, (b"", None))
        # Whoever's it is may come to be known, and which of its headers matter then.
        self._strictest = Redactor(_all_of([p.redacted for p in providers.values()]), privacy, None)

    def events(self, webhook: Webhook) -> list[CallEvent] | Rejection:
        """The webhook's events, numbers as the privacy setting says, or why there are none."""
        events_of = self._events.get(webhook.provider)
        if events_of is None:
            message = f"no provider {webhook.provider!r:.80}"
            return self._told(Rejection("normalise", "unknown_provider", "provider", message))
        try:
            found = events_of(webhook)
            if not self._keeps_numbers and not isinstance(found, Rejection):
                found = events_of(self._as_stored(webhook))
        except Exception as error:  # noqa: BLE001  whatever it is, it must not stop the stream
            # Our fault, but no reason to lose the webhook or to stop the stream: it is replayed after the fix.
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__} in {where.name}, line {where.lineno}"
            return Rejection("normalise", "internal_error", None, message)
        if type(found) is list:
            for event in found:
                if event.recording_url is not None or event.failure_reason is not None or event.errors:
                    break
            else:
                # Nearly always: a text of the sender's is what credentials may hide in.
                return found
        return self._told(found)

    def quick_reader(self, provider: str) -> native.Reader | None:
        """What reads a provider's ordinary webhooks many at a time, as `events` does; None if there is nothing.

        Where numbers may not be kept, events are read from redacted bodies, and redacting is most of the work.
        """
        if provider not in self._quickly_read():
            return None
        return native.Reader(provider, partial(without_credentials, own=self._own), self._own)

    def quick_line_reader(self) -> native.LineReader | None:
        """The same for lines of an archive, of whatever provider."""
        names = self._quickly_read()
        clean = partial(without_credentials, own=self._own)
        return native.LineReader(names, clean, self._own) if names else None

    def _quickly_read(self) -> list[str]:
        if not (native.IS_COMPILED and self._keeps_numbers):
            return []
        # What is compiled stands for what our own modules say, and for nobody else's.
        return [name for name, own in providers().items() if self._events.get(name) is own.events]

    def _told(self, found: list[CallEvent] | Rejection) -> list[CallEvent] | Rejection:
        """Events and rejections without the credentials that a text of the sender's may hold."""
        if isinstance(found, Rejection):
            return msgspec.structs.replace(found, message=self._strictest.text(found.message))
        own = self._own
        for event in found:
            if event.failure_reason is None and event.recording_url is None and not event.errors:
                continue
            if event.recording_url is not None:
                event.recording_url = without_credentials(event.recording_url, own)
            if event.failure_reason is not None:
                event.failure_reason = without_credentials(event.failure_reason, own)
            if event.errors:
                event.errors = tuple(without_credentials(error, own) for error in event.errors)
        return found

    def _as_stored(self, webhook: Webhook) -> Webhook:
        """The webhook with the body that is stored: from it events are read, if numbers may not be kept.

        So no text of an event holds one, no id of an event can be tried out against one, and a replay tells the same.
        """
        found = self._redactors[webhook.provider].body_and_identity(webhook.body)
        self._redacted = webhook, found
        body = found[0]
        return webhook if body is webhook.body else msgspec.structs.replace(webhook, body=body)

    def stored(self, webhook: Webhook) -> StoredWebhook:
        """The webhook as it may be archived or quarantined."""
        redactor = self._redactors.get(webhook.provider, self._strictest)
        last, found = self._redacted
        body, packed = found if last is webhook else redactor.body_and_identity(webhook.body)
        kept = Webhook(
            webhook.provider,
            webhook.received_us,
            body,
            redactor.headers(webhook.headers) if webhook.headers else {},
            redactor.query(webhook.query) if webhook.query else {},
        )
        return StoredWebhook(webhook_id(webhook if self._keeps_numbers else kept, packed), kept)


def _all_of(every: Sequence[Redacted]) -> Redacted:
    """What any provider would have redacted: for a webhook of which nobody knows whose it is."""
    return Redacted(
        secrets=frozenset().union(*(redacted.secrets for redacted in every)),
        numbers=frozenset().union(*(redacted.numbers for redacted in every)),
        transcripts=frozenset().union(*(redacted.transcripts for redacted in every)),
        no_numbers=tuple(start for redacted in every for start in redacted.no_numbers),
    )


def webhook_id(webhook: Webhook, packed: bytes | None = None) -> str:
    """The identity of a receipt: the same line of an archive twice is one webhook, however it is spaced.

    `packed` is the body without spaces, if that is known.
    """
    body = _packed(webhook.body) if packed is None else packed
    provider, query = webhook.provider.encode("utf-8", "replace"), b"{}"
    if webhook.query:
        query = msgspec.json.encode(webhook.query, order="sorted")
    received = b"%d" % webhook.received_us
    # Each part behind its length.
    parts = (len(provider), provider, len(received), received, len(query), query, len(body), body)
    return blake2b(b"%d:%b%d:%b%d:%b%d:%b" % parts, digest_size=16).hexdigest()


def _packed(body: bytes) -> bytes:
    try:
        # What is nested too deep is not read by anybody, and how deep the formatter goes depends on who calls it.
        return body if is_too_deep(body) else msgspec.json.format(body, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body

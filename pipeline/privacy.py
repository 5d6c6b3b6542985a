"""The privacy settings, as the normaliser takes them."""

from collections.abc import Iterator

from pipeline.normalise import Privacy
from pipeline.settings import Settings

SHORTEST_SECRET = 8
"""Shorter ones are words, which are no secret and may stand in any text."""


def privacy_of(settings: Settings) -> Privacy:
    """What of numbers and conversation may be stored."""
    key = (settings.privacy_key or "").encode()
    own = tuple(
        sorted(
            {secret for secret in _secrets(settings) if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True
        )
    )
    return Privacy(settings.privacy_numbers, key, settings.privacy_transcripts, settings.privacy_region, own)


def _secrets(settings: Settings) -> Iterator[str]:
    for secret in (settings.privacy_key, settings.kafka_password):
        yield secret or ""
    for provider in settings.providers.values():
        # A public key is nobody's secret.
        yield from (secret for secret in provider.secrets if "-----BEGIN" not in secret)

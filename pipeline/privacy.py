"""The privacy settings, as the normaliser takes them."""

from pipeline.normalise import Privacy
from pipeline.settings import Settings


def privacy_of(settings: Settings) -> Privacy:
    """What of numbers and conversation may be stored."""
    key = (settings.privacy_key or "").encode()
    return Privacy(settings.privacy_numbers, key, settings.privacy_transcripts)

"""Normalising: one webhook becomes events or a rejection, and what may be stored of it is decided. Pure."""

from pipeline.normalise.normaliser import Normaliser, StoredWebhook, webhook_id
from pipeline.normalise.policy import Privacy
from pipeline.normalise.redact import Redactor

__all__ = ["Normaliser", "Privacy", "Redactor", "StoredWebhook", "webhook_id"]

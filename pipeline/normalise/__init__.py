"""Normalising: one webhook becomes events or a rejection, and what may be stored of it is decided. Pure."""

from pipeline.normalise.normaliser import Normaliser, webhook_id
from pipeline.normalise.redact import Privacy, Redactor

__all__ = ["Normaliser", "Privacy", "Redactor", "webhook_id"]

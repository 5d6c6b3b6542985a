"""Callfold: folds the call webhooks of voice and telephony providers into completed call records."""

__version__ = "0.1.0"

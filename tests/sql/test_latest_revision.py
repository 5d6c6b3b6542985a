"""Which rows of the lake's files the views over calls show."""

from datetime import timedelta

import pytest

at, call = None, None

"""The harness is a program of its own; the test finds its modules here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

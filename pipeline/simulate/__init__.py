"""Realistic traffic of all five providers, and the true call records that it must come to.

Knows nothing of the pipeline's own decoding, folding and storing: that independence is what makes it a judge.
"""

from pipeline.simulate.send import Sent, send
from pipeline.simulate.traffic import Disturbance, Plan, generate, traffic
from pipeline.simulate.truth import truth
from pipeline.simulate.write import Written, write

__all__ = ["Disturbance", "Plan", "Sent", "Written", "generate", "send", "traffic", "truth", "write"]

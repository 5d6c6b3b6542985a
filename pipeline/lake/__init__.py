"""The lake: Parquet files that appear whole or not at all, and the way back from them."""

from pipeline.lake.files import Lake
from pipeline.lake.history import LakeHistory
from pipeline.lake.sink import LakeSink

__all__ = ["Lake", "LakeHistory", "LakeSink"]

"""From metrics to what an engine runs."""

from mlforge.compilers.base import ComputeContext

__all__ = ["ComputeContext"]

"""What to compute over events: `Rolling` windows and their aggregations."""

from mlforge.core.metrics import Rolling

__all__ = ["Rolling"]

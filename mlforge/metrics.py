"""`Rolling` windows over events, and their aggregations."""

from mlforge.core.metrics import Rolling

__all__ = ["Rolling"]

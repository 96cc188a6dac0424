"""`Rolling` and `ToDate` windows over events, and their aggregations."""

from mlforge.core.metrics import Rolling, ToDate

__all__ = ["Rolling", "ToDate"]

"""Runners of full builds on clusters; each needs the extra of its name."""

from mlforge.runners.spark import SparkRunner

__all__ = ["SparkRunner"]

"""Runners of full builds on clusters; each needs the extra of its name."""

from mlforge.runners.dask import DaskRunner
from mlforge.runners.ray import RayRunner
from mlforge.runners.spark import SparkRunner

__all__ = ["DaskRunner", "RayRunner", "SparkRunner"]

"""A feature store that you run by dropping parquet files into a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlforge.definitions import Definitions
    from mlforge.explanation import explain
    from mlforge.features import Feature, feature
    from mlforge.retrieval import get_online_features, get_training_data

__all__ = [
    "Definitions",
    "Feature",
    "explain",
    "feature",
    "get_online_features",
    "get_training_data",
]

# Imported when first used: `import mlforge` stays light.
_HOMES = {
    "Definitions": "mlforge.definitions",
    "Feature": "mlforge.features",
    "explain": "mlforge.explanation",
    "feature": "mlforge.features",
    "get_online_features": "mlforge.retrieval",
    "get_training_data": "mlforge.retrieval",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mlforge' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

"""A feature store that you run by dropping parquet files into a folder."""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, whose import takes 9 ms of CPU
if TYPE_CHECKING:
    from typing import Any

    from mlforge.definitions.registry import Definitions
    from mlforge.features.feature import Feature, feature
    from mlforge.retrieval.explain import explain
    from mlforge.retrieval.labels import ahead
    from mlforge.retrieval.serving import aget_online_features, get_online_features
    from mlforge.retrieval.training import get_training_data
    from mlforge.services.service import Service
    from mlforge.training_sets.event_spines import events_of
    from mlforge.training_sets.making import training_set
    from mlforge.training_sets.training_set import TrainingSet

__all__ = [
    "Definitions",
    "Feature",
    "Service",
    "TrainingSet",
    "aget_online_features",
    "ahead",
    "events_of",
    "explain",
    "feature",
    "get_online_features",
    "get_training_data",
    "training_set",
]

# Imported when first used: `import mlforge` stays light.
_HOMES = {
    "Definitions": "mlforge.definitions.registry",
    "Feature": "mlforge.features.feature",
    "aget_online_features": "mlforge.retrieval.serving",
    "ahead": "mlforge.retrieval.labels",
    "events_of": "mlforge.training_sets.event_spines",
    "explain": "mlforge.retrieval.explain",
    "feature": "mlforge.features.feature",
    "get_online_features": "mlforge.retrieval.serving",
    "get_training_data": "mlforge.retrieval.training",
    "Service": "mlforge.services.service",
    "TrainingSet": "mlforge.training_sets.training_set",
    "training_set": "mlforge.training_sets.making",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mlforge' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

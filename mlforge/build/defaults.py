"""Defaults held against the columns that a feature has, once these are known."""

from __future__ import annotations

from mlforge.core.schema import Schema, dtypes
from mlforge.errors import DefinitionError, RetrievalError, did_you_mean
from mlforge.features.feature import Feature
from mlforge.services.completion import fitting_default
from mlforge.services.description import Document, described_defaults


def noted_defaults(feature: Feature) -> Document:
    """The defaults by column, as the store's books have them."""
    return described_defaults(feature.defaults)


def check_defaults(feature: Feature, events: Schema) -> None:
    """Raise DefinitionError for a default of a column that the feature does not have, and for one that its column does not hold.

    A column that has been null throughout holds any: its dtype is not known yet.
    """
    if not feature.defaults:
        return
    dtype_of, of_events = dtypes(feature.spec.values(events)), dtypes(events)
    aggregated = {metric.name: metric.column for metric in feature.spec.columns}
    for column, value in feature.defaults.items():
        what = f"{feature.name}: defaults"
        if column not in dtype_of:
            raise DefinitionError(
                f"{what}: no column {column!r}; {did_you_mean(column, list(dtype_of))}"
            )
        if of_events.get(aggregated.get(column, column)) == "Null":
            continue
        try:
            fitting_default(value, dtype_of[column], f"{what}: {column!r}")
        except RetrievalError as error:
            raise DefinitionError(str(error)) from None

"""From what a feature names as its source to the source itself."""

from __future__ import annotations

import os
from pathlib import Path

from mlforge.errors import UnsupportedStore
from mlforge.features.feature import Feature
from mlforge.sources.row_source import RowSource
from mlforge.sources.source import Source
from mlforge.store import Store
from mlforge.store.feature_source import FeatureSource


def source_of(feature: Feature, root: Path, store: Store, *, follow_links: bool) -> RowSource:
    """Files below `root`, or the rows of another feature in the store; with the sources of the feature's tables.

    Raises DefinitionError for a text that can name no file.
    """
    if feature.upstream is None:
        return Source.of(feature.sources, root, follow=follow_links, tables=feature.tables)
    tables = [
        (name, Source.of(texts, root, follow=follow_links))
        for name, texts in feature.tables.items()
    ]
    return FeatureSource(store, feature.upstream, tuple(tables))


def check_apart(store: Path | None, feature: str, source: RowSource) -> None:
    """Refuse a store inside a source, which would feed on itself. Raises UnsupportedStore.

    store: the folder that it writes to, None where there is none.
    """
    if store is None:
        return
    table = Path(os.path.realpath(store)) / feature / "1.0.0" / "data.parquet"
    places = [*source.places, *(place for _, each in source.tables for place in each.places)]
    for place in places:
        parts = place.below(table)
        if parts is not None and place.takes(parts):
            raise UnsupportedStore(
                f"{feature}: the store {store} lies inside the source {place.root}; put them side by side"
            )

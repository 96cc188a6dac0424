"""From what a feature names as its source to the source itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from mlforge.core.paths import real_path_of
from mlforge.errors import DefinitionError, UnsupportedStore
from mlforge.features.feature import Feature
from mlforge.services.spec import SERVED
from mlforge.sources.row_source import RowSource
from mlforge.sources.source import Source
from mlforge.store import Store
from mlforge.store.addresses import as_path
from mlforge.store.feature_source import FeatureSource
from mlforge.store.lakehouse.source import LakeSource, names_a_table
from mlforge.store.object_source import ObjectSource

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions


def source_of(feature: Feature, root: Path, store: Store, *, follow_links: bool) -> RowSource:
    """Files below `root`, a table, or the rows of another feature in the store; with the sources of the feature's tables.

    Raises DefinitionError for a text that can name no file.
    """
    tables = tuple(
        (name, _files(feature.name, texts, root, follow_links=follow_links))
        for name, texts in feature.tables.items()
    )
    if feature.sealed_after and (feature.upstream or not all(map(as_path, feature.sources))):
        raise DefinitionError(
            f"{feature.name}: sealed_after is of sources in buckets, and {feature.source} is none; leave it out"
        )
    if feature.upstream is not None:
        return FeatureSource(store, feature.upstream, tables)
    sealed_after = feature.sealed_after.us if feature.sealed_after else None
    rows = _files(
        feature.name, feature.sources, root, follow_links=follow_links, sealed_after=sealed_after
    )
    return replace(rows, tables=tables)


def _files(
    feature: str,
    texts: Sequence[str],
    root: Path,
    *,
    follow_links: bool,
    sealed_after: int | None = None,
) -> Source | ObjectSource | LakeSource:
    """Files of this machine, objects of buckets, or a table."""
    if any(map(names_a_table, texts)):
        return LakeSource.of(texts, root)
    in_buckets = [as_path(text) is not None for text in texts]
    if all(in_buckets):
        return ObjectSource.of(texts, sealed_after)
    if any(in_buckets):
        raise DefinitionError(
            f"{feature}: a source is of folders or of buckets, not of both: {', '.join(texts)}; bring the files to one of them"
        )
    return Source.of(texts, root, follow=follow_links)


def check_places(definitions: Definitions) -> None:
    """Refuse definitions with a source that `check_place` refuses."""
    for name in definitions.features:
        check_place(definitions, name, definitions.source(name))


def check_place(definitions: Definitions, feature: str, source: RowSource) -> None:
    """Refuse a source of a feature that takes in the store, or the logs of served answers; UnsupportedStore, DefinitionError."""
    check_apart(definitions.store.local_folder, feature, source)
    logged = [service.name for service in definitions.services.values() if service.log]
    check_beside_logs(definitions.root / SERVED, logged, feature, source)


def check_output(
    definitions: Definitions, out: str, *below: str, may_be_source: bool = False
) -> None:
    """Refuse a place to write to, or its address, of which a source would take in what is written for drops. Raises DefinitionError.

    below: the paths below it of files that are written, such as the first of many; none where the place is the file.
    may_be_source: whether a source that begins in the place means what is written, as one of a training set, whose folder is new, does.
    """
    place = _real_place(out)
    files = [place / each for each in below] or [place]
    for name in definitions.features:
        source = definitions.source(name)
        if may_be_source and _begins_in(source, place):
            continue
        if any(_takes_in(source, file) for file in files):
            raise DefinitionError(
                f"{out} lies in the source of {name}, {source.text}, which would take what is written there for drops; "
                "name a place beside it"
            )


def check_table(definitions: Definitions, out: str, *below: str) -> None:
    """Refuse a place for a table, as `check_output`, and one in or below which a source begins: none reads files within a table, whose
    tools delete those that it does not name. Raises DefinitionError.
    """
    check_output(definitions, out, *below)
    place = _real_place(out)
    for name in definitions.features:
        source = definitions.source(name)
        if _begins_in(source, place):
            raise DefinitionError(
                f"the source of {name}, {source.text}, begins in {out}, and would be taken for a part of the table; "
                "name a place beside it"
            )


def _real_place(out: str) -> Path:
    return as_path(out) or real_path_of(out)


def _begins_in(source: RowSource, place: Path) -> bool:
    """Whether a source, or one of its tables, starts from a place or from one below it."""
    return any(start.is_relative_to(place) for start in _starts(source))


def _starts(source: RowSource) -> Iterator[Path]:
    """The real folders, or the addresses in buckets, that a source's files, and those of its tables, lie below."""
    for each in _with_tables(source):
        yield from (Path(os.path.realpath(place.root)) for place in each.places)
        yield from each.addresses


def _takes_in(source: RowSource, file: Path) -> bool:
    """Whether a file of this real path, or an object of this address, would count in the source or in one of its tables."""
    places = (place for each in _with_tables(source) for place in each.places)
    below = ((place, place.below(file)) for place in places)
    return source.feeds(file) or any(
        parts is not None and place.takes(parts) for place, parts in below
    )


def _with_tables(source: RowSource) -> tuple[RowSource, ...]:
    return source, *(table for _, table in source.tables)


def check_apart(store: Path | None, feature: str, source: RowSource) -> None:
    """Refuse a store inside a source, which would feed on itself. Raises UnsupportedStore.

    store: the folder that it writes to, None where there is none.
    """
    if store is None:
        return
    table = Path(os.path.realpath(store)) / feature / "1.0.0" / "data.parquet"
    for place in (place for each in _with_tables(source) for place in each.places):
        parts = place.below(table)
        if parts is not None and place.takes(parts):
            raise UnsupportedStore(
                f"{feature}: the store {store} lies inside the source {place.root}; put them side by side"
            )


def check_beside_logs(logs: Path, services: Sequence[str], feature: str, source: RowSource) -> None:
    """Refuse a source that takes in the logs of served answers beside other files. Raises DefinitionError.

    logs: the folder that has one for each of these services. A source that begins in it means them.
    """
    places = [place for each in _with_tables(source) for place in each.places]
    real_logs = Path(os.path.realpath(logs))
    for place, service in product(places, services):
        parts = place.below(real_logs / service / "answers.parquet")
        begins_there = Path(os.path.realpath(place.root)).is_relative_to(real_logs)
        if parts is not None and place.takes(parts) and not begins_there:
            raise DefinitionError(
                f"{feature}: its source {place.text!r} takes in the log of the service {service!r}, which lies in "
                f"{logs / service}; name the folders that the feature is to read"
            )

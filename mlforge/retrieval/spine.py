"""Spines and entities that callers bring to a retrieval, in the features' own dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.manifest import Manifest
from mlforge.core.schema import Column, Schema, dtypes
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT
from mlforge.engines import POINT
from mlforge.errors import RetrievalError, near_hint
from mlforge.frames import polars_schema
from mlforge.frames.encoding import hashes_of
from mlforge.frames.interop import Table
from mlforge.frames.keys import Key, entity_keys, key_column
from mlforge.frames.normalize import as_utc
from mlforge.frames.time_units import unit_us
from mlforge.online import OnlineBooks
from mlforge.retrieval.references import Reference


def spine_points(
    spine: Table, manifest: Manifest, timestamp: str | None, reference: Reference
) -> pl.DataFrame:
    """The feature's keys in its dtypes, and the instant of each row where it has a timestamp."""
    spec, event_dtypes = manifest.spec, dtypes(manifest.events)
    names = reference.key_names(spec.keys)
    columns = [
        spine_key(spine, names[key], event_dtypes[key], manifest.name).alias(key)
        for key in spec.keys
    ]
    if spec.timestamp is not None:
        name = time_column(spine, manifest, timestamp, reference)
        columns.append(spine_instants(spine.column(name)))
    points = pl.DataFrame(columns) if columns else pl.DataFrame(height=spine.height)
    return polars_schema.with_entities(points, spec)


def checked_entities(entities: Any) -> Sequence[Mapping[str, object]]:
    """The entities, if they are a list of dicts."""
    several = isinstance(entities, Sequence) and not isinstance(entities, (str, bytes))
    if not several or not all(isinstance(entity, Mapping) for entity in entities):
        raise RetrievalError(
            f"entities must be a list of dicts, each with the features' keys, not {shown(entities)}"
        )
    checked: Sequence[Mapping[str, object]] = entities
    return checked


Entities: TypeAlias = Sequence[Mapping[str, object]]


def feature_entities(
    entities: Entities, references: Sequence[Reference], books: Mapping[str, OnlineBooks]
) -> list[tuple[Entities, list[str]]]:
    """For each reference the entities by its feature's own key names, with their hashes; raises as `EntityKeys.typed`."""
    keys = EntityKeys.of(references, [books[reference.name] for reference in references])
    return keys.by_feature(keys.typed(entities))


@dataclass(frozen=True, slots=True)
class EntityKeys:
    """The keys that the entities of a request have, by their names there, and those that each feature takes of them.

    schema: each key as the first feature has it. further: keys that a later feature has in another dtype.
    uses: for each reference the names of its feature's keys, and the other names that entities have for some.
    """

    schema: Schema
    further: Schema
    uses: tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], ...]

    @classmethod
    def of(cls, references: Sequence[Reference], books: Sequence[OnlineBooks]) -> Self:
        """The keys of features with these books."""
        keys: dict[str, Column] = {}
        further: dict[Column, None] = {}
        uses = []
        for reference, held in zip(references, books, strict=True):
            names = reference.key_names(key.name for key in held.keys)
            for key in held.keys:
                name = names[key.name]
                own = key if name == key.name else replace(key, name=name)
                if keys.setdefault(name, own).dtype != own.dtype:
                    further[own] = None
            uses.append((tuple(names), reference.renamed))
        return cls(tuple(keys.values()), tuple(further), tuple(uses))

    def typed(self, entities: Entities) -> list[dict[str, Key]]:
        """The entities with their keys as the first feature's dtypes have them.

        Entities may have the keys of other features, too. Raises RetrievalError unless each entity has the
        keys of all the features, which are keys of each feature's dtype, and no others.
        """
        typed = entity_keys(entities, self.schema)
        for key in self.further:
            entity_keys(({key.name: entity[key.name]} for entity in typed), (key,))
        return typed

    def by_feature(self, entities: Sequence[dict[str, Key]]) -> list[tuple[Entities, list[str]]]:
        """For each reference the typed entities by its feature's own key names, with their hashes."""
        known: dict[Any, tuple[Entities, list[str]]] = {}
        for use in self.uses:
            if use not in known:
                held, renamed = use
                own: Entities = entities
                if renamed:
                    other = dict(renamed)
                    names = {key: other.get(key, key) for key in held}
                    own = [{key: entity[names[key]] for key in held} for entity in entities]
                known[use] = own, hashes_of(own, held)
        return [known[use] for use in self.uses]


def spine_key(spine: Table, key: str, dtype: str, feature: str) -> pl.Series:
    """A spine's key column in the feature's dtype, by the rule of online entities; RetrievalError for one that does not fit."""
    if key not in spine.columns:
        raise RetrievalError(
            f"{feature}: the spine has no key column {key!r}; it has {_listed(spine)}"
            f"{near_hint(key, spine.columns)}"
        )
    try:
        return key_column(spine.column(key), dtype)
    except RetrievalError as error:
        raise RetrievalError(f"{feature}: in the spine, {error}") from None


def spine_instants(times: pl.Series) -> pl.Series:
    """A spine's time column as UTC instants, named POINT; RetrievalError for dtypes and times that are none."""
    if times.dtype == pl.Null:
        times = times.cast(polars_schema.UTC_INSTANT)
    if not isinstance(times.dtype, (pl.Datetime, pl.Date)):
        raise RetrievalError(
            f"the spine's time column {times.name!r} is {polars_schema.dtype_text(times.dtype)}; "
            "make it a Datetime or Date first"
        )
    # Wider than microseconds are, these could wrap around; nanoseconds hold no other years.
    unit = unit_us(times.dtype)
    legal = FIRST_INSTANT // unit, LAST_INSTANT // unit
    if unit >= 1 and not times.to_physical().is_between(*legal).all():
        raise RetrievalError(
            f"the spine's time column {times.name!r} holds times outside the years 1 to 9999; "
            "check the unit that it was made with"
        )
    moved = times.alias(POINT)
    return moved.to_frame().select(as_utc(pl.col(POINT), times.dtype)).to_series()


def time_column(
    spine: Table, manifest: Manifest, timestamp: str | None, reference: Reference
) -> str:
    """The spine's time column: `timestamp`, else the feature's timestamp name, else the only temporal column that is no key."""
    default_name, keys = manifest.spec.timestamp, reference.key_names(manifest.spec.keys).values()
    if timestamp is not None and not isinstance(timestamp, str):
        raise RetrievalError(
            f"timestamp must be a column's name, not {shown(timestamp)}; the spine has {_listed(spine)}"
        )
    name = timestamp if timestamp is not None else default_name
    if name in spine.columns:
        return str(name)
    if timestamp is not None:
        raise RetrievalError(
            f"the spine has no time column {timestamp!r}; it has {_listed(spine)}{near_hint(timestamp, spine.columns)}"
        )
    temporal = [name for name in spine.temporal if name not in keys]
    if len(temporal) == 1:
        return temporal[0]
    problem = (
        f"several temporal columns ({', '.join(map(str, temporal))})"
        if temporal
        else "no temporal column"
    )
    raise RetrievalError(
        f"{manifest.name}: the spine has {problem} and none is named {default_name!r}; say which with timestamp="
    )


def _listed(spine: Table) -> str:
    return ", ".join(map(str, spine.columns)) or "none"

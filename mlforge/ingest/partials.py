"""Partials by content: their memo keys and descriptions.

State is replaced, never subtracted: a refresh reads the partials of the files that exist now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Partial
from mlforge.core.schema import Schema, shared
from mlforge.core.values import TimeRange
from mlforge.features.feature import Feature
from mlforge.frames import polars_schema
from mlforge.frames.digest import digest, digests
from mlforge.frames.polars_schema import times_of

# Raised when what a partial holds for the same inputs changes; nothing else dirties stored ones.
FORMAT = 1


def memo_prefix(feature: Feature, tables: Mapping[str, str]) -> str:
    """The hash of all that a partial depends on besides content: function, keys, timestamp, validators, tables.

    tables: the content hashes of the function's further arguments, by their names.
    """
    rules = [[column, *map(str, rules)] for column, rules in feature.validators.items()]
    parts = [FORMAT, feature.code_hash, list(feature.spec.keys), feature.spec.timestamp, rules]
    parts += [sorted(tables.items())] if tables else []
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def memo_key(prefix: str, content: str) -> str:
    """The memo key of the partial that one file's content yields."""
    return hashlib.sha256(f"{prefix}{content}".encode()).hexdigest()


def whole_content(contents: Iterable[str]) -> str:
    """The content hash of a whole source: over its files' hashes, in the order of their paths."""
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def whole_key(prefix: str, contents: Iterable[str], feature: Feature) -> str:
    """The memo key of the partial that a whole source yields; it depends on `incremental=False`, too."""
    override = ["incremental=False"] if feature.incremental is False else []
    return memo_key(prefix, whole_content([*contents, *override]))


def describe(
    key: str,
    events: pl.DataFrame,
    spec: FeatureSpec,
    dropped: dict[str, int],
    hashed: int | None = None,
    listed: Collection[str] = (),
) -> Partial:
    """The description of a partial, for use without opening it.

    hashed: the digest of its events, where it is known. listed: the columns that were Enums.
    """
    dropped = {reason: rows for reason, rows in dropped.items() if rows}
    schema = _schema_of(events, listed)
    hashed = digest(events) if hashed is None else hashed
    return Partial(key, events.height, times_of(events, spec), schema, dropped, hashed)


def describe_each(
    keys: Sequence[str],
    events: pl.DataFrame,
    heights: Sequence[int],
    spec: FeatureSpec,
    listed: Collection[str],
) -> list[Partial]:
    """The descriptions of partials whose sorted events lie one's behind the other's; each has a row and leaves none out. listed: as of `describe`."""
    starts = [*accumulate(heights, initial=0)][:-1]
    ends = [start + height - 1 for start, height in zip(starts, heights, strict=True)]
    whole = _schema_of(events, listed)
    if any(column.narrow is False and column.dtype in ("Int64", "UInt64") for column in whole):
        runs = map(events.slice, starts, heights)
        schemas = [_schema_of(run, listed) for run in runs]
    else:
        schemas = [whole] * len(keys)
    times: list[TimeRange | None] = [None] * len(keys)
    if spec.timestamp is not None:
        micros = events[spec.timestamp].cast(pl.Int64)
        times = [*map(TimeRange, micros[starts].to_list(), micros[ends].to_list())]
    each = zip(keys, heights, times, schemas, digests(events, heights), strict=True)
    return [
        Partial(key, rows, time, schema, {}, hashed) for key, rows, time, schema, hashed in each
    ]


def _schema_of(events: pl.DataFrame, listed: Collection[str]) -> Schema:
    columns = polars_schema.schema_of_values(events)
    if listed:
        columns = tuple(replace(c, listed=True) if c.name in listed else c for c in columns)
    return shared(columns)


def stored(events: pl.DataFrame) -> pl.DataFrame:
    """The events as a partial holds them: columns without a dtype are left out, readers add nulls."""
    untyped = [name for name, dtype in events.schema.items() if dtype == pl.Null]
    return events.drop(untyped) if untyped else events


def without_rows(key: str, spec: FeatureSpec) -> tuple[Partial, pl.DataFrame]:
    """A partial of no events, and its frame: of a column that goes with any other file's, if there is one that all have."""
    dtype = pl.String() if spec.timestamp is None else polars_schema.UTC_INSTANT
    events = pl.DataFrame(schema=dict.fromkeys(spec.order[:1], dtype))
    return describe(key, events, spec, {}), events

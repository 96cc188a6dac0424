"""Memoised state: the events of each file, which of them form a table, and what changed.

State is replaced, never subtracted: a refresh reads the partials of the files that exist now.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Partial
from mlforge.core.schema import Column, Schema, dtypes, shared
from mlforge.frames import polars_schema
from mlforge.frames.digest import digest
from mlforge.frames.polars_schema import times_of

# Raised when what a partial holds for the same inputs changes; nothing else dirties stored ones.
FORMAT = 1


def memo_prefix(code: str, spec: FeatureSpec, rules: Sequence[object]) -> str:
    """What a partial depends on besides content: function, keys, timestamp and validators."""
    parts = [FORMAT, code, list(spec.keys), spec.timestamp, list(rules)]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def memo_key(prefix: str, content: str) -> str:
    """The name of the events that a content gives."""
    return hashlib.sha256(f"{prefix}{content}".encode()).hexdigest()


def whole_content(contents: Iterable[str]) -> str:
    """The content hash of a source that is read as one: its files' hashes, in the order of paths."""
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def describe(key: str, events: pl.DataFrame, spec: FeatureSpec, dropped: dict[str, int]) -> Partial:
    """What is to be known of a partial without opening it."""
    dropped = {reason: rows for reason, rows in dropped.items() if rows}
    schema = shared(polars_schema.schema_of(events))
    return Partial(key, events.height, times_of(events, spec), schema, dropped, digest(events))


def stored(events: pl.DataFrame) -> pl.DataFrame:
    """The events as a partial holds them: columns without a dtype are left out, readers add nulls."""
    return events.drop(name for name, dtype in events.schema.items() if dtype == pl.Null)


def common_schema(partials: Iterable[Partial]) -> Schema | None:
    """The schema that most partials have, then most rows, then the smallest text.

    A column that is null throughout a file has no dtype and goes with any. The order in which
    files came does not matter.
    """
    given = list(partials)
    if len({id(partial.schema) for partial in given}) == 1:  # as it mostly is
        return given[0].schema
    # By identity first: hashing the schema of each would take longer than all else.
    by_schema: dict[int, list[Partial]] = {}
    for partial in given:
        by_schema.setdefault(id(partial.schema), []).append(partial)
    support: Counter[Schema] = Counter()
    rows: Counter[Schema] = Counter()
    for alike in by_schema.values():
        support[alike[0].schema] += len(alike)
        rows[alike[0].schema] += sum([partial.rows for partial in alike])
    if not support:
        return None

    def weight(candidate: Schema) -> tuple[int, int, int, str]:
        backers = [schema for schema in support if _agrees(schema, candidate)]
        typed = sum(column.dtype != "Null" for column in candidate)
        return (
            -sum(support[schema] for schema in backers),
            -sum(rows[schema] for schema in backers),
            -typed,
            str(candidate),
        )

    return min(support, key=weight)


def misfits(partials: Iterable[Partial], wanted: Schema) -> dict[int, str]:
    """Which of their schemas, by identity, do not fit the one that is wanted, and why."""
    distinct = {id(partial.schema): partial for partial in partials}
    reasons = {schema: misfit(partial, wanted) for schema, partial in distinct.items()}
    return {schema: reason for schema, reason in reasons.items() if reason is not None}


def misfit(partial: Partial, wanted: Schema) -> str | None:
    """Why a partial does not fit the schema, None if it does; more columns do no harm."""
    given = dtypes(partial.schema)
    for column in wanted:
        dtype = given.get(column.name)
        if dtype is None:
            return f"no column {column.name!r}, which the other files have as {column.dtype}"
        if dtype not in (column.dtype, "Null"):
            return f"column {column.name!r} is {dtype}, in the other files it is {column.dtype}"
    return None


def _agrees(schema: Schema, candidate: Schema) -> bool:
    """Same columns; dtypes equal, or unknown in the first."""
    return len(schema) == len(candidate) and all(
        _same(a, b) for a, b in zip(schema, candidate, strict=True)
    )


def _same(a: Column, b: Column) -> bool:
    return a.name == b.name and a.dtype in (b.dtype, "Null")

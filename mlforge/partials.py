"""Memoised state: the events of each file, which of them form a table, and what changed.

State is replaced, never subtracted: a refresh reads the partials of the files that exist now.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from mlforge import frames
from mlforge.digest import digest
from mlforge.errors import IntegrityError
from mlforge.manifest import MODULUS, Partial
from mlforge.schema import Column, Schema, dtypes, shared
from mlforge.sequences import differing
from mlforge.spec import FeatureSpec
from mlforge.values import TimeRange

# Raised when what a partial holds for the same inputs changes; nothing else dirties stored ones.
FORMAT = 1
_SIGN = "__sign"
_UNREADABLE = (
    FileNotFoundError,
    pl.exceptions.ComputeError,
    pl.exceptions.ColumnNotFoundError,
    pl.exceptions.SchemaError,
    pl.exceptions.PanicException,
)


@contextmanager
def intact(name: str) -> Iterator[None]:
    """Turn what polars says of a feature's stored file that it cannot read into an IntegrityError."""
    try:
        yield
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), "")
        if isinstance(error, pl.exceptions.ComputeError) and "parquet" not in reason:
            raise
        raise IntegrityError(
            f"{name}: what is stored cannot be read ({reason}); 'mlforge verify' names what is "
            f"damaged: 'mlforge build --features {name} --full' makes it anew from the source, "
            "or restore it from a backup"
        ) from error


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
    schema = shared(frames.schema_of(events))
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


@dataclass(frozen=True)
class Changes:
    """The events that differ between two sets of partials, as a multiset; `went` of them are no more."""

    rows: int
    went: int
    entities: pl.DataFrame
    times: TimeRange | None


def same_rows(old: Sequence[Partial], new: Sequence[Partial]) -> bool:
    """Whether two sets of partials hold the same multiset of events."""
    old, new = differing(old, new)
    return (sum([p.digest for p in old]) - sum([p.digest for p in new])) % MODULUS == 0


def replaced(old: Sequence[Partial], new: Sequence[Partial]) -> tuple[list[Partial], list[Partial]]:
    """The partials that went and those that came; what both have counts for nothing."""
    old, new = differing(old, new)
    before = Counter([partial.hash for partial in old])
    after = Counter([partial.hash for partial in new])
    differ = {key for key, _ in before.items() ^ after.items()}
    known = {partial.hash: partial for partial in (*old, *new) if partial.hash in differ}
    more = {key: after[key] - before[key] for key in known}
    return (
        [known[key] for key, count in more.items() for _ in range(-count)],
        [known[key] for key, count in more.items() for _ in range(count)],
    )


def compare(went: pl.LazyFrame | None, came: pl.LazyFrame, spec: FeatureSpec) -> Changes:
    """The exact multiset difference, row by row; nothing `went` where it is None."""
    if went is None:
        new = came.select(spec.identity).collect()
        return Changes(new.height, 0, new.select(spec.keys).unique(), times_of(new, spec))
    both = pl.concat(
        [went.with_columns(pl.lit(-1).alias(_SIGN)), came.with_columns(pl.lit(1).alias(_SIGN))]
    )
    columns = [name for name in both.collect_schema().names() if name != _SIGN]
    counted = both.group_by(columns).agg(pl.col(_SIGN).sum()).filter(pl.col(_SIGN) != 0).collect()
    signs = counted[_SIGN]
    no_more = -int(signs.filter(signs < 0).sum())
    entities = counted.select(spec.keys).unique()
    return Changes(int(signs.abs().sum()), no_more, entities, times_of(counted, spec))


def times_of(events: pl.DataFrame, spec: FeatureSpec) -> TimeRange | None:
    """The range of their event times; None where they have none."""
    if spec.timestamp is None or events.is_empty():
        return None
    micros = events[spec.timestamp].to_physical()
    return TimeRange(int(micros.min()), int(micros.max()))  # type: ignore[arg-type]


def _agrees(schema: Schema, candidate: Schema) -> bool:
    """Same columns; dtypes equal, or unknown in the first."""
    return len(schema) == len(candidate) and all(
        _same(a, b) for a, b in zip(schema, candidate, strict=True)
    )


def _same(a: Column, b: Column) -> bool:
    return a.name == b.name and a.dtype in (b.dtype, "Null")

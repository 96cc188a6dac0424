"""How two versions differ: columns, configuration, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mlforge.build.categorizer import DataChange, Decision, Difference, decide
from mlforge.core.arguments import instance
from mlforge.core.manifest import Manifest, config_of
from mlforge.core.schema import FLOATS, Column, Schema
from mlforge.core.values import PRECISION
from mlforge.errors import RetrievalError
from mlforge.store import Store

_SAMPLE = 10
_COUNT, _RANK, _OLD, _NEW = "count", "rank", "old", "new"


@dataclass(frozen=True)
class RowChanges:
    """Counts of rows only in the second table, only in the first, and in both with other values."""

    added: int
    removed: int
    changed: int
    sample: tuple[dict[str, Any], ...]

    @property
    def total(self) -> int:
        """How many rows differ in any way."""
        return self.added + self.removed + self.changed


@dataclass(frozen=True)
class VersionDiff:
    """Changes from version `a` to version `b`, and the kind of bump that they amount to."""

    feature: str
    a: str
    b: str
    bump: str | None
    reason: str
    details: tuple[str, ...]
    columns: Difference
    config: tuple[tuple[str, Any, Any], ...]
    logic_changed: bool
    rows: RowChanges | None

    def to_json(self) -> dict[str, Any]:
        """The document that `mlforge diff --json` shows."""
        rows = self.rows
        return {
            "feature": self.feature,
            "a": self.a,
            "b": self.b,
            "bump": self.bump,
            "reason": self.reason,
            "details": list(self.details),
            "columns": {
                "added": list(self.columns.added),
                "removed": list(self.columns.removed),
                "retyped": list(self.columns.retyped),
            },
            "config": [{"key": key, "a": a, "b": b} for key, a, b in self.config],
            "logic_changed": self.logic_changed,
            "rows": rows
            and {
                "added": rows.added,
                "removed": rows.removed,
                "changed": rows.changed,
                "sample": list(rows.sample),
            },
        }


def diff(store: Store, name: str, a: str, b: str) -> VersionDiff:
    """Compare two versions of a feature; rows only where both have the same keys and timestamp."""
    instance(store, Store, "diff: store", "write LocalStore('feature_store')")
    before, after = store.resolve(name, a), store.resolve(name, b)
    same_identity = before.spec.identity == after.spec.identity
    rows = (
        compare_rows(tables(store, before), tables(store, after), before, after)
        if same_identity
        else None
    )
    decision = _decision(before, after, rows)
    left, right = config_of(before.spec), config_of(after.spec)
    return VersionDiff(
        feature=name,
        a=a,
        b=b,
        bump=decision.bump,
        reason=decision.reason,
        details=decision.details,
        columns=Difference.between(before.columns, after.columns),
        config=tuple(
            (key, left.get(key), right.get(key))
            for key in left | right
            if left.get(key) != right.get(key)
        ),
        logic_changed=before.code_hash != after.code_hash,
        rows=rows,
    )


def tables(store: Store, manifest: Manifest) -> pl.LazyFrame:
    """A published version's rows, lazily."""
    if manifest.version is None:
        raise RetrievalError(f"{manifest.name}: this version has not been published")
    return store.scan_table(manifest)


def compare_rows(a: pl.LazyFrame, b: pl.LazyFrame, before: Manifest, after: Manifest) -> RowChanges:
    """Count the rows that differ, over the columns that both have; with metrics matched by keys and time.

    Floats differ if they do so by more than 1e-9 of the greater one, or of 1 if both are smaller; all else is exact.
    """
    identity, keys = list(after.spec.identity), len(after.spec.keys)
    shared = [c for c in after.columns if c in before.columns and c.name not in identity]
    compared = _Compared(tuple(identity), tuple(shared), keys)
    sides = (rows.select(compared.names) for rows in (a, b))
    left, right = (_numbered(rows, len(compared.names)) for rows in sides)
    if after.spec.columns:
        return _by_identity(left, right, compared)
    return _as_multisets(left, right, compared)


@dataclass(frozen=True)
class _Compared:
    """The columns that are compared, which are numbered meanwhile: whatever their names, none is taken for another one.

    identity: those by which rows are matched, of which the first `keys` are keys. values: the others.
    """

    identity: tuple[str, ...]
    values: Schema
    keys: int

    @property
    def names(self) -> list[str]:
        """All columns, in the order of their numbers."""
        return [*self.identity, *(column.name for column in self.values)]

    @property
    def matched(self) -> list[str]:
        """The numbers of the columns that rows are matched by."""
        return _numbers(len(self.identity))

    @property
    def differ(self) -> pl.Expr:
        """Whether a row differs from its counterpart."""
        first = len(self.identity)
        differs = (_differs(str(n), column) for n, column in enumerate(self.values, first))
        return pl.any_horizontal(pl.lit(False), *differs)

    def sample(self, rows: pl.DataFrame) -> tuple[dict[str, Any], ...]:
        """The keys of the first entities among rows."""
        keys = _numbers(self.keys)
        chosen = rows.select(keys).unique().sort(keys).head(_SAMPLE)
        return tuple(chosen.rename(dict(zip(keys, self.identity, strict=False))).to_dicts())


def _numbers(many: int) -> list[str]:
    return list(map(str, range(many)))


def _numbered(rows: pl.LazyFrame, many: int) -> pl.LazyFrame:
    """Rows whose so many columns have their numbers for names."""
    names = rows.collect_schema().names()
    return rows.select(pl.col(name).alias(n) for name, n in zip(names, _numbers(many), strict=True))


def _by_identity(a: pl.LazyFrame, b: pl.LazyFrame, compared: _Compared) -> RowChanges:
    joined = (
        a.with_columns(pl.lit(True).alias(_OLD))
        .join(
            b.with_columns(pl.lit(True).alias(_NEW)),
            on=compared.matched,
            how="full",
            coalesce=True,
            suffix=_NEW,
        )
        .with_columns(
            added=pl.col(_OLD).is_null(),
            removed=pl.col(_NEW).is_null(),
            changed=pl.col(_OLD).is_not_null() & pl.col(_NEW).is_not_null() & compared.differ,
        )
    )
    differing = joined.filter(pl.col("added") | pl.col("removed") | pl.col("changed")).collect()
    added, removed, changed = differing.select(pl.col("added", "removed", "changed").sum()).row(0)
    return RowChanges(added, removed, changed, compared.sample(differing))


def _as_multisets(a: pl.LazyFrame, b: pl.LazyFrame, compared: _Compared) -> RowChanges:
    names = _numbers(len(compared.names))
    both = pl.concat(
        [a.with_columns(pl.lit(-1).alias(_COUNT)), b.with_columns(pl.lit(1).alias(_COUNT))]
    )
    counted = both.group_by(names).agg(pl.col(_COUNT).sum()).collect()
    first = len(compared.identity)
    floats = [str(n) for n, column in enumerate(compared.values, first) if column.dtype in FLOATS]
    order, at = [*compared.matched, *floats], [*compared.matched, _RANK]
    gone, come = (
        _repeated(counted.filter(pl.col(_COUNT) * sign > 0))
        .sort(order)
        .with_columns(_rank(compared.matched).alias(_RANK))
        for sign in (-1, 1)
    )
    same = gone.join(come, on=at, suffix=_NEW).filter(~compared.differ)
    gone, come = gone.join(same, on=at, how="anti"), come.join(same, on=at, how="anti")
    return RowChanges(come.height, gone.height, 0, compared.sample(pl.concat([gone, come])))


def _rank(identity: Sequence[str]) -> pl.Expr:
    """The number of a row among those of its identity; of an untimed feature without keys, among all."""
    rank = pl.int_range(pl.len())
    return rank.over(identity) if identity else rank


def _repeated(counted: pl.DataFrame) -> pl.DataFrame:
    """Rows repeated by their count."""
    rows = pl.int_range(pl.len()).repeat_by(pl.col(_COUNT).abs()).explode()
    return counted.select(pl.exclude(_COUNT).gather(rows))


def _differs(number: str, column: Column) -> pl.Expr:
    """Whether a column's value differs from its counterpart's. Another order of summing changes the last bits: such floats are the same value."""
    old, new = pl.col(number), pl.col(number + _NEW)
    differs = old.ne_missing(new)
    if column.dtype not in FLOATS:
        return differs
    apart = (old - new).abs()
    near = apart <= PRECISION * pl.max_horizontal(old.abs(), new.abs(), 1.0)
    return differs & ~(near & apart.is_finite()).fill_null(False)


def _decision(before: Manifest, after: Manifest, rows: RowChanges | None) -> Decision:
    return decide(before, after, DataChange(rows=rows.total if rows else 0, entities=None))

"""How two versions differ: columns, configuration, rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mlforge.build.categorizer import DataChange, Decision, Difference, decide
from mlforge.core.manifest import Manifest, config_of
from mlforge.core.schema import FLOATS, Column
from mlforge.core.values import PRECISION
from mlforge.errors import RetrievalError
from mlforge.store import Store

_SAMPLE = 10
_COUNT, _RANK = "__count", "__rank"
# Another order of summing changes the last bits: such floats are the same value.


@dataclass(frozen=True)
class RowChanges:
    """Counts of rows only in the second table, only in the first, and in both with other values."""

    added: int
    removed: int
    changed: int
    sample: tuple[dict[str, Any], ...] = ()

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
    identity = list(after.spec.identity)
    shared = [c for c in after.columns if c in before.columns and c.name not in identity]
    values = [column.name for column in shared]
    if not after.spec.columns:
        a, b = a.select(identity + values), b.select(identity + values)
        return _as_multisets(a, b, shared, identity, list(after.spec.keys))
    joined = (
        a.select(identity + values)
        .with_columns(pl.lit(True).alias("__a"))
        .join(
            b.select(identity + values).with_columns(pl.lit(True).alias("__b")),
            on=identity,
            how="full",
            coalesce=True,
            suffix="__new",
        )
        .with_columns(
            added=pl.col("__a").is_null(),
            removed=pl.col("__b").is_null(),
            changed=pl.col("__a").is_not_null() & pl.col("__b").is_not_null() & _differ(shared),
        )
    )
    differing = joined.filter(pl.col("added") | pl.col("removed") | pl.col("changed")).collect()
    added, removed, changed = differing.select(pl.col("added", "removed", "changed").sum()).row(0)
    return RowChanges(added, removed, changed, _sample(differing, list(after.spec.keys)))


def _as_multisets(
    a: pl.LazyFrame,
    b: pl.LazyFrame,
    values: Sequence[Column],
    identity: Sequence[str],
    keys: Sequence[str],
) -> RowChanges:
    names = a.collect_schema().names()
    both = pl.concat(
        [a.with_columns(pl.lit(-1).alias(_COUNT)), b.with_columns(pl.lit(1).alias(_COUNT))]
    )
    counted = both.group_by(names).agg(pl.col(_COUNT).sum()).collect()
    floats = [column.name for column in values if column.dtype in FLOATS]
    order, at = [*identity, *floats], [*identity, _RANK]
    gone, come = (
        _repeated(counted.filter(pl.col(_COUNT) * sign > 0))
        .sort(order)
        .with_columns(_rank(identity).alias(_RANK))
        for sign in (-1, 1)
    )
    same = gone.join(come, on=at, suffix="__new").filter(~_differ(values))
    gone, come = gone.join(same, on=at, how="anti"), come.join(same, on=at, how="anti")
    return RowChanges(come.height, gone.height, 0, _sample(pl.concat([gone, come]), keys))


def _rank(identity: Sequence[str]) -> pl.Expr:
    """The number of a row among those of its identity; of an untimed feature without keys, among all."""
    rank = pl.int_range(pl.len())
    return rank.over(identity) if identity else rank


def _repeated(counted: pl.DataFrame) -> pl.DataFrame:
    """Rows repeated by their count."""
    rows = pl.int_range(pl.len()).repeat_by(pl.col(_COUNT).abs()).explode()
    return counted.select(pl.exclude(_COUNT).gather(rows))


def _differ(values: Iterable[Column]) -> pl.Expr:
    """Whether a row differs from its `__new` counterpart."""
    return pl.any_horizontal(pl.lit(False), *map(_differs, values))


def _differs(column: Column) -> pl.Expr:
    old, new = pl.col(column.name), pl.col(f"{column.name}__new")
    differs = old.ne_missing(new)
    if column.dtype not in FLOATS:
        return differs
    apart = (old - new).abs()
    near = apart <= PRECISION * pl.max_horizontal(old.abs(), new.abs(), 1.0)
    return differs & ~(near & apart.is_finite()).fill_null(False)


def _sample(rows: pl.DataFrame, keys: Sequence[str]) -> tuple[dict[str, Any], ...]:
    return tuple(rows.select(keys).unique().sort(keys).head(_SAMPLE).to_dicts())


def _decision(before: Manifest, after: Manifest, rows: RowChanges | None) -> Decision:
    return decide(before, after, DataChange(rows=rows.total if rows else 0, entities=None))

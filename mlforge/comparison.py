"""How two versions differ: columns, configuration, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mlforge.errors import RetrievalError
from mlforge.manifest import Manifest, config_of
from mlforge.store import Store
from mlforge.versioning import DataChange, Decision, Difference, decide

_SAMPLE = 10
_COUNT = "__count"


@dataclass(frozen=True)
class RowChanges:
    """Rows of two tables: only in the second, only in the first, in both with other values."""

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
    """What changed from version `a` to version `b`, and the kind of bump that it amounts to."""

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
        config=tuple((key, left[key], right[key]) for key in left if left[key] != right[key]),
        logic_changed=before.code_hash != after.code_hash,
        rows=rows,
    )


def tables(store: Store, manifest: Manifest) -> pl.LazyFrame:
    """A published version's rows, lazily."""
    if manifest.version is None:
        raise RetrievalError(f"{manifest.name}: this version has not been published")
    folder = store.data(manifest.name, manifest.version).parent
    return pl.scan_parquet([folder / part.file for part in manifest.parts], glob=False)


def compare_rows(a: pl.LazyFrame, b: pl.LazyFrame, before: Manifest, after: Manifest) -> RowChanges:
    """Count the rows that differ, over the columns that both have; with metrics matched by keys and time."""
    shared = [c.name for c in after.columns if c in before.columns]
    if not after.spec.columns:
        return _as_multisets(a.select(shared), b.select(shared), list(after.spec.keys))
    identity = list(after.spec.identity)
    values = [name for name in shared if name not in identity]
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
            changed=pl.col("__a").is_not_null()
            & pl.col("__b").is_not_null()
            & pl.any_horizontal(
                pl.lit(False), *(pl.col(v).ne_missing(pl.col(f"{v}__new")) for v in values)
            ),
        )
    )
    differing = joined.filter(pl.col("added") | pl.col("removed") | pl.col("changed")).collect()
    added, removed, changed = differing.select(pl.col("added", "removed", "changed").sum()).row(0)
    return RowChanges(added, removed, changed, _sample(differing, list(after.spec.keys)))


def _as_multisets(a: pl.LazyFrame, b: pl.LazyFrame, keys: Sequence[str]) -> RowChanges:
    names = a.collect_schema().names()
    both = pl.concat(
        [a.with_columns(pl.lit(-1).alias(_COUNT)), b.with_columns(pl.lit(1).alias(_COUNT))]
    )
    counted = both.group_by(names).agg(pl.col(_COUNT).sum()).filter(pl.col(_COUNT) != 0).collect()
    counts = counted[_COUNT]
    return RowChanges(
        int(counts.filter(counts > 0).sum()),
        int(-counts.filter(counts < 0).sum()),
        0,
        _sample(counted, keys),
    )


def _sample(rows: pl.DataFrame, keys: Sequence[str]) -> tuple[dict[str, Any], ...]:
    return tuple(rows.select(keys).unique().sort(keys).head(_SAMPLE).to_dicts())


def _decision(before: Manifest, after: Manifest, rows: RowChanges | None) -> Decision:
    return decide(before, after, DataChange(rows=rows.total if rows else 0))

"""A training set that a history makes: its blast radius must be what making it again says, whatever came between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mlforge import TrainingSet, get_training_data, training_set
from mlforge.errors import MlforgeError
from mlforge.retrieval.labels import Ahead
from mlforge.store import Store
from mlforge.training_sets.blast import BlastRadius
from tests.support.agreement import TALLY

NEAR = 1e-6
"""Floats that are nearer than this, beside the greatest of the set, may count as the same or not: the order of a sum moves them."""


@dataclass(frozen=True)
class Trained:
    """A set, and what it was asked for by."""

    made: TrainingSet
    spine: pl.DataFrame
    features: Any
    labels: Mapping[str, Ahead]

    @classmethod
    def of(
        cls,
        spine: pl.DataFrame,
        features: Any,
        labels: Mapping[str, Ahead],
        store: Store,
        engine: str,
        out: Path,
    ) -> Trained:
        """The set of the versions that are served, three rows a file."""
        made = training_set(
            spine, features, store, out, timestamp="at", engine=engine, part_rows=3, labels=labels
        )
        return cls(made, spine, features, labels)

    def judge(self, store: Store) -> None:
        """Columns of rows that surely differ today are in the radius, and none that are the same."""
        radius = self.made.blast_radius(store)
        try:
            today = get_training_data(
                self.spine, self.features, store=store, timestamp="at", labels=self.labels
            )
        except MlforgeError:  # a service whose columns are gone
            assert radius.unlike
            return
        TALLY["rows of training sets made again"] += self.made.rows
        named = {row: set(columns) for row, columns, _ in radius.rows.iter_rows()}
        for row, column, same in self._compared(radius, pl.DataFrame(today)):
            if same is not None:
                told = column in named.get(row, ())
                assert told is not same, f"row {row} {column}: the radius says {told}"

    def _compared(
        self, radius: BlastRadius, today: pl.DataFrame
    ) -> Iterator[tuple[int, str, bool | None]]:
        """Row, column, and whether its value is the same today; None where rounding decides."""
        then = self.made.read()
        names = [c.name for c in self.made.document.columns if c.name not in radius.unlike]
        assert set(names) <= set(today.columns)
        scale = max(
            (_greatest(frame[name]) for frame in (then, today) for name in names), default=0
        )
        for name in names:
            for row, (a, b) in enumerate(zip(then[name], today[name], strict=True)):
                yield row, name, _same(a, b, scale)


def _greatest(values: pl.Series) -> float:
    if not values.dtype.is_numeric():
        return 0.0
    finite = values.cast(pl.Float64)
    greatest = finite.filter(finite.is_finite()).abs().max()
    return float(greatest) if isinstance(greatest, (int, float)) else 0.0


def _same(one: Any, other: Any, scale: float) -> bool | None:
    if isinstance(one, pl.Series):
        one, other = one.to_list(), None if other is None else other.to_list()
    if repr(one) == repr(other):
        return True
    both = isinstance(one, float) and isinstance(other, float)
    if both and (math.isclose(one, other, rel_tol=NEAR, abs_tol=NEAR * scale) or one == other):
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        inner = [_same(a, b, scale) for a, b in zip(one, other, strict=True)]
        return False if False in inner else None
    return False

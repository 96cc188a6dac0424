"""Which entities an audit looks at, and their rows in plain Python.

An entity is chosen by a hash of its keys: the same ones in every file, in the table and among spines, so
that one that is missing on either side is missed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mlforge.core.reference import Row, plain
from mlforge.frames.time_units import unit_us

Entity = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """The size of a sample: this many entities (None: all), chosen by the seed."""

    entities: int | None = 20
    seed: int = 0


SOME, ALL = Share(), Share(entities=None)


@dataclass(frozen=True)
class Sample:
    """Entities whose draw is at most `limit`, and some by name; the same ones of any frame."""

    keys: tuple[str, ...]
    seed: int
    limit: int | None
    always: tuple[str, ...]

    @classmethod
    def of(
        cls, keys: tuple[str, ...], stored: pl.DataFrame, share: Share, always: Iterable[str]
    ) -> Sample:
        """A sample of the stored entities, by the share; entities that only the files have are added."""
        sample = cls(keys, share.seed, None, tuple(always))
        if share.entities is None or stored.height <= share.entities:
            return sample
        draws = stored.select(sample._draw()).to_series().sort()
        return cls(keys, share.seed, int(draws[share.entities - 1]), sample.always)

    def of_lazy(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The sampled entities' rows; those without a key are of none."""
        chosen = self._text().is_not_null()
        if self.limit is not None:
            drawn = self._draw() <= self.limit
            chosen &= drawn | self._text().is_in(list(self.always)) if self.always else drawn
        return rows.filter(chosen)

    def of_frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The sampled entities' rows; those without a key are of none."""
        return self.of_lazy(rows.lazy()).collect()

    def _text(self) -> pl.Expr:
        texts = [pl.col(key).cast(pl.String) for key in self.keys]
        return pl.concat_str(texts, separator="\x1f") if texts else pl.lit("")

    def _draw(self) -> pl.Expr:
        return self._text().hash(self.seed % 2**63)


def entity_text(entity: Entity) -> str:
    """An entity as a sample spells it."""
    return "\x1f".join(str(v).lower() if isinstance(v, bool) else str(v) for v in entity)


def by_entity(
    frame: pl.DataFrame, keys: Sequence[str], timestamp: str | None = None
) -> dict[Entity, list[Row]]:
    """The rows of each entity; a timestamp that is a date counts as its midnight."""
    rows_by_entity: dict[Entity, list[Row]] = defaultdict(list)
    for row in rows_of(frame, timestamp):
        rows_by_entity[tuple(row[key] for key in keys)].append(row)
    return rows_by_entity


def rows_of(frame: pl.DataFrame, timestamp: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows in plain Python: instants, and a timestamp that is a date, as UTC microseconds."""
    columns = [_values(frame[name], name == timestamp) for name in frame.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(frame.columns, values, strict=True))


def _values(series: pl.Series, is_time: bool) -> list[Any]:
    dtype = series.dtype
    if isinstance(dtype, pl.Datetime) or (dtype == pl.Date and is_time):
        times, divide = unit_us(dtype).as_integer_ratio()
        units = series.to_physical().to_list()
        return [None if unit is None else unit * times // divide for unit in units]
    values = series.to_list()
    return [plain(value) for value in values] if dtype.is_nested() else values

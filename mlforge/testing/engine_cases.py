"""The cases that the contract of engines is told with: dtypes, shapes of history, windows, and the reference's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core import reference
from mlforge.core.aggregations import AGGREGATIONS, output_dtype
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import Rolling, ToDate
from mlforge.engines import POINT, Engine, Events
from mlforge.errors import DataError
from mlforge.frames import normalize
from mlforge.frames.polars_schema import UTC_INSTANT, dtype_text, schema_of
from mlforge.ingest import partials
from mlforge.store.file_tasks import PartialLocation, plan_files

HOUR = 3_600_000_000
NOON = 20_454 * 24 * HOUR + 12 * HOUR
"""An instant in the year 2026."""

VALUES: Mapping[str, tuple[pl.DataType, Sequence[Any]]] = {
    "Int8": (pl.Int8(), (-128, -1, 0, 127)),
    "Int64": (pl.Int64(), (-(2**54) - 1, 3, 0, 2**54 + 1)),
    "UInt64": (pl.UInt64(), (0, 1, 2**53 + 1)),
    "Float32": (pl.Float32(), (0.5, -1.25, 1e10)),
    "Float64": (pl.Float64(), (0.1, -2.5, 1e15, 1e-3)),
    "Decimal": (pl.Decimal(12, 2), (Decimal("0.01"), Decimal("-19.99"), Decimal("1000000.00"))),
    "Boolean": (pl.Boolean(), (True, False, True)),
    "String": (pl.String(), ("", "a", "B", "é", "日本", "a text of many letters")),
    "Date": (pl.Date(), (date(1969, 12, 31), date(2026, 1, 5))),
    "Time": (pl.Time(), (time(0), time(23, 59, 59, 999_999))),
    "Datetime": (
        UTC_INSTANT,
        (datetime(2026, 1, 5, 1, 2, 3, 456_789, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    ),
    "List": (pl.List(pl.Int64), ([2], [], [None, 3], [1, 2], [1])),
    "Array": (pl.Array(pl.Float32, 2), ([0.5, 1.0], [0.5, -1.0], [0.25, 8.0])),
    "Struct": (
        pl.Struct({"a": pl.Int64(), "b": pl.String()}),
        ({"a": 1, "b": "x"}, {"a": None, "b": "z"}, {"a": 1, "b": None}),
    ),
}
"""Each dtype of an event column that metrics aggregate, and values to fill it with."""

SHAPES: Mapping[str, Callable[[], list[tuple[int, int, bool]]]] = {
    "one row": lambda: [(1, NOON, True)],
    "one null": lambda: [(1, NOON, False)],
    "ties": lambda: [(1, NOON + n // 4, n % 5 != 0) for n in range(24)],
    "nulls": lambda: [(n % 2, NOON + n * HOUR // 3, n % 2 == 0) for n in range(16)],
    "sparse": lambda: [(1, NOON + n * 9 * HOUR + n, True) for n in range(8)],
    "dense": lambda: [(n % 2, NOON + n * HOUR // 20, n % 7 != 0) for n in range(100)],
    "many entities": lambda: [(n % 41, NOON + n % 3 * HOUR, n % 6 != 0) for n in range(120)],
    "edges": lambda: [(1, NOON + n * HOUR + by, True) for n in range(5) for by in (-1, 0, 1)],
}
"""Histories as (entity, time, whether there is a value)."""

CONTINUOUS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("1h", {}),
    ("2h", {"closed": "right"}),
    ("3h", {"closed": "left"}),
    ("90m", {"closed": "none"}),
    ("1h", {"offset": "2h"}),
    ("2h", {"offset": "30m", "closed": "left"}),
    ("2h", {"where": "ok"}),
)
ALIGNED: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("1h", {}),
    ("6h", {}),
    ("2h", {"offset": "1h"}),
    ("3h", {"where": "ok"}),
)
WINDOWS: Mapping[str, tuple[Sequence[tuple[str, Mapping[str, Any]]], str | None]] = {
    "continuous": (CONTINUOUS, None),
    "aligned": (ALIGNED, "1h"),
}
"""Windows as (length, options), and the interval of a feature that has them."""

CALENDAR = [
    datetime.fromisoformat(f"{moment}+00:00")
    for moment in (
        "0001-01-01T00:00",  # a Monday, and the first of all
        "0004-02-29T12:00",
        "1900-03-01T00:00",  # no leap year
        "1969-12-31T23:59:59.999999",
        "1970-01-01T00:00",
        "2000-02-29T23:30",
        "2000-03-01T00:00",
        "2020-12-31T01:00",  # ISO week 53 of 2020 ends with the third of January
        "2021-01-01T00:00",
        "2021-01-03T23:59:59.999999",
        "2021-01-04T00:00",
        "2024-12-30T00:00",  # ISO week 1 of 2025
        "2026-07-31T23:00",
        "2026-08-01T00:00",
        "9999-12-30T20:30",
    )
]
"""Instants around which days, ISO weeks, months and years begin."""
_OPTIONS: Sequence[Mapping[str, Any]] = (
    {"closed": "left", "where": "ok"},
    {"closed": "right", "offset": "1h"},
    {"closed": "none", "offset": "40d"},
    {"closed": "left", "offset": "1d"},
)
LONG: Mapping[str, tuple[Sequence[Rolling | ToDate], str | None]] = {
    "continuous": (
        [
            ToDate(["1d", "1w", "1mo", "1y"], {"x": ["sum", "median", "std"]}),
            *(ToDate(["1d", "1mo"], {"x": ["sum", "max"]}, **options) for options in _OPTIONS),
            Rolling("all", {"x": list(AGGREGATIONS)}),
            Rolling("all", {"x": ["sum", "max", "count"]}, closed="none", offset="2d", where="ok"),
        ],
        None,
    ),
    "hourly": (
        [
            ToDate(["1d", "1w", "1mo", "1y"], {"x": list(AGGREGATIONS)}),
            ToDate(["1d", "1mo"], {"x": ["sum", "count"]}, offset="1h", where="ok"),
            Rolling(["all", "3h"], {"x": list(AGGREGATIONS)}),
            Rolling("all", {"x": ["sum", "count"]}, offset="25h", where="ok"),
        ],
        "1h",
    ),
    "daily": (
        [ToDate(["1d", "1w", "1mo"], {"x": ["sum", "min"]}), Rolling("all", {"x": ["sum"]})],
        "1d",
    ),
}
"""Windows without a fixed length, and the interval of a feature that has them."""
CASES = [
    (kind, shape)
    for kind in VALUES
    for shape in (
        SHAPES
        if kind in ("Float64", "Int64", "Decimal")
        else ("one null", "nulls", "edges", "ties")
    )
]
"""Every shape for a float, an integer and a decimal; every dtype for some shapes."""


def possible(dtype: pl.DataType) -> list[str]:
    """The aggregations that go with a dtype."""

    def goes(aggregation: str) -> bool:
        try:
            output_dtype(aggregation, dtype_text(dtype), "")
        except DataError:
            return False
        return True

    return [aggregation for aggregation in AGGREGATIONS if goes(aggregation)]


def stored_events(spec: FeatureSpec, frames: Sequence[pl.DataFrame], folder: Path) -> Events:
    """A scan of some frames, each stored in the folder as a partial of its own."""
    described = []
    for number, frame in enumerate(frames):
        rows = normalize.normalise(spec, frame, "here").frame
        partials.stored(rows).write_parquet(folder / f"{number}.parquet")
        described.append(partials.describe(str(number), rows, spec, {}))
    return Events(
        spec,
        schema_of(rows),
        tuple(described),
        lambda some: plan_files(
            some, [PartialLocation(f"{folder}/{partial.hash}.parquet") for partial in some]
        ),
    )


class Case:
    """A feature over the columns user, at, x, its events in two partials, and the reference's answers.

    A third of the events have true in the column ok; the others false, or null.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[tuple[int, int, Any]],
        metrics: Sequence[Rolling | ToDate],
        interval: str | None = None,
        dtype: pl.DataType | None = None,
    ) -> None:
        self.spec = FeatureSpec.of(
            "f",
            keys=["user"],
            timestamp="at",
            interval=interval,
            metrics=metrics,
            online_clock="data",
        )
        schema = {"user": pl.Int64(), "at": pl.Int64(), "x": dtype or pl.Float64()}
        frame = pl.DataFrame(rows, schema=schema, orient="row", strict=False)
        is_ok = pl.int_range(pl.len()).mod(3).replace_strict({0: True, 1: None, 2: False})
        self.frame = frame.with_columns(pl.col("at").cast(UTC_INSTANT), ok=is_ok.cast(pl.Boolean))
        halves = [self.frame.gather_every(2, offset) for offset in (0, 1)]
        self.events = stored_events(self.spec, halves, folder)
        self._histories: dict[int, reference.History] = {}
        values = [
            {name: reference.plain(v) for name, v in row.items()} for row in self.frame.to_dicts()
        ]
        for user in {row["user"] for row in values}:
            own = [reference.clean(row) for row in values if row["user"] == user]
            self._histories[user] = reference.History.of(self.spec, ["x"], own)

    def history(self, user: int) -> reference.History:
        """A user's events; none for one who was never seen."""
        return self._histories.get(user, reference.History.of(self.spec, ["x"], []))

    def points(self, pairs: Sequence[tuple[int, int]]) -> pl.DataFrame:
        """(user, instant) as an engine takes points."""
        frame = pl.DataFrame(pairs, schema={"user": pl.Int64, POINT: pl.Int64}, orient="row")
        return frame.with_columns(pl.col(POINT).cast(UTC_INSTANT))

    def moments(self) -> list[tuple[int, int]]:
        """Instants at, before, after and between the changes of each user's values; a stranger's, too."""
        pairs = []
        for user in [*sorted(self._histories)[:3], 99]:
            edges = sorted(set(self.history(user).edges()))
            pairs += [(user, edge) for edge in edges[:: 1 + len(edges) // 40]] or [(user, NOON)]
        return pairs

    def check(self, engine: Engine, pairs: Sequence[tuple[int, int]]) -> pl.DataFrame:
        """The engine's values at some points, which must be the reference's."""
        values = engine.values(self.events, self.points(pairs))
        assert values.height == len(pairs)
        assert values.schema == pl.Schema(
            (column.name, dtype)
            for column, dtype in zip(
                self.spec.values(self.events.schema), values.dtypes, strict=True
            )
        )
        for (user, instant), row in zip(pairs, values.iter_rows(named=True), strict=True):
            self.agree(row, user, instant)
        return values

    def agree(self, row: Mapping[str, Any], user: int, instant: int) -> None:
        """Hold a row against the reference's values."""
        for name, cell in self.history(user).value(instant).items():
            assert reference.agree(reference.plain(row[name]), cell), (
                user,
                instant,
                name,
                row[name],
                cell,
            )


def small_case(folder: Path) -> Case:
    """Two users over some hours, with ties and a null."""
    rows = [
        (user, NOON + n * HOUR // 2, None if n == 3 else float(n * user))
        for user in (1, 2)
        for n in (0, 1, 1, 2, 3, 7, 12)
    ]
    metrics = [
        Rolling(["1h", "3h"], {"x": list(AGGREGATIONS)}),
        Rolling("2h", {"x": ["sum", "count"]}, closed="left"),
    ]
    return Case(folder, rows, metrics)

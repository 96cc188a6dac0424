"""The contract of every engine. A backend subclasses `EngineContract` and gives `engine`.

Each answer is compared with that of `mlforge.core.reference`, which computes it from the rows in plain
Python: aggregations x dtypes x shapes of history x windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core import reference
from mlforge.core.aggregations import AGGREGATIONS, empty_value, output_dtype
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import Rolling, ToDate
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, TimeRange, to_us
from mlforge.engines import POINT, Engine, Events
from mlforge.errors import DataError
from mlforge.frames import normalize, polars_schema
from mlforge.frames.polars_schema import UTC_INSTANT, dtype_text, schema_of
from mlforge.ingest import partials
from mlforge.store.file_tasks import PartialLocation, plan_files

HOUR = 3_600_000_000
NOON = 20_454 * 24 * HOUR + 12 * HOUR
"""An instant in the year 2026."""

VALUES: Mapping[str, tuple[pl.DataType, Sequence[Any]]] = {
    "Int8": (pl.Int8(), (-128, -1, 0, 127)),
    "Int64": (pl.Int64(), (-(2**40), 3, 0, 2**40)),
    "UInt64": (pl.UInt64(), (0, 1, 2**53 + 1)),
    "Float32": (pl.Float32(), (0.5, -1.25, 1e10)),
    "Float64": (pl.Float64(), (0.1, -2.5, 1e15, 1e-3)),
    "Decimal": (pl.Decimal(12, 2), (Decimal("0.01"), Decimal("-19.99"), Decimal("1000000.00"))),
    "Boolean": (pl.Boolean(), (True, False, True)),
    "String": (pl.String(), ("", "a", "B", "é", "日本")),
    "Date": (pl.Date(), (date(1969, 12, 31), date(2026, 1, 5))),
    "Time": (pl.Time(), (time(0), time(23, 59, 59, 999_999))),
    "Datetime": (UTC_INSTANT, (datetime(2026, 1, 5, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC))),
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


class EngineContract:
    """Subclass it, and give a fixture `engine`: an `Engine`."""

    @pytest.mark.parametrize("windows", WINDOWS)
    @pytest.mark.parametrize(("kind", "shape"), CASES)
    def test_values_are_those_of_the_reference(
        self, kind: str, shape: str, windows: str, engine: Engine, tmp_path: Path
    ) -> None:
        """Every aggregation of a dtype, over every window, at the instants where values change."""
        dtype, chosen = VALUES[kind]
        spans, interval = WINDOWS[windows]
        values = cycle(chosen)
        rows = [(u, t, next(values) if is_there else None) for u, t, is_there in SHAPES[shape]()]
        metrics = [Rolling(span, {"x": possible(dtype)}, **options) for span, options in spans]
        case = Case(tmp_path, rows, metrics, interval, dtype)
        found = case.check(engine, case.moments())
        told = {column.name: column.dtype for column in case.spec.values(case.events.schema)}
        assert {name: dtype_text(dtype) for name, dtype in found.schema.items()} == told

    @pytest.mark.parametrize("windows", LONG)
    def test_periods_to_date_and_all_time_are_those_of_the_reference(
        self, windows: str, engine: Engine, tmp_path: Path
    ) -> None:
        """At and beside the starts of days, weeks, months and years, from the year 1 on."""
        metrics, interval = LONG[windows]
        times = [
            to_us(instant) + by for instant in CALENDAR for by in (0, 0, HOUR // 4, 90 * HOUR // 60)
        ]
        times += [to_us(instant) - 1 for instant in CALENDAR[1:]]
        rows = [(n % 2, time, None if n % 7 == 3 else n * 0.25) for n, time in enumerate(times)]
        case = Case(tmp_path, rows, metrics, interval)
        pairs = [(user, time + by) for user in (0, 1) for time in times for by in (0, 30 * HOUR)]
        pairs = [(user, min(time, LAST_INSTANT)) for user, time in [*pairs, *case.moments()[::3]]]
        case.check(engine, pairs)
        case.check(engine, pairs[:3])
        if interval is None:
            for row in engine.rows(case.events).with_columns(pl.col("at").to_physical()).to_dicts():
                case.agree(row, row["user"], row["at"])

    def test_no_points_give_no_rows_of_the_same_columns(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        case = small_case(tmp_path)
        some = engine.values(case.events, case.points([(1, NOON)]))
        assert engine.values(case.events, case.points([])).schema == some.schema

    def test_answers_stand_in_the_order_of_the_points_and_as_often(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        case = small_case(tmp_path)
        pairs = case.moments()
        shuffled = [*reversed(pairs), pairs[0], *pairs[::3]]
        case.check(engine, shuffled)

    def test_a_column_without_any_value_counts_nothing(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        metrics = [Rolling("1h", {"x": list(AGGREGATIONS)})]
        case = Case(tmp_path, [(1, NOON, None), (1, NOON, None)], metrics, dtype=pl.Null())
        [row] = engine.values(case.events, case.points([(1, NOON)])).to_dicts()
        assert row == {f"x__{name}__1h": empty_value(name) for name in AGGREGATIONS}

    def test_rows_are_one_for_each_entity_and_instant_by_time_then_key(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        case = small_case(tmp_path)
        rows = engine.rows(case.events)
        expected = {(t, user) for user in case.frame["user"] for t in case.history(user).points()}
        stamped = rows.with_columns(pl.col("at").to_physical())
        assert stamped.select("at", "user").rows() == sorted(expected)
        for row in stamped.iter_rows(named=True):
            case.agree(row, row["user"], row["at"])

    def test_rows_of_some_entities_and_a_range_of_time_are_the_same_as_among_all(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        case = small_case(tmp_path)
        among, times = pl.DataFrame({"user": [1]}), TimeRange(NOON + HOUR, NOON + 4 * HOUR)
        every = engine.rows(case.events)
        inside = pl.col("at").to_physical().is_between(times.start, times.end)
        expected = every.filter(inside, user=1)
        assert expected.height
        assert engine.rows(case.events, among, times).equals(expected, null_equal=True)

    @pytest.mark.parametrize(
        "values",
        [
            pl.Series([2**63 - 1, 1], dtype=pl.Int64),
            pl.Series([-(2**63), -1], dtype=pl.Int64),
            pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
            pl.Series(["9" * 36 + ".99"] * 120, dtype=pl.String).cast(pl.Decimal(38, 2)),
        ],
        ids=["above", "below", "unsigned", "decimal"],
    )
    def test_a_sum_that_does_not_fit_is_an_error_that_names_the_column(
        self, values: pl.Series, engine: Engine, tmp_path: Path
    ) -> None:
        rows = [(1, NOON, value) for value in values]
        case = Case(tmp_path, rows, [Rolling("1h", {"x": "sum"})], dtype=values.dtype)
        with pytest.raises(DataError, match="f: x__sum__1h does not fit"):
            engine.values(case.events, case.points([(1, NOON)]))

    def test_a_large_value_leaves_no_trace_once_it_left_the_window(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        values = [1e17, 1.0, -1e17, 0.1, 0.2, 0.3]
        rows = [(1, NOON + n * HOUR, value) for n, value in enumerate(values)]
        case = Case(tmp_path, rows, [Rolling("1h", {"x": ["sum", "mean", "std"]})])
        last = case.check(engine, [(1, NOON + 5 * HOUR)])
        assert last["x__sum__1h"].item() == pytest.approx(0.5, abs=1e-12)

    def test_a_result_that_is_not_finite_is_null(self, engine: Engine, tmp_path: Path) -> None:
        rows = [(1, NOON, 1.7e308), (1, NOON, 1.7e308)]
        case = Case(tmp_path, rows, [Rolling("1h", {"x": ["sum", "max"]})])
        assert engine.values(case.events, case.points([(1, NOON)])).rows() == [(None, 1.7e308)]

    def test_percentiles_lie_between_the_greatest_floats(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        rows = [(1, NOON + n // 2 * HOUR, value) for n, value in enumerate([1.7e308, -1.7e308] * 2)]
        rows += [(2, NOON, 1.7e308), (2, NOON, 1.6e308), (3, NOON, 5e-324)]
        names = ["median", "p1", "p25", "p50", "p99_9", "min", "last", "top_2"]
        case = Case(tmp_path, rows, [Rolling(["1h", "9h"], {"x": names})])
        case.check(engine, [(user, NOON + n * HOUR) for user in (1, 2) for n in (0, 1, 2, 12)])

    def test_values_at_both_ends_of_time(self, engine: Engine, tmp_path: Path) -> None:
        ends = [FIRST_INSTANT, FIRST_INSTANT + 1, 0, LAST_INSTANT - 1, LAST_INSTANT]
        rows = [(1, instant, float(n)) for n, instant in enumerate(ends)]
        metrics = [
            Rolling("1ms", {"x": list(AGGREGATIONS)}),
            Rolling("3652059d", {"x": ["sum", "count"]}, offset="1d", closed="none"),
        ]
        Case(tmp_path, rows, metrics).check(engine, [(1, instant) for instant in ends])

    @pytest.mark.parametrize(
        "names", [("amount", "Amount"), ("ß", "SS"), ('a"b', "a'b"), ("user", "USER")]
    )
    def test_columns_keep_their_own_values_whatever_their_names(
        self, names: tuple[str, str], engine: Engine, tmp_path: Path
    ) -> None:
        first, second = names
        spec = FeatureSpec.of(
            "f",
            keys=["KEY"],
            timestamp="at",
            interval=None,
            metrics=[Rolling("1h", {first: ["sum", "max"], second: ["sum", "max"]})],
            online_clock="data",
        )
        frame = pl.DataFrame({"KEY": [True], "at": [NOON], first: [1.0], second: [100.0]})
        scan = stored_events(spec, [frame.with_columns(pl.col("at").cast(UTC_INSTANT))], tmp_path)
        points = pl.DataFrame({"KEY": [True], POINT: [NOON]})
        values = engine.values(scan, points.with_columns(pl.col(POINT).cast(UTC_INSTANT)))
        assert values.rows() == [(1.0, 1.0, 100.0, 100.0)]

    def test_keys_of_every_dtype_and_several_of_them_tell_entities_apart(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        keys = pl.DataFrame(
            {
                "text": ["a", "A", "", "a"],
                "number": [1, 1, 1, 2],
                "flag": [True, True, False, True],
                "day": [date(2026, 1, 1)] * 3 + [date(1, 1, 1)],
            }
        )
        spec = FeatureSpec.of(
            "f",
            keys=keys.columns,
            timestamp="at",
            interval=None,
            metrics=[Rolling("1h", {"x": ["sum", "count"]})],
            online_clock="data",
        )
        at = pl.lit(NOON).cast(UTC_INSTANT)
        frame = keys.with_columns(at.alias("at"), pl.Series("x", [1.0, 2.0, 4.0, 8.0]))
        scan = stored_events(spec, [frame, frame.head(1)], tmp_path)
        values = engine.values(scan, keys.with_columns(at.alias(POINT)))
        assert values.rows() == [(2.0, 2), (2.0, 1), (4.0, 1), (8.0, 1)]

    @pytest.mark.parametrize("interval", [None, "1h"])
    def test_without_keys_all_events_are_one_entitys(
        self, interval: str | None, engine: Engine, tmp_path: Path
    ) -> None:
        spec = FeatureSpec.of(
            "f",
            keys=[],
            timestamp="at",
            interval=interval,
            metrics=[Rolling("2h", {"x": ["sum", "count", "median"]})],
            online_clock="data",
        )
        hours = pl.Series("at", [NOON + n * HOUR for n in (0, 1, 5)]).cast(UTC_INSTANT)
        frame = pl.DataFrame({"at": hours, "x": [1.0, 2.0, 4.0]})
        scan = stored_events(spec, [frame, frame.head(1)], tmp_path)
        at = pl.Series(POINT, [NOON + n * HOUR for n in (2, 6, 9)]).cast(UTC_INSTANT)
        points = polars_schema.with_entities(pl.DataFrame([at]), spec)
        assert engine.values(scan, points).rows() == [(4.0, 3, 1.0), (4.0, 1, 4.0), (None, 0, None)]


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

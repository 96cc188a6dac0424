"""The contract of every engine. A backend subclasses `EngineContract` and gives `engine`.

Each answer is compared with that of `mlforge.core.reference`, which computes it from the rows in plain
Python: aggregations x dtypes x shapes of history x windows.
"""

from __future__ import annotations

from datetime import date
from itertools import cycle
from pathlib import Path

import polars as pl
import pytest

from mlforge.core.aggregations import AGGREGATIONS, empty_value
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import Rolling
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, TimeRange, to_us
from mlforge.engines import POINT, Engine
from mlforge.errors import DataError
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import FIRST, LAST, EntityTimes
from mlforge.frames.polars_schema import UTC_INSTANT, dtype_text
from mlforge.testing.engine_cases import (
    CALENDAR,
    CASES,
    HOUR,
    LONG,
    NOON,
    SHAPES,
    VALUES,
    WINDOWS,
    Case,
    possible,
    small_case,
    stored_events,
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
        table = case.check(engine, case.moments())
        told = {column.name: column.dtype for column in case.spec.values(case.events.schema)}
        assert {name: dtype_text(dtype) for name, dtype in table.schema.items()} == told

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

    @pytest.mark.parametrize("kind", ["Float64", "String", "Boolean", "Date", "List"])
    def test_the_order_of_rows_and_files_shows_nowhere(
        self, kind: str, engine: Engine, tmp_path: Path
    ) -> None:
        """Rows of one instant are taken by their values, also 0.0 and -0.0."""
        dtype, chosen = VALUES[kind]
        values = [*chosen, *chosen[:1], *([0.0, -0.0, 0.0] if kind == "Float64" else [])]
        rows = [(1, NOON + n // 9, value) for n, value in enumerate(values * 3)]
        metrics = [Rolling(["1ms", "1h"], {"x": possible(dtype)})]
        answers = []
        for number, order in enumerate((rows, rows[::-1], sorted(rows, key=repr))):
            (tmp_path / str(number)).mkdir()
            case = Case(tmp_path / str(number), order, metrics, dtype=dtype)
            inexact = pl.selectors.matches("__(mean|std|var|sum)__")
            # As text, which tells -0.0 from 0.0.
            answers.append(case.check(engine, case.moments()).select(~inexact).write_json())
        assert answers[0] == answers[1] == answers[2]

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
        ranges = {1: (NOON + HOUR, NOON + 4 * HOUR), 2: (NOON, NOON + 2 * HOUR)}
        rows = [{"user": user, FIRST: a, LAST: b} for user, (a, b) in ranges.items()]
        own = EntityTimes(pl.DataFrame(rows))
        every, time = engine.rows(case.events), pl.col("at").to_physical()
        of_two = pl.concat(
            every.filter(time.is_between(*ends), user=u) for u, ends in ranges.items()
        )
        assert set(of_two["user"]) == set(ranges)
        assert engine.rows(case.events, own).equals(of_two.sort("at", "user"), null_equal=True)
        times = TimeRange(*ranges[1])
        inside = every.filter(time.is_between(times.start, times.end))
        assert inside.height > of_two.filter(user=1).height
        assert engine.rows(case.events, times).equals(inside, null_equal=True)

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

    def test_equal_values_that_have_no_squares_do_not_deviate(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        rows = [(1, NOON, 1e300), (1, NOON, 1e300), (2, NOON, 1e-300), (2, NOON + 1, -1e155)]
        case = Case(tmp_path, rows, [Rolling("1h", {"x": ["std", "var", "mean"]})])
        case.check(engine, [(1, NOON), (2, NOON), (2, NOON + 1)])

    def test_percentiles_lie_between_the_greatest_floats(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        rows = [(1, NOON + n // 2 * HOUR, value) for n, value in enumerate([1.7e308, -1.7e308] * 2)]
        rows += [(2, NOON, 1.7e308), (2, NOON, 1.6e308), (3, NOON, 5e-324)]
        names = ["median", "p1", "p25", "p50", "p99_9", "min", "last", "top_2"]
        case = Case(tmp_path, rows, [Rolling(["1h", "9h"], {"x": names})])
        case.check(engine, [(user, NOON + n * HOUR) for user in (1, 2) for n in (0, 1, 2, 12)])

    @pytest.mark.parametrize("size", [5e-324, 3e-310, 1e-300])
    def test_percentiles_of_the_least_floats_are_none_but_these(
        self, size: float, engine: Engine, tmp_path: Path
    ) -> None:
        rows = [(1, NOON + n * HOUR, size) for n in range(4)] + [(2, NOON, size), (2, NOON, -size)]
        names = ["median", "p10", "p50", "p99"]
        case = Case(tmp_path, rows, [Rolling("9h", {"x": names})])
        values = engine.values(case.events, case.points([(1, NOON + 3 * HOUR), (2, NOON)]))
        assert values.row(0) == (size,) * 4
        case.check(engine, [(2, NOON)])

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
                "number": [2**53, 2**53, 2**53, 2**53 + 1],
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
        assert engine.rows(scan).select(keys.columns).rows() == sorted(keys.rows())

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

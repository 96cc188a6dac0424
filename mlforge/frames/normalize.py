"""From the rows that a feature's function returns to events: one time zone, no surprises.

Instants become UTC microseconds, non-finite floats null; rows without a key or a time are left out
and counted; what the time model cannot hold is refused with the expression that would mend it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from mlforge.core.aggregations import output_dtype
from mlforge.core.schema import check_condition
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, TimeRange, from_us
from mlforge.errors import DataError
from mlforge.frames import milliseconds, nested_values, polars_schema
from mlforge.frames.polars_schema import UTC_INSTANT, dtype_text
from mlforge.frames.row_order import is_sorted
from mlforge.frames.time_units import in_us

if TYPE_CHECKING:
    from mlforge.core.feature_spec import FeatureSpec

_INTERNAL = "__"
_NUMBER = f"{_INTERNAL}number"  # of the run that a row is in
_INT64 = TimeRange(-(2**63), 2**63 - 1)
_INTEGERS: frozenset[type[pl.DataType]] = frozenset(
    {pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64}
)
_TEXTS = frozenset({pl.String, pl.Categorical, pl.Enum})
_KEYS = _INTEGERS | _TEXTS | {pl.Boolean, pl.Date, pl.Null}
_HELD = _KEYS | {pl.Float32, pl.Float64, pl.Decimal, pl.Datetime, pl.Time}

# What would mend a column that is refused, by its dtype; `{}` stands for the column.
_MEND_KEY: dict[type[pl.DataType], str] = {
    **dict.fromkeys(
        (pl.Float16, pl.Float32, pl.Float64),
        "pl.col({!r}).cast(pl.Int64) (pandas turns integers with missing values into floats)",
    ),
    pl.Datetime: "pl.col({!r}).dt.date()",
    pl.Binary: 'pl.col({!r}).cast(pl.String) if it holds text, else .bin.encode("hex"), under '
    "@feature(incremental=True), as nothing proves functions of .bin row-wise",
    pl.Int128: "pl.col({!r}).cast(pl.Int64)",
    pl.UInt128: "pl.col({!r}).cast(pl.UInt64)",
}
_MEND_TIME: dict[type[pl.DataType], str] = {
    # With a format: where polars guesses one from the data, the function is not row-wise.
    pl.String: "pl.col({!r}).str.to_datetime('%Y-%m-%d %H:%M:%S'), or the format that it has",
    pl.Categorical: "pl.col({!r}).cast(pl.String).str.to_datetime('%Y-%m-%d %H:%M:%S'), or the format that it has",
    **dict.fromkeys(
        _INTEGERS, 'pl.from_epoch({!r}, time_unit="s"), or "ms" or "us" as the column counts'
    ),
    pl.Float64: 'pl.from_epoch(pl.col({!r}).cast(pl.Int64), time_unit="s"), or as the column counts',
}
_MEND: dict[type[pl.DataType], str] = {
    pl.Duration: "pl.col({!r}).dt.total_microseconds()",
    pl.Int128: "pl.col({!r}).cast(pl.Int64)",
    pl.UInt128: "pl.col({!r}).cast(pl.UInt64)",
    pl.Float16: "pl.col({!r}).cast(pl.Float32)",
    pl.Binary: 'pl.col({!r}).cast(pl.String), or .bin.encode("hex")',
    pl.List: "pl.col({!r}).list.len(), or .explode()",
    pl.Array: "pl.col({!r}).arr.get(0), or .explode()",
    pl.Struct: "pl.col({!r}).struct.field(...)",
}


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows left out for a null key, or else for a null time, and floats that became null."""

    null_key: int = 0
    null_time: int = 0
    non_finite: int = 0


@dataclass(frozen=True, slots=True)
class EventFrame:
    """Normalised events, sorted by time, then keys. `naive`: the timestamp had no time zone. listed: the columns that were Enums."""

    frame: pl.DataFrame
    dropped: Dropped
    naive: bool
    listed: frozenset[str]


def normalise(spec: FeatureSpec, frame: pl.DataFrame, where: str) -> EventFrame:
    """Bring a function's rows into the form that everything after relies on.

    Every Datetime becomes Datetime(us, UTC): a naive one is taken as UTC, nanoseconds are floored.
    A timestamp of dtype Date is its midnight. Categories become strings. Columns keep their order;
    rows of one time and key keep theirs.
    Raises ColumnNotFound, or DataError for a dtype or a time that cannot be held.
    """
    frame = _checked(spec, frame, where)
    counts = _Counts.of(spec, frame)
    null_key, null_time = counts.null_key, counts.null_time
    if null_key or null_time:
        frame = frame.filter(_has_key(spec) & _has_time(spec))
        counts = _Counts.of(spec, frame)
    _check_times(spec, frame.schema, counts.bounds, where)
    events = _in_form(frame, spec)
    if not is_sorted(events, spec.order):
        events = _sorted(events, spec.order)
    dropped = Dropped(null_key, null_time, counts.non_finite)
    return EventFrame(events, dropped, _has_naive_time(spec, frame), _listed(frame))


def normalise_together(
    spec: FeatureSpec, frame: pl.DataFrame, heights: Sequence[int], where: str
) -> EventFrame | None:
    """The events of several runs in one frame: those that `normalise` gives for each run, one run behind the other.

    heights: the number of rows of each run, in order.

    None where a row would be left out or a value become null, as that counts for its own run.
    Raises as `normalise` does, of the whole frame.
    """
    frame = _checked(spec, frame, where)
    counts = _Counts.of(spec, frame)
    if counts.null_key or counts.null_time or counts.non_finite:
        return None
    _check_times(spec, frame.schema, counts.bounds, where)
    events = _in_form(frame, spec)
    if not is_sorted(events, spec.order, heights):
        runs = pl.DataFrame({"n": range(len(heights)), "rows": heights})
        number = runs.select(pl.col("n").repeat_by("rows").explode()).to_series()
        numbered = events.with_columns(number.alias(_NUMBER))
        events = _sorted(numbered, [_NUMBER, *spec.order]).drop(_NUMBER)
    return EventFrame(events, Dropped(), _has_naive_time(spec, frame), _listed(frame))


def _checked(spec: FeatureSpec, frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """The frame without what the feature need not hold, once all its columns can be held."""
    for name in spec.needed():
        if name not in frame.columns:
            raise spec.lacks(name, frame.columns, where)
    frame = _without_unneeded(spec, frame)
    for name, dtype in frame.schema.items():
        _check(spec, name, dtype, where)
    nested = (each for each in frame.get_columns() if each.dtype.is_nested())
    milliseconds.check_held(nested, where)
    return frame


def _in_form(frame: pl.DataFrame, spec: FeatureSpec) -> pl.DataFrame:
    """The frame's columns in the form of events."""
    columns = [_normal(name, dtype, name == spec.timestamp) for name, dtype in frame.schema.items()]
    return polars_schema.in_memory(frame.lazy().with_columns(columns)).rechunk()


def _sorted(events: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    plan = events.lazy().sort(order, maintain_order=True)
    return polars_schema.in_memory(plan).rechunk()


def _has_naive_time(spec: FeatureSpec, frame: pl.DataFrame) -> bool:
    """Whether the timestamp has no time zone."""
    return spec.timestamp is not None and _is_naive(frame.schema[spec.timestamp])


def _listed(frame: pl.DataFrame) -> frozenset[str]:
    """The columns whose values are members of a list."""
    return frozenset(name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Enum))


@dataclass(frozen=True, slots=True)
class _Counts:
    """Rows without a key, or else without a time, values that are not finite, and the bounds of instants by column."""

    null_key: int
    null_time: int
    non_finite: int
    bounds: Mapping[str, tuple[int | None, int | None]]

    @classmethod
    def of(cls, spec: FeatureSpec, frame: pl.DataFrame) -> _Counts:
        """The counts of a frame, in one pass."""
        has_key, has_time = _has_key(spec), _has_time(spec)
        instants = [
            n
            for n, dtype in frame.schema.items()
            if n == spec.timestamp or milliseconds.is_coarse(dtype)
        ]
        floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
        null_key, null_time, *rest = frame.select(
            (~has_key).sum().alias("null_key"),
            (has_key & ~has_time).sum().alias("null_time"),
            *(pl.col(n).to_physical().min().alias(f"min {i}") for i, n in enumerate(instants)),
            *(pl.col(n).to_physical().max().alias(f"max {i}") for i, n in enumerate(instants)),
            *((~pl.col(n).is_finite()).sum().alias(f"float {i}") for i, n in enumerate(floats)),
        ).row(0)
        non_finite = sum(
            nested_values.count_non_finite(frame[name])
            for name, dtype in frame.schema.items()
            if dtype.is_nested()
        )
        count = len(instants)
        non_finite += sum(rest[2 * count :])
        bounds = zip(rest[:count], rest[count : 2 * count], strict=True)
        return cls(null_key, null_time, non_finite, dict(zip(instants, bounds, strict=True)))


def _has_key(spec: FeatureSpec) -> pl.Expr:
    """Whether a row has all of its keys."""
    return pl.all_horizontal(pl.lit(True), *(pl.col(key).is_not_null() for key in spec.keys))


def _has_time(spec: FeatureSpec) -> pl.Expr:
    """Whether a row has a time, or needs none."""
    return pl.lit(True) if spec.timestamp is None else pl.col(spec.timestamp).is_not_null()


def _without_unneeded(spec: FeatureSpec, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame without what a feature with metrics neither needs nor could hold.

    A column of such a dtype counts as null, as one does whose dtype goes with no other file's, and so does an
    instant that microseconds cannot hold; a column of such a name goes. A feature without metrics serves all
    columns, so it needs them.
    """
    if not spec.columns:
        return frame
    further = [name for name in frame.columns if name not in spec.needed()]
    unnamed = [name for name in further if _misnamed(name) is not None]
    unheld = [name for name in further if frame.schema[name].base_type() not in _HELD]
    coarse = [name for name in further if milliseconds.is_coarse(frame.schema[name])]
    if not unnamed and not unheld and not coarse:
        return frame
    nulls = [pl.lit(None).alias(name) for name in unheld]
    return frame.with_columns(*nulls, *map(milliseconds.held, coarse)).drop(unnamed)


def as_utc(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A Datetime or Date expression as Datetime(us, UTC); naive is UTC, nanoseconds are floored."""
    # Not by a cast of the dtype: its rounding is for polars to change.
    if isinstance(dtype, pl.Datetime):
        return in_us(expr.to_physical(), dtype).cast(UTC_INSTANT)
    if dtype == pl.Date:
        return in_us(expr.to_physical().cast(pl.Int64), dtype).cast(UTC_INSTANT)
    return expr.cast(UTC_INSTANT)


def _normal(name: str, dtype: pl.DataType, is_time: bool) -> pl.Expr:
    column = pl.col(name)
    if is_time:
        return as_utc(column, dtype)
    return nested_values.in_form(column, dtype, _plain_form, _has_other_form).alias(name)


def _plain_form(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return as_utc(value, dtype)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return value.cast(pl.String)
    return polars_schema.finite(value, dtype)


def _has_other_form(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Datetime):
        return dtype != UTC_INSTANT
    return dtype.is_float() or isinstance(dtype, (pl.Categorical, pl.Enum))


def _is_naive(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.Datetime) and dtype.time_zone is None


def _misnamed(name: str) -> str | None:
    """Why no feature can hold a column of this name, and the way out; None if one can."""
    if name.startswith(_INTERNAL):
        pandas = "pandas wrote its index: drop it, or write with index=False"
        mend = pandas if name.startswith("__index_level_") else "rename it"
        return f"column {name!r} begins with {_INTERNAL!r}, which is kept for mlforge; {mend}"
    if name == "*" or (name.startswith("^") and name.endswith("$")):
        return f"polars takes the column name {name!r} for a pattern; rename it"
    if "\0" in name:
        return f"no library takes the zero byte in column {name!r}; rename it"
    return None


def _check(spec: FeatureSpec, name: str, dtype: pl.DataType, where: str) -> None:
    kind = dtype.base_type()
    if (reason := _misnamed(name)) is not None:
        raise DataError(f"{where}: {reason}")
    if name in spec.keys and kind not in _KEYS:
        raise _refused(
            where,
            f"key {name!r}",
            dtype,
            "keys are integers, strings, booleans or dates",
            _MEND_KEY.get(kind, _MEND.get(kind, "pl.col({!r}).cast(pl.String)")).format(name),
        )
    if name == spec.timestamp and kind not in (pl.Datetime, pl.Date, pl.Null):
        raise _refused(
            where,
            f"timestamp {name!r}",
            dtype,
            "a timestamp is a Datetime or a Date",
            _MEND_TIME.get(kind, "a column of Datetime").format(name),
        )
    if (bad := nested_values.unheld(dtype, _HELD)) is not None:
        within = "it" if bad == dtype else f"{dtype_text(bad)} within it"
        mend = _MEND.get(kind, "select() with the columns you need, or a cast")
        if kind in nested_values.NESTED and kind is not pl.Struct:
            mend = "pl.col({!r}).cast(pl.List(pl.String)), or of another dtype within"
        raise _refused(
            where, f"column {name!r}", dtype, f"a feature cannot hold {within}", mend.format(name)
        )
    for metric in spec.columns:
        if metric.column == name and name not in spec.keys:
            _check_metric(metric.aggregation, name, dtype, where)
    if name in spec.conditions:
        check_condition(name, dtype_text(dtype), where)


def _check_metric(aggregation: str, name: str, dtype: pl.DataType, where: str) -> None:
    """Refuse a column whose dtype a metric cannot aggregate. Raises DataError."""
    if isinstance(dtype, pl.Enum) and aggregation in ("min", "max"):
        raise _refused(
            where,
            f"column {name!r}",
            dtype,
            f"its {aggregation} could go by its order or its letters",
            f"pl.col({name!r}).cast(pl.String) or .to_physical()",
        )
    if dtype == pl.Null or isinstance(dtype, pl.Datetime):
        return
    text = "String" if dtype.base_type() in _TEXTS else dtype_text(dtype)
    try:
        output_dtype(aggregation, text, f"{where}: column {name!r}")
    except DataError as error:
        mend = f"pl.col({name!r}).cast(pl.Float64)"
        if dtype.is_nested():
            mend = _MEND[dtype.base_type()].format(name)
        raise DataError(f"{error}: {mend}") from error


def _refused(where: str, what: str, dtype: pl.DataType, rule: str, mend: str) -> DataError:
    return DataError(f"{where}: {what} is {dtype_text(dtype)}; {rule}; use {mend}")


def _check_times(
    spec: FeatureSpec,
    schema: Mapping[str, pl.DataType],
    bounds: Mapping[str, tuple[int | None, int | None]],
    where: str,
) -> None:
    """Refuse event times that no calendar has, and other instants that microseconds cannot hold.

    bounds: the least and the greatest physical value of each column of instants.
    """
    for name, (low, high) in bounds.items():
        dtype = schema[name]
        legal = TimeRange(FIRST_INSTANT, LAST_INSTANT) if name == spec.timestamp else _INT64
        for value in (low, high):
            if value is not None and not legal.start <= in_us(value, dtype) <= legal.end:
                raise milliseconds.no_time(name, value, dtype, where)
        if name == spec.timestamp and high is not None:
            _check_boundary(spec, in_us(high, dtype), where)


def _check_boundary(spec: FeatureSpec, time: int, where: str) -> None:
    """Refuse an event whose interval ends after the year 9999."""
    if not spec.holds(TimeRange(time, time)):
        raise DataError(
            f"{where}: column {spec.timestamp!r} holds {from_us(time)}, and the interval of {spec.interval} "
            "in which it lies ends after the year 9999; check the unit that it was made with, or "
            "filter such rows in the feature's function"
        )

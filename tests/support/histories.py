"""Hypothesis strategies: small worlds in which ties, window borders and odd values are hit often.

A `World` says what the files look like, a `Plan` is a feature as data. A plan is told twice: to the
library (`Plan.library`) and to the oracle (`Plan.oracle`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import polars as pl
from hypothesis import strategies as st

import mlforge
from mlforge.core import metrics
from tests.support import oracle
from tests.support.oracle import Events

Row = dict[str, Any]
Rows = list[Row]
Frame = Any

NAME = "f"
UNITS = {"ms": 1_000, "h": 3_600_000_000, "d": 86_400_000_000}
YEAR_2020 = 1_577_836_800_000_000
FAR_FUTURE = 4_102_444_800_000_000  # 2100-01-01
CASTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "utc": lambda us: us.cast(pl.Datetime("us", "UTC")),
    "naive": lambda us: us.cast(pl.Datetime("us")),
    "berlin": lambda us: us.cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("Europe/Berlin"),
    "ms": lambda us: (us // 1_000).cast(pl.Datetime("ms")),
    # Nanoseconds are floored, so 999 of them never reach the next microsecond.
    "ns": lambda us: (us * 1_000 + 999).cast(pl.Datetime("ns")),
    "date": lambda us: us.cast(pl.Datetime("us")).dt.date(),
}
COARSE = ("ms", "date")

KEYS: dict[str, tuple[pl.DataType, tuple[Any, ...], Any]] = {
    # kind: dtype, values, one that no row has
    "int": (pl.Int64(), (1, 2, -3), 99),
    "small": (pl.Int32(), (0, 7, 2**31 - 1), 99),
    "str": (pl.String(), ("a", "x|", "|y"), "zz"),
    "digits": (pl.String(), ("1", "01", ""), "2"),
    "bool": (pl.Boolean(), (True, False), False),
    "date": (pl.Date(), (date(2024, 2, 29), date(1969, 12, 31)), date(2000, 1, 1)),
}

ORDERED = (
    *("count", "min", "max", "first", "last", "first_time", "last_time", "first_2", "last_1"),
    *("last_3", "count_distinct", "mode", "top_1", "top_2"),
)
NESTED = ("count", "first", "last", "first_time", "last_time", "first_2", "last_1", "last_3")
NUMERIC = (*ORDERED, "sum", "mean", "std", "median", "var", "p10", "p50", "p99_9")
FLOATS = (
    *(1.0, 2.5, -3.0, 0.1, 0.7, 1e-3, 1e15, -1e15),
    *(None, None, 0.0, -0.0),
    *(math.nan, math.inf, -math.inf),
)
COLUMNS: dict[str, tuple[pl.DataType, tuple[Any, ...], tuple[str, ...]]] = {
    # kind: dtype, values, aggregations
    "f64": (pl.Float64(), FLOATS, NUMERIC),
    "f32": (
        pl.Float32(),
        tuple(x and struct.unpack("f", struct.pack("f", x))[0] for x in FLOATS),
        NUMERIC,
    ),
    "i64": (pl.Int64(), (0, 1, 2, -5, 100, 2**53 + 1, -(2**53) - 1, None), NUMERIC),
    "i8": (pl.Int8(), (0, 1, -5, 100, 127, -128, None), NUMERIC),
    "u32": (pl.UInt32(), (0, 1, 3, 2**32 - 1, None), NUMERIC),
    "bool": (pl.Boolean(), (True, False, None), NUMERIC),
    "str": (pl.String(), ("", "a", "B", "é", None), ORDERED),
    "decimal": (
        pl.Decimal(10, 2),
        (Decimal("0.00"), Decimal("0.10"), Decimal("-1.25"), Decimal("99999999.99"), None),
        NUMERIC,
    ),
    "date": (pl.Date(), (date(2024, 1, 1), date(1969, 12, 31), date(2024, 1, 2), None), ORDERED),
    "list": (pl.List(pl.Int64()), ([1, 2], [1], [], [0, 3], None), NESTED),
    "array": (pl.Array(pl.Float32(), 2), ([0.5, 1.0], [0.5, -1.0], None), NESTED),
}


@dataclass(frozen=True)
class World:
    """What the files of one history look like."""

    keys: tuple[tuple[str, str], ...]  # name, kind
    columns: tuple[tuple[str, str], ...]
    timed: bool = True
    unit: str = "h"
    base: int = 0
    time_kind: str = "utc"
    untyped: bool = False  # an optional column without a value has no dtype in its file
    has_future: bool = True  # rows may lie so far ahead that pushes follow the clock

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a file, in order."""
        time = ("at",) if self.timed else ()
        return (*(n for n, _ in self.keys), *time, *(n for n, _ in self.columns))

    def frame(self, rows: Sequence[Row]) -> pl.DataFrame:
        """The rows as a file holds them."""
        dtypes: dict[str, pl.DataType] = {name: KEYS[kind][0] for name, kind in self.keys}
        dtypes |= {"at": pl.Int64()} if self.timed else {}
        dtypes |= {name: COLUMNS[kind][0] for name, kind in self.columns}
        data = {name: [row[name] for row in rows] for name in self.names}
        if self.untyped:
            dtypes |= {
                name: pl.Null()
                for name in ("n", "s", "ok")
                if not any(v is not None for v in data[name])
            }
        frame = pl.DataFrame(data, schema=dtypes, strict=False)
        return frame.with_columns(CASTS[self.time_kind](pl.col("at"))) if self.timed else frame

    def spine(self, points: Sequence[tuple[oracle.Entity, int]]) -> pl.DataFrame:
        """A spine for those points, with a label that must come back untouched."""
        data: dict[str, Any] = {
            name: pl.Series([entity[i] for entity, _ in points], dtype=KEYS[kind][0])
            for i, (name, kind) in enumerate(self.keys)
        }
        data["at"] = pl.Series([t for _, t in points], dtype=pl.Int64)
        data["label"] = list(range(len(points)))
        return pl.DataFrame(data).with_columns(CASTS["utc"](pl.col("at")))

    def days(self, interval: int) -> bool:
        """Whether so many of the world's unit divide a day."""
        return UNITS["d"] % (interval * UNITS[self.unit]) == 0

    @property
    def entities(self) -> list[oracle.Entity]:
        """All entities that rows may have, and some that none has."""
        found: list[oracle.Entity] = [()]
        for _, kind in self.keys:
            _, values, stranger = KEYS[kind]
            found = [(*e, v) for e in found for v in dict.fromkeys((*values, stranger))]
        return found


# -- what a feature's function may be: for the library, and for the oracle


def everything(df: Frame) -> Frame:
    return df


def everything_again(df: Frame) -> Frame:
    return df.select(pl.all())


def with_n(df: Frame) -> Frame:
    return df.filter(pl.col("n").is_not_null())


def with_n_lazily(df: Frame) -> Frame:
    return df.lazy().filter(~pl.col("n").is_null())


def doubled(df: Frame) -> Frame:
    return df.with_columns(x=pl.col("x") * 2)


def with_y(df: Frame) -> Frame:
    return df.with_columns(y=pl.col("x").abs())


def an_hour_later(df: Frame) -> Frame:
    return df.with_columns(pl.col("at") + pl.duration(hours=1))


def distinct(df: Frame) -> Frame:
    return df.unique()


def _rows_with_n(rows: Rows) -> Rows:
    return [row for row in rows if row["n"] is not None]


def _rows_doubled(rows: Rows) -> Rows:
    return [{**row, "x": None if row["x"] is None else row["x"] * 2} for row in rows]


def _rows_with_y(rows: Rows) -> Rows:
    return [{**row, "y": None if row["x"] is None else abs(row["x"])} for row in rows]


def _rows_later(rows: Rows) -> Rows:
    hour = UNITS["h"]
    return [{**row, "at": None if row["at"] is None else row["at"] + hour} for row in rows]


def _rows_distinct(rows: Rows) -> Rows:
    def same(value: Any) -> Any:
        return "NaN" if isinstance(value, float) and math.isnan(value) else value

    return list({tuple(map(same, cells(row))): row for row in rows}.values())


def cells(row: Row) -> tuple[Any, ...]:
    """A row's values by the names of its columns: Hypothesis varies the order in which a row has them."""
    values = (row[name] for name in sorted(row))
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


BODIES: dict[str, tuple[Callable[[Frame], Frame], Callable[[Rows], Rows]]] = {
    "everything": (everything, lambda rows: rows),
    "everything_again": (everything_again, lambda rows: rows),
    "with_n": (with_n, _rows_with_n),
    "with_n_lazily": (with_n_lazily, _rows_with_n),
    "doubled": (doubled, _rows_doubled),
    "with_y": (with_y, _rows_with_y),
    "an_hour_later": (an_hour_later, _rows_later),
    "distinct": (distinct, _rows_distinct),
}


# -- features as data


TO_DATE = {"1d": "dtd", "1w": "wtd", "1mo": "mtd", "1y": "ytd"}


def _named(window: int | str, unit: str) -> str:
    return f"{window}{unit}" if isinstance(window, int) else TO_DATE.get(window, window)


@dataclass(frozen=True)
class Roll:
    """A `Rolling`, with lengths in the world's unit, or "all"; periods such as "1mo" make a `ToDate` of them."""

    windows: tuple[int | str, ...]
    aggregations: tuple[tuple[str, tuple[str, ...]], ...]
    closed: Literal["both", "right", "left", "none"] | None = None
    offset: int = 0
    where: str | None = None


@dataclass(frozen=True)
class Plan:
    """A feature of a world, as data."""

    world: World
    body: str = "everything"
    rolls: tuple[Roll, ...] = ()
    interval: int | None = None
    online_clock: Literal["data", "wall"] = "data"
    incremental: bool | None = None
    derive: int = 0
    """Which texts its derived columns have; 0 for no such columns."""
    defaults: int = 0
    """The values that take the place of null in its answers; 0 for none."""

    @property
    def derived(self) -> tuple[oracle.Derived, ...]:
        """Derived columns, some of which depend on the instant."""
        if not self.derive:
            return ()
        step, first = self.derive, self._plain_oracle().plain_outputs[0]
        of_t = (
            oracle.Derived(
                "age",
                f"hours(t - '2020-01-01') * {step}",
                lambda _, t: (t - YEAR_2020) / 3.6e9 * step,
            ),
            oracle.Derived("aged", "age > 0 and known", lambda v, _: v["age"] > 0 and v["known"]),
        )
        return (
            oracle.Derived("known", f"not is_null({first})", lambda v, _: v[first] is not None),
            *(of_t if self.world.timed else ()),
            oracle.Derived(
                "code", f"{step} if known else -1", lambda v, _: step if v["known"] else -1
            ),
        )

    @property
    def filled(self) -> dict[str, tuple[Any, Any]]:
        """Defaults by column, as users write them and as answers have them."""
        number, kinds = self.defaults, dict(self.world.columns)
        if not number:
            return {}
        if not self.rolls:
            text = {"s": (f"none {number}",) * 2} if kinds["s"] == "str" else {}
            return {"x": (number, float(number)), **({} if self.world.untyped else text)}
        at = mlforge.core.values.from_us(YEAR_2020 + number)
        columns = self._plain_oracle().metrics
        floats = [c for c in columns if c.aggregation in ("mean", "std", "median", "var")]
        same = [c for c in columns if c.column == "x" and c.aggregation in ("min", "sum", "last")]
        instants = [c for c in columns if c.aggregation.endswith("_time")]
        return {
            **{c.name: (number, float(number)) for c in (*floats, *same)},
            **{c.name: (at, YEAR_2020 + number) for c in instants},
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the function returns."""
        return self.world.names + (("y",) if self.body == "with_y" else ())

    @property
    def set_aside(self) -> frozenset[str]:
        """Nested columns that no metric reads: a feature with metrics keeps none of them."""
        read = {column for roll in self.rolls for column, _ in roll.aggregations}
        nested = {name for name, kind in self.world.columns if kind in ("list", "array")}
        return frozenset(nested - read if self.rolls else ())

    def library(self, source: str, name: str = NAME) -> Any:
        """The feature as the library's users would write it."""
        unit = self.world.unit
        return mlforge.feature(
            name=name,
            keys=[name for name, _ in self.world.keys],
            source=source,
            timestamp="at" if self.world.timed else None,
            interval=None if self.interval is None else f"{self.interval}{unit}",
            metrics=[
                (metrics.ToDate if roll.windows[0] in TO_DATE else metrics.Rolling)(
                    [f"{n}{unit}" if isinstance(n, int) else n for n in roll.windows],
                    {column: list(names) for column, names in roll.aggregations},
                    closed=roll.closed,
                    offset=f"{roll.offset}{unit}" if roll.offset else None,
                    where=roll.where,
                )
                for roll in self.rolls
            ],
            online_clock=self.online_clock,
            incremental=self.incremental,
            derive={column.name: column.text for column in self.derived},
            defaults={name: value for name, (value, _) in self.filled.items()},
        )(BODIES[self.body][0])

    def oracle(self) -> oracle.Feature:
        """The same feature for the oracle."""
        return replace(self._plain_oracle(), derived=self.derived)

    def _plain_oracle(self) -> oracle.Feature:
        unit, us = self.world.unit, UNITS[self.world.unit]
        columns = [
            oracle.Metric(
                name=f"{column}__{name}__{_named(n, unit)}"
                + (f"__offset_{roll.offset}{unit}" if roll.offset else "")
                + (f"__{roll.where}" if roll.where else ""),
                column=column,
                aggregation=name,
                window=n * us if isinstance(n, int) else _named(n, unit),
                offset=roll.offset * us,
                closed=roll.closed or ("both" if self.interval is None else "left"),
                where=roll.where,
            )
            for roll in self.rolls
            for column, names in roll.aggregations
            for name in names
            for n in roll.windows
        ]
        return oracle.Feature(
            keys=tuple(name for name, _ in self.world.keys),
            columns=self.columns,
            timestamp="at" if self.world.timed else None,
            interval=None if self.interval is None else self.interval * us,
            metrics=tuple(columns),
            online_clock=self.online_clock,
        )

    def events(self, files: Mapping[str, Rows]) -> Events:
        """What the oracle makes of a source: the function, then the rules for keys and times."""
        rows = [row for name in sorted(files) for row in files[name]]
        return oracle.clean(self.oracle(), BODIES[self.body][1](rows))


# -- strategies


@st.composite
def worlds(draw: st.DrawFn) -> World:
    few = draw(st.sampled_from([0, 1, 1, 1, 1, 1]))  # without keys the whole source is one entity
    kinds = draw(st.lists(st.sampled_from(list(KEYS)), min_size=few, max_size=2 * few))
    unit = draw(st.sampled_from(["h", "d", "ms"]))
    # 1970 among them: what comes before it is where truncation is not flooring.
    bases = {"h": 472_000, "d": 19_700, "ms": 1_700_000_000_003}
    return World(
        keys=tuple(zip(("user", "shop"), kinds, strict=False)),
        columns=(
            ("x", draw(st.sampled_from(["f64", "f64", "f32"]))),
            ("n", draw(st.sampled_from(["i64", "i8", "u32", "bool"]))),
            ("s", draw(st.sampled_from(["str", "decimal", "date", "list", "array"]))),
            ("ok", "bool"),
        ),
        timed=draw(st.sampled_from([True, True, True, True, True, False])),
        unit=unit,
        base=draw(st.sampled_from([bases[unit], -4])) * UNITS[unit],
        time_kind=draw(st.sampled_from([kind for kind in CASTS if kind != "date" or unit == "d"])),
        untyped=draw(st.sampled_from([False, False, True])),
        has_future=draw(st.booleans()),
    )


def instants(world: World, furthest: int = 6) -> st.SearchStrategy[int]:
    """Slots of a coarse grid, and a microsecond or half a slot beside them."""
    us = UNITS[world.unit]
    beside = (0, 0, 0, 1, -1, us // 2)
    return st.builds(
        lambda slot, shift: world.base + slot * us + shift,
        st.integers(0, furthest),
        st.sampled_from(beside),
    )


def event_times(world: World) -> st.SearchStrategy[int | None]:
    us = UNITS[world.unit]
    if world.time_kind in COARSE:
        times = st.integers(0, 6).map(lambda slot: world.base + slot * us)
    else:
        times = instants(world)
    odd = [None, FAR_FUTURE] if world.has_future else [None]
    return times | times | times | times | times | st.sampled_from(odd)


def row(world: World) -> st.SearchStrategy[Row]:
    """One row of a file; keys and times are null now and then."""
    values: dict[str, st.SearchStrategy[Any]] = {}
    for name, kind in world.keys:
        values[name] = st.sampled_from((*KEYS[kind][1] * 4, None))
    if world.timed:
        values["at"] = event_times(world)
    for name, kind in world.columns:
        values[name] = st.sampled_from(COLUMNS[kind][1])
    return st.fixed_dictionaries(values)


@st.composite
def rows(draw: st.DrawFn, world: World, beside: Rows | None = None) -> Rows:
    """The rows of one file; some share entity and instant with one before, or with one of `beside`."""
    made: Rows = []
    identity = [*(name for name, _ in world.keys), *(["at"] if world.timed else [])]
    for new, tie in draw(st.lists(st.tuples(row(world), st.integers(0, 3)), max_size=6)):
        known = [*(beside or []), *made]
        tied = world.timed and tie == 0 and known
        same = {name: known[-1][name] for name in identity} if tied else {}
        made.append({**new, **same})
    return made


def labels(world: World) -> st.SearchStrategy[list[oracle.Label]]:
    """What some training sets are to learn: none of a world without time, or one or two aggregations of events ahead."""
    if not world.timed:
        return st.just([])
    flat = {name: kind for name, kind in world.columns if kind not in ("list", "array")}
    aggregated = {name: COLUMNS[kind][2] for name, kind in flat.items()} | {"at": ORDERED}
    columns = [(name, aggregation) for name, names in aggregated.items() for aggregation in names]
    label = st.builds(
        lambda of, steps, where: oracle.Label(*of, steps * UNITS[world.unit], where),
        st.sampled_from(columns),
        st.sampled_from([1, 2, 3]),
        st.sampled_from([None, None, "ok"]),
    )
    return st.lists(label, max_size=2)


def spines(world: World) -> st.SearchStrategy[list[tuple[oracle.Entity, int]]]:
    point = st.tuples(st.sampled_from(world.entities), instants(world, 9))
    return st.lists(point, min_size=1, max_size=6)


@st.composite
def windows(draw: st.DrawFn, step: int, *, to_date: bool) -> tuple[int | str, ...]:
    """Lengths in steps and perhaps "all", or periods to date."""
    if to_date and draw(st.integers(0, 3)) == 0:
        chosen = st.lists(st.sampled_from(list(TO_DATE)), min_size=1, max_size=2, unique=True)
        return tuple(draw(chosen))
    lengths = st.lists(st.sampled_from([1, 2, 3, 10, "all"]), min_size=1, max_size=2, unique=True)
    return tuple(n if isinstance(n, str) else n * step for n in draw(lengths))


@st.composite
def plans(draw: st.DrawFn, world: World, online_clock: Literal["data", "wall"] = "data") -> Plan:
    """A feature of the world: continuous, aligned, or without metrics."""
    bodies = ["everything"] * 3 + [
        name
        for name in BODIES
        if name != "an_hour_later" or (world.timed and world.time_kind != "date")
    ]
    body = draw(st.sampled_from(bodies))
    incremental = draw(st.sampled_from([None, None, None, None, None, False]))
    shape = (
        draw(st.sampled_from(["continuous", "continuous", "aligned", "aligned", "rows"]))
        if world.timed
        else "rows"
    )
    derive = draw(st.sampled_from([0, 0, 1, 2]))
    defaults = draw(st.sampled_from([0, 0, 1, 2]))
    if shape == "rows":
        return Plan(world, body, (), None, online_clock, incremental, derive, defaults)
    interval = draw(st.sampled_from([1, 1, 2, 3])) if shape == "aligned" else None
    step = interval or 1
    aggregated = {
        **{name: COLUMNS[kind][2] for name, kind in world.columns},
        "at": ORDERED,
        **{name: ("count",) for name, _ in world.keys[:1]},
    }
    rolls: list[Roll] = []
    for offset in draw(st.sampled_from([(0,), (0,), (1,), (0, 1), (0, 2)])):
        columns = draw(
            st.lists(st.sampled_from(list(aggregated)), min_size=1, max_size=2, unique=True)
        )
        rolls.append(
            Roll(
                windows=draw(windows(step, to_date=interval is None or world.days(interval))),
                aggregations=tuple(
                    (
                        column,
                        tuple(
                            draw(
                                st.lists(
                                    st.sampled_from(aggregated[column]),
                                    min_size=1,
                                    max_size=3,
                                    unique=True,
                                )
                            )
                        ),
                    )
                    for column in columns
                ),
                closed=draw(st.sampled_from([None, "both", "right", "left", "none"]))
                if interval is None
                else draw(st.sampled_from([None, "left"])),
                offset=offset * step,
                where=draw(st.sampled_from([None, None, "ok"])),
            )
        )
    return Plan(world, body, tuple(rolls), interval, online_clock, incremental, derive, defaults)

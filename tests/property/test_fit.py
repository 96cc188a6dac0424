"""Files of many dtypes, in any order of drops, give what a build of all of them at once gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlforge import Feature, get_training_data
from mlforge.core.schema import integer_range
from mlforge.core.widening import Backing, holds, settle
from mlforge.frames.polars_schema import parse_dtype
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from tests.support.projects import Project, at, identity

INTEGERS = [pl.Int8, pl.UInt8, pl.Int16, pl.Int32, pl.UInt32, pl.Int64, pl.UInt64]
LADDER: list[Any] = [
    *INTEGERS,
    pl.Float32,
    pl.Float64,
    pl.Decimal(6, 2),
    pl.Decimal(10, 4),
    pl.Boolean,
    pl.Null,
    pl.String,
]
TIMES = [
    pl.Datetime("us", "UTC"),
    pl.Datetime("ms", "UTC"),
    pl.Datetime("ns", "Europe/Berlin"),
    pl.Datetime("ms"),
]
WIDE = 2**53 + 1


@pytest.mark.parametrize("dtype", INTEGERS)
def test_decimals_take_all_digits_of_the_integers_beside_them(dtype: Any) -> None:
    name = str(dtype)
    settled = settle({name: Backing(1, 1), "Decimal(2, 1)": Backing(1, 1)})
    extremes = pl.Series(integer_range(name), dtype=dtype)
    assert extremes.cast(parse_dtype(settled)).cast(dtype).equals(extremes)
    assert settle({name: Backing(1, 99), "String": Backing(2, 2)}) == "String", "files decide"
    assert not any(holds("Decimal(38, 1)", other) for other in ("String", "Boolean", "Float32"))


@dataclass(frozen=True)
class Shape:
    """How a file tells its columns; a note of None is a column that it lacks."""

    key: Any
    time: Any
    amount: Any
    note: Any
    rows: int
    wide: bool


shapes = st.builds(
    Shape,
    key=st.sampled_from([pl.Int32, pl.Int64, pl.UInt8]),
    time=st.sampled_from(TIMES),
    amount=st.sampled_from(LADDER),
    note=st.sampled_from([None, *LADDER]),
    rows=st.integers(0, 4),
    wide=st.sampled_from([False, False, False, True]),
)
names = st.sampled_from(["a", "b", "c", "d", "e"])
steps = st.lists(st.tuples(names, st.none() | shapes), min_size=2, max_size=8)


def values(dtype: Any, rows: int, seed: int, *, wide: bool) -> pl.Series:
    numbers = [(seed * 7 + row * 3) % 100 for row in range(rows)]
    if dtype == pl.Null:
        return pl.Series([None] * rows, dtype=pl.Null)
    if dtype == pl.Boolean:
        return pl.Series([n % 2 == 0 for n in numbers], dtype=dtype)
    if dtype == pl.String:
        return pl.Series([f"{n}" for n in numbers], dtype=dtype)
    if dtype == pl.Float64:
        return pl.Series([n + 0.1 for n in numbers], dtype=dtype)
    if isinstance(dtype, pl.Decimal):
        return pl.Series([Decimal(n) / 4 for n in numbers]).cast(dtype)
    if wide and dtype in (pl.Int64, pl.UInt64) and numbers:
        numbers[0] = WIDE
    return pl.Series(numbers, dtype=dtype)


def frame(shape: Shape, seed: int) -> pl.DataFrame:
    rows = range(shape.rows)
    columns = {
        "user_id": pl.Series([(seed + row) % 3 for row in rows], dtype=shape.key),
        "at": pl.Series([at(seed + row / 4) for row in rows], dtype=TIMES[0]).cast(shape.time),
        "amount": values(shape.amount, shape.rows, seed, wide=shape.wide),
    }
    if shape.note is not None:
        columns["note"] = values(shape.note, shape.rows, seed + 1, wide=shape.wide)
    return pl.DataFrame(columns)


def everything(df: pl.DataFrame) -> pl.DataFrame:
    return df


METRICS = [Rolling(["2d", "30d"], {"amount": ["count", "max", "min"]})]
SUMS = [Rolling(["2d", "30d"], {"amount": ["sum", "mean"]})]


def features(project: Project) -> Sequence[Feature]:
    define: Callable[..., Feature] = project.define
    return [
        define(everything, metrics=[], name="plain"),
        define(everything, metrics=METRICS, name="extremes"),
        define(identity, metrics=SUMS, name="sums"),
        define(identity, metrics=METRICS, interval="1d", name="aligned"),
        define(everything, metrics=[], incremental=False, name="whole"),
    ]


def built(project: Project, feature: Feature) -> Any:
    """A feature's table, dtypes, quarantine and training rows, or the kind of error."""
    try:
        project.build(feature)
    except Exception as error:  # noqa: BLE001 - both orders must fail alike
        return str(error).partition(";")[0]
    store, name = project.store, feature.name
    if store.latest(name) is None:
        return None
    spine = pl.DataFrame({"user_id": [0, 1, 2] * 6, "at": [at(2.0 * n) for n in range(18)]})
    training = get_training_data(spine, [name], store=store)
    return (
        store.read(name),
        training,
        sorted(store.books(name).quarantine),
        store.read_metadata(name).columns,
    )


def alike(a: Any, b: Any) -> None:
    if isinstance(a, tuple) and isinstance(b, tuple):
        table, training, quarantine, columns = a
        assert (quarantine, columns) == (b[2], b[3])
        order = table.columns
        assert (
            table.select(sorted(order))
            .sort(sorted(order))
            .equals(b[0].select(sorted(order)).sort(sorted(order)))
        )
        assert training.equals(b[1])
    elif b is None and isinstance(a, tuple):
        # Files without rows, whose columns give no table: the history has one, which is empty now.
        table, training, quarantine, _ = a
        assert (table.height, quarantine) == (0, [])
        assert all(training[name].null_count() == training.height for name in training.columns[2:])
    else:
        assert a == b


def histories(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


@pytest.mark.parametrize("engine", ["polars", pytest.param("duckdb", marks=pytest.mark.slow)])
@histories(2)
@given(history=steps)
def test_any_order_of_drops_gives_what_one_build_of_all_files_gives(
    engine: str, history: list[tuple[str, Shape | None]]
) -> None:
    follow(engine, history)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@histories(16)
@given(history=steps)
def test_many_orders_of_drops_give_what_one_build_of_all_files_gives(
    engine: str, history: list[tuple[str, Shape | None]]
) -> None:
    follow(engine, history)


def follow(engine: str, history: list[tuple[str, Shape | None]]) -> None:
    """Each step of a history is built; at its end all of it is as one build of the files that are there."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), engine)
        results = {}
        for seed, (name, shape) in enumerate(history):
            path = project.events / f"{name}.parquet"
            if shape is not None:
                frame(shape, seed).write_parquet(path)
            elif path.exists():
                path.unlink()
            for feature in features(project):
                results[feature.name] = built(project, feature)
        fresh = project.on(LocalStore(project.root / "fresh"))
        if not list(project.events.iterdir()):
            return
        for feature in features(fresh):
            if project.store.latest(feature.name) is None:
                continue
            known = project.store.file_states(feature.name).values()
            if any(seen.good not in ("", seen.hash) for seen in known):
                continue  # a file's last good content counts, which only this history knows
            alike(results[feature.name], built(fresh, feature))

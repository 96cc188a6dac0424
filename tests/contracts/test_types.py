"""Online values are those of training, types included, for every dtype that a feature can hold."""

# ruff: noqa: DTZ001 - naive times are part of the matter

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

from mlforge import get_online_features, get_training_data
from mlforge.core.aggregations import AGGREGATIONS, aggregation
from mlforge.frames.encoding import key_hash
from mlforge.frames.polars_schema import dtype_text
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from tests.support.projects import Project, at

COLUMNS: dict[str, tuple[pl.DataType | type[pl.DataType], list[Any]]] = {
    "i8": (pl.Int8, [-128, 127, 1]),
    "i16": (pl.Int16, [-(2**15), 2**15 - 1, 1]),
    "i32": (pl.Int32, [-(2**31), 2**31 - 1, 1]),
    "i64": (pl.Int64, [-(2**53) - 1, 2**53 + 1, 1]),
    "u8": (pl.UInt8, [0, 255, 1]),
    "u16": (pl.UInt16, [0, 2**16 - 1, 1]),
    "u32": (pl.UInt32, [0, 2**32 - 1, 1]),
    "u64": (pl.UInt64, [0, 2**62, 1]),
    "f32": (pl.Float32, [0.1, -2.0, 3.0e38]),
    "f64": (pl.Float64, [0.1 + 0.2, -0.0, 1e300]),
    "whole": (pl.Float64, [1.0, 1e15, 1e22]),
    "dec": (pl.Decimal(20, 2), [Decimal("1.50"), Decimal("-0.01"), Decimal(10) ** 17]),
    "dec0": (pl.Decimal(20, 0), [Decimal(5), Decimal(-7), Decimal(0)]),
    "bool": (pl.Boolean, [True, False, True]),
    "text": (pl.String, ["", "é\u2028😀", "a\"b\\"]),
    "cat": (pl.Categorical, ["x", "y", "x"]),
    "day": (pl.Date, [date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)]),
    "naive": (pl.Datetime("us"), [datetime(1900, 1, 1), datetime(2024, 1, 1, 1, 2, 3, 4), datetime(2200, 1, 1)]),
    "zoned": (
        pl.Datetime("ms", "Europe/Berlin"),
        [datetime(2024, 7, 1, 12, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC), datetime(1950, 1, 1, tzinfo=UTC)],
    ),
    "nano": (pl.Datetime("ns"), [datetime(2024, 1, 1, 1, 2, 3, 999_999)] * 3),
    "time": (pl.Time, [time(0), time(23, 59, 59, 999_999), time(1, 2, 3)]),
    "null": (pl.Null, [None, None, None]),
}  # fmt: skip
ORDERED = ("i8", "i64", "u64", "f32", "f64", "dec", "bool", "text", "day", "zoned", "time")


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    made = RedisStore.from_url(redis_url)
    yield made
    made.close()


def events() -> pl.DataFrame:
    """Three users with values, one with nulls."""
    keys = pl.DataFrame({"user_id": [1, 2, 3, 4], "at": [at(1)] * 4})
    return keys.with_columns(
        pl.Series(name, [*values, None], dtype=dtype) for name, (dtype, values) in COLUMNS.items()
    )


def both(project: Project, store: RedisStore, **changes: Any) -> tuple[list[Any], list[Any]]:
    """Answers of training and online for the four users and one who was never seen."""
    project.drop("one", events())
    feature = project.define(lambda df: df, **changes)
    project.definitions(feature, online_store=store).build(online=True)
    users = pl.DataFrame({"user_id": [1, 2, 3, 4, 99], "at": [at(1)] * 5})
    trained = get_training_data(users, ["spend"], project.store).drop("at").to_dicts()
    return trained, get_online_features(["spend"], users.select("user_id").to_dicts(), store)


def typed(rows: list[dict[str, Any]]) -> list[list[tuple[str, type, str]]]:
    """Names, types and texts: what == would let pass, as in 1 and True, differs here."""

    def shown(value: Any) -> str:
        if isinstance(value, list):
            return str(list(map(shown, value)))
        return repr(value.astimezone(UTC)) if isinstance(value, datetime) else repr(value)

    return [[(name, type(value), shown(value)) for name, value in row.items()] for row in rows]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("timestamp", ["at", None], ids=["timed", "untimed"])
def test_every_dtype_is_served_as_it_is_trained_on(
    tmp_path: Path, store: RedisStore, timestamp: str | None, engine: str
) -> None:
    project = Project(tmp_path / "p", engine)
    trained, served = both(project, store, metrics=[], timestamp=timestamp)
    assert typed(served) == typed(trained)
    assert served == trained
    for name, (_, values) in COLUMNS.items():
        kinds = {type(row[f"spend__{name}"]) for row in served[:3]}
        assert kinds == {type(value) for value in values}, name


@pytest.mark.parametrize("engine", ["polars", pytest.param("duckdb", marks=pytest.mark.slow)])
def test_every_aggregation_is_served_as_it_is_trained_on(
    tmp_path: Path, store: RedisStore, engine: str
) -> None:
    project = Project(tmp_path / "p", engine)
    dtypes = {name: dtype_text(pl.Series(dtype=COLUMNS[name][0]).dtype) for name in ORDERED}
    aggregations: dict[str, Any] = {
        name: [each for each in AGGREGATIONS if aggregation(each).kind.dtype(told)]
        for name, told in (dtypes | {"zoned": "Datetime(us, UTC)"}).items()
    }
    trained, served = both(project, store, metrics=[Rolling("7d", aggregations)])
    assert typed(served) == typed(trained)
    assert type(served[0]["spend__dec__sum__7d"]) is Decimal
    assert type(served[0]["spend__day__min__7d"]) is date
    assert served[0]["spend__zoned__max__7d"].utcoffset().total_seconds() == 0
    assert served[0]["spend__zoned__last_3__7d"] == [datetime(2024, 7, 1, 12, tzinfo=UTC)]
    assert served[0]["spend__dec__top_1__7d"] == [Decimal("1.50")]
    assert served[0]["spend__text__last_time__7d"] == at(1)
    unseen = served[-1]
    assert (unseen["spend__f64__last_3__7d"], unseen["spend__i8__count_distinct__7d"]) == ([], 0)


def test_an_empty_list_belongs_to_who_asked(tmp_path: Path, store: RedisStore) -> None:
    _, served = both(Project(tmp_path / "p"), store, metrics=[Rolling("7d", {"i8": "last_3"})])
    served[-1]["spend__i8__last_3__7d"].append(1)
    assert get_online_features(["spend"], [{"user_id": 99}, {"user_id": 98}], store) == [
        {"user_id": 99, "spend__i8__last_3__7d": []},
        {"user_id": 98, "spend__i8__last_3__7d": []},
    ]


def test_read_gives_the_same_values_and_what_is_stored_stays_json(
    tmp_path: Path, store: RedisStore, redis_url: str
) -> None:
    _, served = both(Project(tmp_path / "p"), store, metrics=[])
    prefixed = [
        {f"spend__{name}": v for name, v in (store.read("spend", {"user_id": user}) or {}).items()}
        for user in (1, 4)
    ]
    for row, answer in zip(prefixed, (served[0], served[3]), strict=True):
        assert {"user_id": answer["user_id"], **row} == answer
    with redis.Redis.from_url(redis_url) as client:
        stored = json.loads(client.get(f"mlforge:spend:{key_hash({'user_id': 1})}"))
    assert stored["dec"] == "1.50"
    assert stored["day"] == "0001-01-01"
    assert stored["zoned"] == "2024-07-01T12:00:00.000000Z"
    assert stored["time"] == "00:00:00.000000"


def test_rows_without_books_are_read_as_the_json_that_they_are(store: RedisStore) -> None:
    store.write("loose", {"user_id": 1}, {"dec": Decimal("1.50"), "day": date(2024, 1, 2), "n": 1})
    assert store.read("loose", {"user_id": 1}) == {"dec": "1.50", "day": "2024-01-02", "n": 1}

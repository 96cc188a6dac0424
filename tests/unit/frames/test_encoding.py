"""Key hashes and JSON: what a request computes singly is what a push computed column-wise."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mlforge.core.schema import KEY_DTYPES, Column
from mlforge.errors import DataError, RetrievalError
from mlforge.frames import polars_schema
from mlforge.frames.encoding import (
    json_row,
    json_rows,
    json_value,
    key_hash,
    key_hashes,
)
from mlforge.frames.keys import entity_key, key_column

# Keys


class Shop(str, Enum):  # noqa: UP042 - that is the point
    """Not a StrEnum: `str` of a member is its name."""

    NORTH = "north"


class Number(int, Enum):
    """Not an IntEnum, for the same reason."""

    ONE = 1


def test_a_hash_is_sha256_over_netstrings_of_the_sorted_keys() -> None:
    entity = {"user_id": 42, "day": date(2024, 1, 2), "né": "x,", "ok": True}
    text = "3:day,10:2024-01-02,3:né,2:x,,2:ok,4:true,7:user_id,2:42,"
    assert key_hash(entity) == sha256(text.encode()).hexdigest()
    assert key_hash(dict(reversed(entity.items()))) == key_hash(entity)


def test_texts_that_join_alike_are_two_entities() -> None:
    assert key_hash({"a": "x|", "b": "y"}) != key_hash({"a": "x", "b": "|y"})
    assert key_hash({"a": "1:x"}) != key_hash({"a": "1", "x": ""})


@pytest.mark.parametrize(
    "same",
    [
        [1, "1", 1.0, np.int64(1), np.uint8(1), np.float64(1), np.array(1), Number.ONE],
        [True, "true", np.True_],
        [
            date(2024, 1, 2),
            "2024-01-02",
            datetime.fromisoformat("2024-01-02"),
            pd.Timestamp("2024-01-02"),
            np.datetime64("2024-01-02"),
            np.datetime64("2024-01-02", "ns"),
        ],
        ["é", np.str_("é")],
        ["north", Shop.NORTH],
    ],
)
def test_what_libraries_make_of_an_id_is_still_that_id(same: list[object]) -> None:
    assert len({key_hash({"k": value}) for value in same}) == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        1.5,
        math.inf,
        pd.NA,
        pd.NaT,
        np.datetime64("NaT", "us"),
        b"x",
        [1],
        datetime.fromisoformat("2024-01-02T03:00"),
        datetime(2024, 1, 2, tzinfo=UTC),
        Decimal(1),
        "\ud800",
    ],
    ids=repr,
)
def test_a_value_that_is_no_key_is_refused_by_name(value: object) -> None:
    with pytest.raises(RetrievalError, match="key 'user_id'"):
        key_hash({"user_id": value})


def test_key_columns_that_cannot_be_keys_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="'k' is Float64; keys are integers"):
        key_hashes(pl.DataFrame({"k": [1.0]}), ["k"])
    with pytest.raises(DataError, match="'k' has nulls"):
        key_hashes(pl.DataFrame({"k": ["a", None]}), ["k"])
    with pytest.raises(DataError, match="k: a key has no text"):
        key_hashes(pl.DataFrame({"k": [2**31 - 1]}).cast(pl.Int32).cast(pl.Date), ["k"])


def test_hashes_keep_the_order_of_many_rows() -> None:
    frame = pl.DataFrame({"k": range(150_000)})
    hashes = key_hashes(frame, ["k"])
    assert len(hashes) == 150_000
    assert [hashes[i] for i in (0, 65_535, 65_536, 149_999)] == [
        key_hash({"k": i}) for i in (0, 65_535, 65_536, 149_999)
    ]
    assert hashes.n_unique() == 150_000


# Entities of a request

KEYS = (Column("user_id", "Int64"), Column("day", "Date"), Column("vip", "Boolean"))


def test_an_entity_comes_back_typed_and_in_the_order_of_the_keys() -> None:
    found = entity_key({"vip": "true", "day": pd.Timestamp("2024-01-02"), "user_id": 7.0}, KEYS)
    assert list(found.items()) == [("user_id", 7), ("day", date(2024, 1, 2)), ("vip", True)]
    assert [type(value) for value in found.values()] == [int, date, bool]


@pytest.mark.parametrize(
    ("entity", "problem"),
    [
        ({"user_id": 1, "day": "2024-01-02"}, "'vip' is missing; the keys are user_id, day, vip"),
        ({"usr": 1, "day": "2024-01-02", "vip": True}, "'user_id' is missing, 'usr' is no key"),
        ({"user_id": 1, "day": "2024-01-02", "vip": True, "x": 1}, "'x' is no key"),
        ({}, "'user_id', 'day', 'vip' are missing"),
    ],
)
def test_wrong_key_names_are_told_with_the_right_ones(
    entity: dict[str, object], problem: str
) -> None:
    with pytest.raises(RetrievalError, match=problem):
        entity_key(entity, KEYS)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("Int64", 1.5),
        ("Int64", 2.0**53),
        ("Int64", np.float32(2**24 + 1)),
        ("UInt64", 2.0**63),
        ("Int64", "01"),
        ("Int64", "1_0"),
        ("Int64", " 1"),
        ("Int64", "one"),
        ("Int64", True),
        ("Int64", None),
        ("Int64", pd.NA),
        ("String", 1.0),
        ("String", None),
        ("Boolean", 1),
        ("Boolean", "True"),
        ("Date", "2024-1-2"),
        ("Date", "20240102"),
        ("Date", 5),
        ("Date", datetime(2024, 1, 2, tzinfo=ZoneInfo("UTC"))),
        ("Date", pd.NaT),
    ],
)
def test_a_value_that_no_row_could_hold_is_refused_by_name(dtype: str, value: object) -> None:
    with pytest.raises(RetrievalError, match="key 'k'") as online:
        entity_key({"k": value}, (Column("k", dtype),))
    if value is pd.NA or value is pd.NaT or value is None:
        assert key_column(pl.Series("k", [None]), dtype).to_list() == [None]
        return
    with pytest.raises(RetrievalError) as of_a_spine:
        key_column(pl.Series("k", [value]), dtype)
    assert str(of_a_spine.value) == str(online.value)


@pytest.mark.parametrize("dtype", KEY_DTYPES)
def test_every_key_dtype_knows_its_values(dtype: str) -> None:
    value = {"String": "x", "Boolean": False, "Date": date(2024, 1, 2)}.get(dtype, 5)
    key = (Column("k", dtype),)
    assert entity_key({"k": value}, key) == {"k": value}
    assert key_hash(entity_key({"k": value}, key)) == key_hash({"k": value})
    assert entity_key({"k": str(value).lower()}, key) == {"k": value}
    for spelt in (value, str(value).lower()):
        of_a_spine = key_column(pl.Series("k", [spelt, None, spelt]), dtype)
        assert of_a_spine.to_list() == [value, None, value]
        assert polars_schema.dtype_text(of_a_spine.dtype) == dtype


def test_whole_numbers_of_any_width_are_keys_of_a_spine_or_were_never_seen() -> None:
    wide = pl.Series("k", [5, 2**70, -1], dtype=pl.Int128)
    assert key_column(wide, "UInt8").to_list() == [5, None, None]
    assert key_column(wide.cast(pl.String), "UInt8").to_list() == [5, None, None]
    texts = pl.Series("k", ["0", "255", "256", str(2**200)])
    assert key_column(texts, "UInt8").to_list() == [0, 255, None, None]
    assert key_column(wide, "String").to_list() == ["5", str(2**70), "-1"]
    assert entity_key({"k": 2**70}, (Column("k", "UInt8"),)) == {"k": 2**70}


# Rows


def test_integers_beyond_the_floats_come_back_exactly() -> None:
    values = [2**53 + 1, 2**63 - 1, -(2**63)]
    texts = json_rows(pl.DataFrame({"n": values}), ["n"])
    assert [json.loads(text)["n"] for text in texts] == values


def test_a_float32_comes_back_as_the_float_that_it_is() -> None:
    [text] = json_rows(pl.DataFrame({"x": pl.Series([0.1], dtype=pl.Float32)}), ["x"])
    assert json.loads(text)["x"] == float(np.float32(0.1))


ROW = pl.DataFrame(
    {
        "at": [datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))],
        "naive": [datetime.fromisoformat("2024-01-02T03:04:05.000006")],
        "ns": pl.Series([-1], dtype=pl.Int64).cast(pl.Datetime("ns")),
        "paris": pl.Series(["2024-07-01"]).str.to_datetime().dt.replace_time_zone("Europe/Paris"),
        "day": [date(2024, 1, 2)],
        "time": [time(3, 4)],
        "length": [timedelta(hours=-1)],
        "amount": pl.Series([Decimal("1.10")], dtype=pl.Decimal(10, 2)),
        "kind": pl.Series(["a"], dtype=pl.Enum(["a"])),
        "text": ['"\\\n\x00\u2028é😀'],
    }
)


def test_each_dtype_has_one_way_to_be_written() -> None:
    [text] = json_rows(ROW, ROW.columns)
    assert json.loads(text) == {
        "at": "2024-01-02T01:00:00.000000Z",
        "naive": "2024-01-02T03:04:05.000006Z",
        "ns": "1969-12-31T23:59:59.999999Z",
        "paris": "2024-06-30T22:00:00.000000Z",
        "day": "2024-01-02",
        "time": "03:04:00.000000",
        "length": "-PT1H",
        "amount": "1.10",
        "kind": "a",
        "text": '"\\\n\x00\u2028é😀',
    }


def test_only_the_columns_asked_for_are_encoded() -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": [3, 4]})
    assert json_rows(frame, ["b"]).to_list() == ['{"b":3}', '{"b":4}']
    assert json_rows(frame, []).to_list() == ["{}", "{}"]
    assert json_rows(frame.head(0), ["a"]).to_list() == []


def test_values_without_json_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="'raw' is Binary"):
        json_rows(pl.DataFrame({"raw": [b"x"]}), ["raw"])
    with pytest.raises(DataError, match="'raw' is Binary"):
        json_rows(pl.DataFrame({"raw": [[{"x": b"x"}]]}), ["raw"])
    with pytest.raises(DataError, match="at: a value has no JSON"):
        json_rows(pl.DataFrame({"at": [2**63 - 1]}).cast(pl.Datetime("us")), ["at"])
    with pytest.raises(DataError, match="is a bytes"):
        json_value(b"x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int64(2**62), 2**62),
        (np.bool_(True), True),
        (np.float64("nan"), None),
        (np.datetime64("2024-01-02T03:04:05", "ns"), "2024-01-02T03:04:05.000000Z"),
        (pd.Timestamp("2024-01-02", tz="Europe/Paris"), "2024-01-01T23:00:00.000000Z"),
        (pd.NaT, None),
        (pd.NA, None),
        (pl.Series([1.5, None]), [1.5, None]),
        (np.array([[1.5, math.nan]]), [[1.5, None]]),
        (np.timedelta64(5, "ms"), "PT0.005S"),
        ((1, "a"), [1, "a"]),
        (Decimal("NaN"), None),
        (Decimal("1E+3"), "1000"),
    ],
)
def test_single_values_of_other_libraries_have_json_too(value: object, expected: object) -> None:
    assert json_value(value) == expected


def test_a_text_that_is_not_unicode_survives() -> None:
    assert json.loads(json_row({"x": "\ud800"})) == {"x": "\ud800"}


@pytest.mark.parametrize(
    ("column", "dtype", "keys"),
    [
        (pl.Series([1.0, None, float("nan"), float("inf")]), "Int64", [1, None, None, None]),
        (pl.Series([1.0, 2.0**40]), "Int32", [1, None]),
        (pl.Series(["7", None, str(2**63)]), "Int64", [7, None, None]),
        (pl.Series(["a", None], dtype=pl.Categorical), "String", ["a", None]),
        (pl.Series([7, None]), "String", ["7", None]),
        (
            pl.Series([date(2026, 1, 1), None]).cast(pl.Datetime("ns")),
            "Date",
            [date(2026, 1, 1), None],
        ),
    ],
)
def test_a_long_spine_of_keys_is_cast_without_a_look_at_each(
    column: pl.Series, dtype: str, keys: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("mlforge.frames.keys._coerced")
    assert key_column(column, dtype).to_list() == keys

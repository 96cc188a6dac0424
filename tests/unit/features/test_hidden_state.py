"""Functions of one code hash are known to do the same only where the hash tells all that they do."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mlforge.features.code_hash import CodeState, code_hash


class Owned:
    def __init__(self, factor: float) -> None:
        self.factor = factor


class Lookup(dict[str, int]):
    def __init__(self, otherwise: int) -> None:
        super().__init__(a=1)
        self.otherwise = otherwise


class Amount(int):
    pass


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Fields:
    factor: float


class Scaled:
    def __init__(self, function: Callable[[float], float], factor: float) -> None:
        functools.update_wrapper(self, function)
        self.factor = factor


def plain(value: float) -> float:
    return value


def with_more(fields: Fields, **more: Any) -> Fields:
    vars(fields).update(more)
    return fields


def marked(factor: float) -> Callable[[float], float]:
    def function(value: float) -> float:
        return value * function.factor  # type: ignore[attr-defined, no-any-return]

    function.factor = factor  # type: ignore[attr-defined]
    return function


def using(value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def function(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", amount=value)

    return function


TOLD: tuple[object, ...] = (
    *(None, 1, "a", 1.5, (1, 2), [1], {1, 2}, {"a": 1, "b": 2}, range(3), timedelta(days=1)),
    *(Decimal("1.5"), re.compile("a"), pl.Int64, pl.Datetime("us"), pl.col("a") * 2, len, plain),
    *(pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [1]}).lazy().select("a"), Color.RED, Color),
    *(np.array([1.0]), np.float64(1.5), bytearray(b"a"), pl.Series("a", [1])),
    *(Owned(2.0), Fields(2.0), functools.partial(plain, 2), functools.cache(plain)),
)
PAIRS: tuple[tuple[str, object, object], ...] = (
    ("a bound method of a dict", {"a": 1}.get, {"a": 2}.get),
    ("a python function in an expression", *(pl.col("a").map_elements({1: n}.get) for n in (1, 2))),
    ("a plan that is none", *(pl.LazyFrame({"a": [1]}).select("b") for _ in "ab")),
    ("the order of a dict", {"b": 1, "a": 2, "c": 3}, {"c": 3, "a": 2, "b": 1}),
    ("attributes of a dict", Lookup(1), Lookup(2)),
    ("the value of a number of an own type", Amount(1), Amount(2)),
    ("attributes of a wrapper", Scaled(plain, 1), Scaled(plain, 2)),
    ("attributes of a function", marked(1), marked(2)),
    ("more than a dataclass's fields", *(with_more(Fields(1.0), b=n) for n in (1, 2))),
    ("the mask of an array", *(np.ma.masked_array([1.0], mask=[n]) for n in (False, True))),
    ("what numpy calls", np.vectorize({"a": 1}.get), np.vectorize({"a": 2}.get)),
    ("the index of a frame of pandas", *(pd.DataFrame({"a": [1]}, index=[n]) for n in (1, 2))),
    ("what an iterator is of", iter([1]), iter([2])),
)


@pytest.mark.parametrize("value", TOLD, ids=lambda value: type(value).__name__)
def test_a_hash_tells_all_of_usual_code(value: object) -> None:
    assert CodeState(using(value)).tells_all


@pytest.mark.parametrize(("one", "other"), [pytest.param(*pair, id=name) for name, *pair in PAIRS])
def test_a_hash_that_leaves_something_out_says_so(one: object, other: object) -> None:
    functions = using(one), using(other)
    assert len({*map(code_hash, functions)}) == 1, "else nothing is to be said"
    assert not any(CodeState(function).tells_all for function in functions)

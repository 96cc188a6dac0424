"""The state of objects that a function uses is part of its hash, and what nobody can see of them is told."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import pickle
import random
import re
import string
import time
import tracemalloc
import types
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from mlforge.features import references
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
SEEN: tuple[tuple[str, object, object], ...] = (
    ("an object whose repr is an address", string.Template("a"), string.Template("b")),
    ("a bound method of a dict", {"a": 1}.get, {"a": 2}.get),
    ("attributes of a dict", Lookup(1), Lookup(2)),
    ("the value of a number of an own type", Amount(1), Amount(2)),
    ("attributes of a wrapper", Scaled(plain, 1), Scaled(plain, 2)),
    ("attributes of a function", marked(1), marked(2)),
    ("more than a dataclass's fields", *(with_more(Fields(1.0), b=n) for n in (1, 2))),
    ("the mask of an array", *(np.ma.masked_array([1.0], mask=[n]) for n in (False, True))),
    ("what numpy calls", np.vectorize({"a": 1}.get), np.vectorize({"a": 2}.get)),
    ("what an iterator is of", iter([1]), iter([2])),
)
HIDDEN: tuple[tuple[str, object, object], ...] = (
    ("a python function in an expression", *(pl.col("a").map_elements({1: n}.get) for n in (1, 2))),
    ("a plan that is none", *(pl.LazyFrame({"a": [1]}).select("b") for _ in "ab")),
    ("the order of a dict", {"b": 1, "a": 2, "c": 3}, {"c": 3, "a": 2, "b": 1}),
    ("a generator of random numbers", random.Random(1), random.Random(2)),
    ("a connection", duckdb.connect(), duckdb.connect()),
)


@pytest.mark.parametrize("value", TOLD, ids=lambda value: type(value).__name__)
def test_a_hash_tells_all_of_usual_code(value: object) -> None:
    state = CodeState(using(value))
    assert state.tells_all
    assert state.warnings() == []


@pytest.mark.parametrize(("one", "other"), [pytest.param(*pair, id=name) for name, *pair in SEEN])
def test_the_state_of_what_a_function_uses_is_part_of_its_hash(one: object, other: object) -> None:
    assert code_hash(using(one)) != code_hash(using(other))
    assert code_hash(using(copy.copy(one))) == code_hash(using(one))
    assert CodeState(using(one)).tells_all


class Tensor:
    """As one of torch, which is too large to install for this: no buffer, and a pickle that has the address of its storage."""

    __module__ = "torch"
    dtype = "torch.float32"

    def __init__(self, *values: float) -> None:
        self.values = values

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> object:
        return np.array(self.values, np.float32)

    def tolist(self) -> list[float]:
        raise MemoryError("an object for each element")

    def __reduce__(self) -> tuple[Any, ...]:
        return Tensor, (id(self),)


class Layer:
    """As one of Keras: its pickle has the time of day."""

    __module__ = "keras.src.layers"

    def __init__(self, *weights: float) -> None:
        self.weights = weights

    def get_config(self) -> dict[str, str]:
        return {"name": "dense"}

    def get_weights(self) -> list[object]:
        return [np.array(self.weights)]

    def __reduce__(self) -> tuple[Any, ...]:
        return Layer, (time.monotonic_ns(),)


@pytest.mark.parametrize("kind", [Tensor, Layer])
def test_a_model_whose_pickle_is_another_each_time_counts_by_its_numbers(
    kind: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "is_installed", lambda package: package != "tests")
    for use in (lambda model: model, lambda model: types.SimpleNamespace(model=model)):
        state = CodeState(using(use(kind(1.0, 2.0))))
        assert state.tells_all
        assert state.hash == code_hash(using(use(kind(1.0, 2.0))))
        assert state.hash != code_hash(using(use(kind(1.0, 3.0))))


@pytest.mark.parametrize("kind", [bytes, str])
def test_a_large_text_of_a_model_takes_no_many_times_its_room(kind: type) -> None:
    content = b"\x00" * (1 << 25)
    one, other = (c if kind is bytes else c.decode() for c in (content, content[:-1] + b"a"))
    tracemalloc.start()
    try:
        hashes = {code_hash(using(iter([value]))) for value in (one, other)}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(hashes) == 2
    assert peak < 2 * len(content)


class Counting:
    """As a KDTree of scikit-learn: its pickle has how often it was asked."""

    __module__ = "sklearn.neighbors"

    def __init__(self) -> None:
        self.asked = 0


def test_what_a_function_changes_while_it_runs_makes_no_other_function_of_it_other_code() -> None:
    model = Counting()
    first, second = (CodeState(using(use)) for use in (model, functools.partial(plain, model)))
    before = first.look(), second.look()
    for _ in range(2):
        with first.looked_at():
            model.asked += 1
        [told] = first.warnings()
        assert "its function changes value while it runs" in told
        assert (first.look(), second.look()) == before
    model.asked = 7  # by a user
    assert first.look() != before[0]


@pytest.mark.slow  # to import scikit-learn takes a second
def test_a_model_that_is_fitted_anew_is_other_code() -> None:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(kind: Callable[[], Any], last: float) -> Any:
        return kind().fit([[1.0], [2.0], [3.0]], [1.0, 2.0, last])

    class Own(LinearRegression):  # type: ignore[misc]
        """A model of a user's own."""

    def pipeline() -> Any:
        return make_pipeline(StandardScaler(), LinearRegression())

    def forest() -> Any:
        return RandomForestRegressor(3, random_state=0)

    for kind in (LinearRegression, Own, pipeline, forest):
        one, again, other = fitted(kind, 3.0), fitted(kind, 3.0), fitted(kind, 9.0)
        for use in (lambda model: model, lambda model: model.predict):
            state = CodeState(using(use(one)))
            assert state.tells_all
            assert state.hash == code_hash(using(use(again))) != code_hash(using(use(other)))
            if kind is not Own:  # what is local has no pickle
                assert state.hash == code_hash(using(use(pickle.loads(pickle.dumps(one)))))
        if kind is LinearRegression:
            function = using(one)
            state = CodeState(function)
            with state.looked_at():
                one.fit([[1.0], [2.0]], [1.0, 7.0])
            [told] = state.warnings()
            assert "its function changes value while it runs" in told


@pytest.mark.slow  # to import scikit-learn takes a second
@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree"])
def test_a_tree_of_neighbours_is_not_changed_by_being_asked(algorithm: str) -> None:
    from sklearn.neighbors import KNeighborsRegressor

    def fitted(last: float) -> Any:
        points = [[float(n)] for n in range(9)] + [[last]]
        return KNeighborsRegressor(2, algorithm=algorithm).fit(points, range(10))

    model = fitted(9.5)
    state = CodeState(using(model))
    before = state.look()
    with state.looked_at():
        model.predict([[3.5]])
    assert (state.look(), state.warnings(), state.tells_all) == (before, [], True)
    assert before == code_hash(using(fitted(9.5))) != code_hash(using(fitted(9.7)))


@pytest.mark.parametrize(("one", "other"), [pytest.param(*pair, id=name) for name, *pair in HIDDEN])
def test_a_hash_that_leaves_something_out_says_so(one: object, other: object) -> None:
    functions = using(one), using(other)
    assert len({*map(code_hash, functions)}) == 1, "else nothing is to be said"
    states = [CodeState(function) for function in functions]
    assert not any(state.tells_all for state in states)


def test_what_nobody_can_see_of_is_told_by_its_name() -> None:
    connection, double = duckdb.connect(), pl.col("a").map_elements({1: 2}.get)

    def function(df: pl.DataFrame) -> pl.DataFrame:
        return df.select(amount=double, other=connection)

    told = CodeState(function)
    assert not told.tells_all
    first, second = told.warnings()
    assert first.startswith(
        "its code uses connection, a _duckdb.DuckDBPyConnection, of which only the name is known"
    )
    assert second.startswith(
        "its code uses double, an expression that calls Python, of which only the name is known"
    )


def test_objects_in_defaults_lists_and_dicts_are_named_one_by_one():
    pair = [string.Template("a"), string.Template("b")]
    by_name, first, second = {"x": string.Template("c")}, string.Template("d"), string.Template("e")

    def function(value, model=first, *, other=second):
        return pair, by_name, value, model, other

    state = CodeState(function)
    assert set(state.states) == {"pair.0", "pair.1", "by_name.x", "default.0", "default.other"}

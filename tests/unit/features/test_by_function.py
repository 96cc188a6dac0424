"""What is remembered of a function: nothing of other code, of another function, or of one that is gone."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from mlforge.features.by_function import ByFunction
from tests.support.projects import Project, rows


def plain() -> None:
    """A function."""


@dataclass
class Compared:
    """A callable that is compared by value, and so has no hash."""

    number: int

    def __call__(self) -> None: ...


class Slotted:
    """A callable that nothing can refer to weakly."""

    __slots__ = ("number",)

    def __call__(self) -> None: ...


@pytest.mark.parametrize("function", [plain, Compared(1)])
def test_a_value_holds_for_a_function_and_its_code(function: Compared) -> None:
    known: ByFunction[str] = ByFunction()
    known.remember(function, "a", "one")
    assert known.get(function, "a") == "one"
    assert known.get(function, "b") is None
    known.remember(function, "b", "two")
    assert known.get(function, "a") is None
    assert known.get(Compared(1), "b") is None


def test_nothing_is_remembered_of_what_cannot_be_referred_to_weakly() -> None:
    known: ByFunction[str] = ByFunction()
    function = Slotted()
    known.remember(function, "a", "one")
    assert known.get(function, "a") is None


def test_nothing_is_kept_of_a_function_that_is_gone() -> None:
    known: ByFunction[str] = ByFunction()
    for number in range(100):
        known.remember(Compared(number), "a", "one")
    gc.collect()
    assert not known._known


@dataclass
class Scaled:
    """A function with a setting, compared by value."""

    factor: float

    def __call__(self, df: pl.DataFrame) -> pl.DataFrame:
        return df.with_columns(pl.col("amount") * self.factor)


class SlottedScaled:
    """The same, which nothing can refer to weakly."""

    __slots__ = ("factor",)

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, df: pl.DataFrame) -> pl.DataFrame:
        return df.with_columns(pl.col("amount") * self.factor)


@pytest.mark.parametrize("function", [Scaled, SlottedScaled])
def test_any_callable_is_built_and_drops_are_taken_in(
    tmp_path: Path, function: type[Scaled]
) -> None:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0)))
    spend = project.define(function(2.0), name="spend", metrics=[])
    definitions = project.definitions(spend)
    assert definitions.build()["spend"].version == "1.0.0"
    project.drop("b", rows((1, 1, 3.0)))
    assert definitions.build()["spend"].version == "1.0.1"
    assert definitions.store.read("spend")["amount"].to_list() == [2.0, 6.0]
    other = project.definitions(project.define(function(3.0), name="spend", metrics=[]))
    assert other.build()["spend"].version == "1.1.0"

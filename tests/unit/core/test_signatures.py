"""Calls that do not fit a signature: one error of ours that names the argument, whatever public callable it is."""

from __future__ import annotations

import inspect
from typing import Any

import polars as pl
import pytest

import mlforge.validators as v
from mlforge import (
    Definitions,
    Service,
    explain,
    feature,
    get_online_features,
    get_training_data,
)
from mlforge.core.signatures import named_arguments, named_methods
from mlforge.errors import DefinitionError, MlforgeError, did_you_mean
from mlforge.metrics import Rolling, ToDate
from mlforge.online import RedisStore
from mlforge.store import LocalStore

RULES = [getattr(v, name) for name in v.__all__ if name != "Rule"]
CALLS = [feature, get_training_data, get_online_features, explain, Rolling, ToDate, Service, *RULES]
KINDS = [Definitions, LocalStore, RedisStore]


@feature(keys=["user_id"], source="in/")
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df


def public(kind: type) -> list[str]:
    return [
        name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))
    ]


@pytest.mark.parametrize("call", [*CALLS, *KINDS], ids=lambda call: call.__name__)
def test_a_misspelt_argument_of_a_public_call_is_an_error_that_names_a_near_one(call: Any) -> None:
    name = list(inspect.signature(call).parameters)[-1]
    with pytest.raises(DefinitionError) as refused:
        call(**{f"{name}x": 1})
    assert f"{call.__name__}: unexpected keyword argument '{name}x'" in str(refused.value)
    assert f"did you mean {name!r}" in str(refused.value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_public_method_refuses_arguments_that_it_does_not_have(kind: type) -> None:
    instance = object.__new__(kind)
    for name in public(kind):
        with pytest.raises(DefinitionError, match=rf"\w+\.{name}: .*'zzz'; there are "):
            getattr(instance, name)(zzz=1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Definitions(stor=1), "Definitions: .*'stor'; did you mean 'store'?"),
        (Definitions, "missing a required argument: 'store'; it takes store, features"),
        (lambda: RedisStore.from_url("redis://a", tll=1), "from_url: .*'tll'; did you mean 'ttl'?"),
        (lambda: RedisStore(*"0123456789ab"), "too many positional arguments; it takes host, port"),
        (lambda: LocalStore("s").read("a", Version="1.0.0"), "'Version'; did you mean 'version'?"),
        (lambda: v.in_range(1), "in_range: missing a required argument: 'high'; it takes low"),
        (spend.as_, "as_: missing a required argument: 'prefix'; it takes prefix"),
    ],
)
def test_a_call_that_does_not_fit_says_what_it_takes(call: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        call()


def test_an_error_of_python_from_within_a_call_stays_what_it_is() -> None:
    @named_arguments("add")
    def add(number: Any, other: Any = 1) -> Any:
        """The sum."""
        return number + other

    @named_methods
    class Adder:
        def __init__(self, number: Any) -> None:
            self.number = number

        @classmethod
        def of(cls, number: Any) -> Adder:
            return cls(number)

        @staticmethod
        def half(number: Any) -> Any:
            return number / 2

    with pytest.raises(TypeError, match="can only concatenate") as raised:
        add("a")
    assert not isinstance(raised.value, MlforgeError)
    assert add(1, other=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "The sum.")
    assert (Adder.of(4).number, Adder.half(4)) == (4, 2)
    for call in (Adder, Adder.of, Adder.half):
        with pytest.raises(DefinitionError, match=r"'numbr'; did you mean 'number'\?"):
            call(numbr=1)


@pytest.mark.parametrize(
    ("name", "names", "advice"),
    [
        ("Amount", ["amount", "at"], "did you mean 'amount'?"),
        ("amount", ["amount__sum__7d", "at"], "did you mean 'amount__sum__7d'?"),
        ("zzz", ["amount", "at"], "there are amount, at"),
        ("zzz", [], "there are none"),
        (None, ["amount"], "there are amount"),
        ("zzz", [f"a{i}" for i in range(22)], f"there are {', '.join(f'a{i}' for i in range(20))} and 2 more"),
    ],
)  # fmt: skip
def test_advice_on_a_name_names_near_ones_or_all(name: Any, names: list[str], advice: str) -> None:
    assert did_you_mean(name, names) == advice

"""`@feature`: a function over a source's rows, and what is to be made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from os import PathLike
from typing import Any

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import Rolling
from mlforge.core.time_model import OnlineClock
from mlforge.core.validators import Rule
from mlforge.errors import DefinitionError
from mlforge.features.code_hash import code_hash

Function = Callable[[Any], Any]
ENGINES = ("polars", "duckdb")


@dataclass(frozen=True)
class Feature:
    """A defined feature. Calling it calls its function: `user_spend(df)`."""

    spec: FeatureSpec
    source: str
    function: Function = field(repr=False)
    validators: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    description: str = ""
    engine: str | None = None
    incremental: bool | None = None

    @cached_property
    def code_hash(self) -> str:
        """A hash of the function's code, helpers and constants; layout and comments do not matter."""
        return code_hash(self.function)

    @property
    def name(self) -> str:
        """The feature's name, its folder in the store and its prefix in answers."""
        return self.spec.name

    def __call__(self, df: pl.DataFrame) -> Any:
        """Call the function, as if it had not been decorated."""
        return self.function(df)


def feature(
    *,
    keys: Sequence[str] | str,
    source: str | PathLike[str],
    timestamp: str | None = None,
    interval: str | timedelta | None = None,
    metrics: Sequence[Rolling] = (),
    validators: Mapping[str, Sequence[Rule] | Rule] | None = None,
    tags: Sequence[str] = (),
    description: str | None = None,
    engine: str | None = None,
    incremental: bool | None = None,
    online_clock: OnlineClock = "data",
    name: str | None = None,
) -> Callable[[Function], Feature]:
    """Make a feature of a function from the source's rows to events.

    keys: the columns that name an entity: integers, strings, booleans or dates.
    source: a parquet file, a folder of them (recursive), or a glob; relative to `Definitions(root=)`.
    timestamp: the column with each event's time; needed for metrics.
    interval: align values to boundaries of this fixed length (`"1d"`); None evaluates continuously.
    metrics: `Rolling` windows; none serves the function's rows as they are.
    validators: column -> rules of `mlforge.validators`, checked on the function's rows, file by file.
    engine: "polars" or "duckdb"; None takes that of Definitions.
    incremental: True or False overrides the proof that the function treats each row alone.
    online_clock: "data" serves values as of the data's own end, "wall" as of now.
    name: by default the function's.

    The function takes and returns a polars DataFrame (a LazyFrame may be returned).
    Raises DefinitionError for arguments that contradict each other.
    """

    def decorate(function: Function) -> Feature:
        if isinstance(function, Feature) or not callable(function):
            raise DefinitionError(f"@feature decorates a function, not {function!r}")
        called = str(name or getattr(function, "__name__", ""))
        spec = FeatureSpec.of(
            called,
            keys=_texts(keys, called, "keys"),
            timestamp=timestamp,
            interval=interval,
            metrics=metrics,
            online_clock=online_clock,
        )
        if not str(source):
            raise DefinitionError(f"{called}: source must be a path or a glob, not empty")
        if engine is not None:
            check_engine(engine, called)
        return Feature(
            spec=spec,
            source=str(source),
            function=function,
            validators=_rules(validators or {}, called),
            tags=_texts(tags, called, "tags"),
            description=description
            if description is not None
            else (function.__doc__ or "").strip(),
            engine=engine,
            incremental=incremental,
        )

    return decorate


def check_engine(engine: object, owner: str) -> str:
    """The engine's name, or DefinitionError naming those there are."""
    if engine not in ENGINES:
        raise DefinitionError(f"{owner}: unknown engine {engine!r}; there are {', '.join(ENGINES)}")
    return str(engine)


def _texts(values: Sequence[object] | str, owner: str, what: str) -> tuple[str, ...]:
    texts: list[str] = []
    for text in (values,) if isinstance(values, str) else values:
        if not isinstance(text, str) or not text:
            raise DefinitionError(f"{owner}: {what} must be texts, not {text!r}")
        texts.append(text)
    return tuple(texts)


def _rules(
    validators: Mapping[str, Sequence[Rule] | Rule], owner: str
) -> dict[str, tuple[Rule, ...]]:
    made: dict[str, tuple[Rule, ...]] = {}
    for column, rules in validators.items():
        made[column] = (rules,) if isinstance(rules, Rule) else tuple(rules)
        for rule in made[column]:
            if not isinstance(rule, Rule):
                raise DefinitionError(
                    f"{owner}: validator {rule!r} of {column!r} is not a rule; use those of mlforge.validators, called: not_null()"
                )
    return made

"""`@feature`: a function over a source's rows, with keys, times, metrics and rules."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from os import PathLike
from typing import Any, cast

import polars as pl

from mlforge.core.arguments import choice, flag, listed, named, shown, text, texts
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import Rolling, ToDate
from mlforge.core.repeated import first_repeated
from mlforge.core.signatures import named_arguments, named_methods
from mlforge.core.text import plural
from mlforge.core.time_model import ONLINE_CLOCKS, OnlineClock
from mlforge.core.validators import REQUIRED, Rule
from mlforge.core.values import FEATURE, Duration, check_name
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.features.code_hash import CodeState
from mlforge.features.defaults import parse_defaults
from mlforge.features.selection import Selection

Function = Callable[[Any], Any]
ENGINES = ("polars", "duckdb")
SPARK = "spark"
"""A name that features and definitions may give beside those: polars computes, and executors of Spark take the tasks of what is big."""


@named_methods
@dataclass(frozen=True)
class Feature:
    """A defined feature. Calling it calls its function: `user_spend(df)`."""

    spec: FeatureSpec
    sources: tuple[str, ...]
    """Paths, folders or globs, as they were written; or the feature whose rows are the source's, as `feature:user_spend`."""
    function: Function = field(repr=False)
    validators: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    """Rules of the function's rows, by column."""
    table_rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    """Rules of columns of the table, by name; no hash has them, and no version is made for them."""
    tags: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    """The person or team to ask."""
    column_descriptions: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of stored columns, by name; neither they nor the owner change a hash or make a version."""
    engine: str | None = None
    incremental: bool | None = None
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sources of the function's further arguments, by their names."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values that take the place of null in answers, by column; nothing that is stored has them, and no hash."""
    sealed_after: Duration | None = None
    """How long the time of a folder of the source is over before it is not listed again; None for never."""
    made_of: Feature | None = field(default=None, repr=False, compare=False)
    """The feature that was given as the source; None where files are, or a feature's name."""
    leaves_closed_out: bool = False
    """Whether a metric without an offset leaves its `closed` to the default."""

    @cached_property
    def code(self) -> CodeState:
        """The state of the function's code: a user may change what it uses."""
        return CodeState(self.function)

    @property
    def code_hash(self) -> str:
        """A hash of the function's code, helpers and constants; layout and comments do not matter."""
        return self.code.hash

    @property
    def source(self) -> str:
        """The source as text; several are divided by commas."""
        return ", ".join(self.sources)

    @property
    def upstream(self) -> str | None:
        """The name of the feature whose served rows are this one's source; None where files are."""
        first = self.sources[0]
        return first.removeprefix(FEATURE) if first.startswith(FEATURE) else None

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that a rule makes needed, whatever metrics name."""
        return tuple(
            column
            for column, rules in self.validators.items()
            if any(rule.name == REQUIRED for rule in rules)
        )

    @property
    def name(self) -> str:
        """The feature's name, its folder in the store and its prefix in answers."""
        return self.spec.name

    def __repr__(self) -> str:
        """Its name, keys, source and time, and how many metrics; `spec` has all of it."""
        spec = self.spec
        told = [f"keys {', '.join(spec.keys) or 'none'}", f"source {self.source!r}"]
        told += [f"timestamp {spec.timestamp}"] if spec.timestamp else []
        told += [f"interval {spec.interval}"] if spec.interval else []
        told += [plural(len(spec.columns), "metric")] if spec.columns else []
        return f"Feature({self.name!r}: {', '.join(told)})"

    def __getitem__(self, columns: str | tuple[str, ...]) -> Selection:
        """Some of the feature's value columns, for a request: `user_spend["amount__sum__7d", "amount__count__7d"]`.

        Raises DefinitionError for a name that none of its columns has, as far as they do not follow from data.
        """
        return Selection(self.spec)[columns]

    def as_(self, prefix: str, /, **keys: str) -> Selection:
        """The feature under another prefix in answers, its keys under other names in spines and entities.

        `user_profile.as_("buyer", user_id="buyer_id")` gives `buyer__<column>` of the entity `buyer_id`. Raises
        DefinitionError for a key that the feature does not have.
        """
        return Selection(self.spec).as_(prefix, **keys)

    def __call__(self, df: pl.DataFrame, **tables: pl.DataFrame) -> Any:
        """Call the function, as if it had not been decorated."""
        return self.function(df, **tables)


@named_arguments("@feature", 'write @feature(keys=["user_id"], source="transactions/")')
def feature(
    *,
    keys: Sequence[str] | str,
    source: str | PathLike[str] | Sequence[str | PathLike[str]] | Feature,
    timestamp: str | None = None,
    interval: str | timedelta | None = None,
    metrics: Sequence[Rolling | ToDate] | None = None,
    validators: Mapping[str, Sequence[Rule] | Rule] | None = None,
    tags: Sequence[str] | None = None,
    description: str | None = None,
    engine: str | None = None,
    incremental: bool | None = None,
    online_clock: OnlineClock = "data",
    name: str | None = None,
    tables: Mapping[str, str | PathLike[str] | Sequence[str | PathLike[str]]] | None = None,
    derive: Mapping[str, str] | None = None,
    owner: str | None = None,
    columns: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    sealed_after: str | timedelta | None = None,
) -> Callable[[Function], Feature]:
    """Make a feature of a function from the source's rows to events.

    keys: the columns that name an entity: integers, strings, booleans or dates. `[]`: one entity, the whole
        source; it is read with `{}`, and every row of a spine joins it.
    source: a parquet file, a folder of them (recursive), or a glob; relative to `Definitions(root=)`. A list
        of several is all their files together. A table with a log: `"delta:path"`, `"iceberg:path"`. Another feature, itself or as `"feature:user_spend"`: the rows of its
        served version are the source's; each version that it publishes is a drop.
    timestamp: the column with each event's time; needed for metrics.
    interval: align values to boundaries of this fixed length (`"1d"`); None evaluates continuously.
    metrics: `Rolling` and `ToDate` windows; none serves the function's rows as they are.
    validators: column -> rules of `mlforge.validators`, checked on the function's rows, file by file; `no_drift` on
        columns of the feature's table.
    engine: "polars", "duckdb", or "spark", by which polars computes and big work goes to a Spark cluster; None takes that of Definitions.
    incremental: True or False overrides the proof that the function treats each row alone.
    online_clock: "data" serves values as of the data's own end, "wall" as of now.
    name: by default the function's. tags: words by which `build`, `plan` and the registry find the feature.
    tables: name -> source of a further argument of that name, as `source` names one; a change of it is a drop.
    derive: name -> expression over the feature's keys and columns, earlier derived ones included, and `t`, the
        instant of evaluation: `{"silent": "days(t - seen__last_time__30d)"}`.
    owner: the person or team to ask. columns: column -> description, as in `{"amount__sum__7d": "spent in a week"}`.
        They are for people, as `description` is, which by default is the function's docstring: a change makes no version.
    defaults: column -> value that takes the place of null in answers of training and online reads, of this feature and
        of services. What is stored has none, so the feature's own `derive` sees null, and a change makes no version.
    sealed_after: of a source in a bucket whose folders are named after times (`date=2026-11-01/`, `2026/11/01/`): folders whose
        time has been over for so long (`"2d"`) are not listed again.

    The function takes and returns a polars DataFrame (a LazyFrame may be returned). Files that it reads by
    itself are refused: their changes would go unnoticed.
    Raises DefinitionError for arguments of the wrong kind, or that contradict each other.
    """

    def decorate(function: Function) -> Feature:
        if isinstance(function, Feature) or not callable(function):
            raise DefinitionError(f"@feature decorates a function, not {shown(function)}")
        chosen_name = getattr(function, "__name__", "") if name is None else name
        windowed = () if metrics is None else metrics
        own_name = text(chosen_name, "a feature's name", 'write name="user_spend"')
        spec = FeatureSpec.of(
            own_name,
            keys=texts(keys, f"{own_name}: keys", 'write keys=["user_id"]'),
            timestamp=_optional(
                timestamp, f"{own_name}: timestamp", 'write timestamp="event_time"'
            ),
            interval=interval,
            metrics=windowed,
            online_clock=_clock(online_clock, own_name),
            derive=derive,
        )
        further = _tables(tables, own_name)
        rules = _rules(validators, own_name)
        _check_parameters(function, own_name, further)
        described = _optional(
            description, f"{own_name}: description", "or leave it out", empty=True
        )
        return Feature(
            spec=spec,
            sources=_sources(source, f"{own_name}: source"),
            function=function,
            validators=_of_files(rules),
            table_rules=_of_tables(rules, spec),
            tags=texts(
                () if tags is None else tags,
                f"{own_name}: tags",
                'write tags=["payments"], or leave it out',
            ),
            description=(function.__doc__ or "").strip() if described is None else described,
            owner=_optional(owner, f"{own_name}: owner", "or leave it out", empty=True) or "",
            column_descriptions=_descriptions(columns, spec),
            defaults=parse_defaults(defaults, spec),
            engine=None if engine is None else check_engine_or_spark(engine, own_name),
            incremental=None
            if incremental is None
            else flag(incremental, f"{own_name}: incremental"),
            tables=further,
            sealed_after=None
            if sealed_after is None
            else Duration.parse(sealed_after, f"{own_name}: sealed_after"),
            made_of=source if isinstance(source, Feature) else None,
            leaves_closed_out=any(one.closed is None and one.offset is None for one in windowed),
        )

    return decorate


def check_engine(engine: object, owner: str, known: Sequence[str] = ENGINES) -> str:
    """The engine's name; DefinitionError, which lists the known ones, if there is no such engine."""
    if not isinstance(engine, str) or engine not in known:
        raise DefinitionError(
            f"{owner}: unknown engine {shown(engine)}; there are {', '.join(known)}"
        )
    return engine


def check_engine_or_spark(engine: object, owner: str) -> str:
    """The name of an engine, or "spark"; as `check_engine`."""
    return check_engine(engine, owner, (*ENGINES, SPARK))


def _optional(value: object, what: str, works: str, *, empty: bool = False) -> str | None:
    if value is None or (empty and isinstance(value, str)):
        return value
    return text(value, what, works)


def _descriptions(columns: object, spec: FeatureSpec) -> dict[str, str]:
    """The descriptions of columns; DefinitionError for a column that the feature cannot have."""
    what, works = f"{spec.name}: columns", 'write columns={"amount__sum__7d": "spent in a week"}'
    by_column = {} if columns is None else named(columns, what, works)
    known = (*spec.identity, *spec.output_names)
    for column, description in by_column.items():
        if spec.columns and column not in known:
            raise DefinitionError(f"{what}: no column {column!r}; {did_you_mean(column, known)}")
        text(description, f"{what}: {column!r}", works)
    return dict(by_column)


def _clock(clock: object, owner: str) -> OnlineClock:
    return cast("OnlineClock", choice(clock, ONLINE_CLOCKS, f"{owner}: online_clock"))


def _sources(source: object, what: str) -> tuple[str, ...]:
    """The texts of a single source or of a list of sources."""
    works = 'write a path such as "transactions/", or a list of such texts'
    if isinstance(source, Feature):
        return (f"{FEATURE}{source.name}",)
    is_single = isinstance(source, (str, os.PathLike))
    paths = (source,) if is_single else listed(source, what, works)
    if not paths:
        raise DefinitionError(f"{what} is an empty list; {works}")
    if any(isinstance(path, Feature) for path in paths):
        raise DefinitionError(
            f"{what} lists a feature; a feature is a source by itself: write source=user_spend"
        )
    places = [os.fspath(path) if isinstance(path, os.PathLike) else path for path in paths]
    sources = tuple(
        text(place, what if is_single else f"each of {what}", works) for place in places
    )
    named = [place for place in sources if place.startswith(FEATURE)]
    for place in named:
        check_name(place.removeprefix(FEATURE), f"{what}: feature")
    if named and len(sources) > 1:
        raise DefinitionError(
            f"{what} lists {named[0]!r} among others; a feature is a source by itself: write source={named[0]!r}"
        )
    twice = first_repeated(sources)
    if twice is not None:
        raise DefinitionError(f"{what} names {twice!r} twice, but a file counts once; name it once")
    return sources


def _tables(tables: object, owner: str) -> dict[str, tuple[str, ...]]:
    """The sources of the function's further arguments."""
    what, works = f"{owner}: tables", 'write tables={"merchants": "dim/merchants.parquet"}'
    by_name = {} if tables is None else named(tables, what, works)
    for name, source in by_name.items():
        if isinstance(source, Feature) or str(source).startswith(FEATURE):
            raise DefinitionError(
                f"{what}: {name} is a feature; a table is a file, a folder or a glob: {works}"
            )
    return {name: _sources(source, f"{what}: {name}") for name, source in by_name.items()}


def _check_parameters(function: Function, owner: str, tables: Mapping[str, object]) -> None:
    """Refuse a function that cannot be called with one frame and its tables by name."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin does not tell
        return
    try:
        signature.bind(None, **tables)
    except TypeError as error:
        parameters = ", ".join(["df", *tables])
        further = f" and the tables {', '.join(tables)}" if tables else ""
        raise DefinitionError(
            f"{owner}: its function is called with one frame{further}, but {error}; "
            f"write def {owner}({parameters}): ..."
        ) from error


def _rules(validators: object, owner: str) -> dict[str, tuple[Rule, ...]]:
    works = 'write validators={"amount": [v.not_null()]}'
    rules: dict[str, tuple[Rule, ...]] = {}
    by_column = {} if validators is None else named(validators, f"{owner}: validators", works)
    for column, one_or_more in by_column.items():
        what = f"{owner}: validators of {column!r}"
        lone = isinstance(one_or_more, Rule) or callable(one_or_more)
        rules[column] = (one_or_more,) if lone else listed(one_or_more, what, works)
        for rule in rules[column]:
            if not isinstance(rule, Rule):
                raise DefinitionError(
                    f"{owner}: validator {shown(rule)} of {column!r} is not a rule; use those of mlforge.validators, called: not_null()"
                )
    return rules


def _of_files(rules: Mapping[str, tuple[Rule, ...]]) -> dict[str, tuple[Rule, ...]]:
    """The rules of files; a column whose rules are of tables alone is not among them."""
    return {
        column: tuple(rule for rule in of_column if not rule.is_of_table)
        for column, of_column in rules.items()
        if not of_column or any(not rule.is_of_table for rule in of_column)
    }


def _of_tables(
    rules: Mapping[str, Sequence[Rule]], spec: FeatureSpec
) -> dict[str, tuple[Rule, ...]]:
    """The rules of tables; DefinitionError where the feature cannot have the column, or has no instants."""
    of_tables = {
        column: chosen
        for column, of_column in rules.items()
        if (chosen := tuple(rule for rule in of_column if rule.is_of_table))
    }
    for column, chosen in of_tables.items():
        what = f"{spec.name}: {chosen[0]} of {column!r}"
        if spec.timestamp is None:
            raise DefinitionError(
                f"{what}: the feature has no timestamp, so that no row is newer than another; give it timestamp="
            )
        if column in spec.identity:
            raise DefinitionError(
                f"{what}: a key or timestamp is another in each row; name a value"
            )
        if column in spec.event_instants:
            raise DefinitionError(
                f"{what}: an event's instant moves on as time does; name a derived column of it, such as days(t - {column})"
            )
        if spec.columns and column not in spec.output_names:
            near = did_you_mean(column, spec.output_names)
            raise DefinitionError(f"{what}: the feature's table has no such column; {near}")
    return of_tables

"""Rules applied to rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from mlforge.core.validators import REQUIRED, OnFail, Rule, instant
from mlforge.core.values import from_us
from mlforge.errors import ColumnNotFound, DefinitionError, RuleMisfit
from mlforge.frames.polars_schema import dtype_text
from mlforge.frames.time_units import in_us, unit_us

_EXAMPLES = 3
_LONGEST = 40
# The kinds of arguments that go with a kind of column.
_GOES_WITH = {
    "number": ("number",),
    "text": ("text",),
    "boolean": ("boolean",),
    "date": ("date", "datetime"),
    "datetime": ("date", "datetime"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A rule that rows break: how many, and up to three of their values. lacking: there is no such column."""

    column: str
    rule: Rule
    rows: int
    examples: tuple[str, ...]
    lacking: bool = False

    def text(self, of: int) -> str:
        """The rule and how many of the rows break it, in words."""
        verdict = f"{self.column}: {self.rule.describe()} fails in {self.rows:,} of {of:,} rows"
        if self.lacking:
            return f"{verdict} (there is no such column)"
        return f"{verdict} ({', '.join(self.examples)})" if self.examples else verdict


@dataclass(frozen=True, slots=True)
class Report:
    """The rules' verdict on some rows; `kept` are the rows that no "drop" rule removes."""

    rows: int
    failures: tuple[Failure, ...]
    kept: pl.DataFrame
    dropped: int

    @property
    def failed(self) -> bool:
        """Whether a rule with on_fail="error" is broken."""
        return any(failure.rule.on_fail == "error" for failure in self.failures)

    def text(self, on_fail: OnFail | None = None) -> str:
        """All failures in one line, or only failures with this `on_fail`; empty without failures."""
        return "; ".join(
            failure.text(self.rows)
            for failure in self.failures
            if on_fail in (None, failure.rule.on_fail)
        )


def check(validators: Mapping[str, Sequence[Rule]], frame: pl.DataFrame, where: str) -> Report:
    """Apply every rule to every row, also to those that another rule drops.

    Nulls, NaN and infinities pass all rules but `not_null`; naive datetimes are UTC. A column that is not
    there is null in each row.
    Raises ColumnNotFound for a column that is required or not_null, ValidationError for a rule that does not go with its
    column's dtype, and DefinitionError for a pattern that polars does not support.
    """
    if not any(validators.values()):
        return Report(frame.height, (), frame, 0)
    failures: list[Failure] = []
    dropped = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    for name, rules in validators.items():
        lacking = name not in frame.columns
        if lacking and any(rule.name in _OF_PRESENCE and rule.on_fail == "error" for rule in rules):
            raise ColumnNotFound.among(where, name, frame.columns)
        seen = frame.with_columns(pl.lit(None).alias(name)) if lacking else frame
        column = _Column(name, seen.schema[name], where)
        for rule in rules:
            broken = column.lacks(rule, seen) if lacking else column.broken(rule, seen)
            rows = int(broken.sum())
            if not rows:
                continue
            shown = not lacking and rule.name != "not_null"
            examples = column.examples(seen, broken) if shown else ()
            failures.append(Failure(name, rule, rows, examples, lacking))
            if rule.on_fail == "drop":
                dropped |= broken
    count = int(dropped.sum())
    kept = frame.filter(~dropped) if count else frame
    return Report(frame.height, tuple(failures), kept, count)


class _Column:
    """A column in the form in which rules compare it: instants as microseconds, categories as text."""

    def __init__(self, name: str, dtype: pl.DataType, where: str) -> None:
        self.name, self.dtype, self.where = name, dtype, where
        self.kind = _kind(dtype)
        self.values = _comparable(pl.col(name), dtype)

    def broken(self, rule: Rule, frame: pl.DataFrame) -> pl.Series:
        """Which rows break the rule."""
        if rule.kind is None:
            fails = _BARE[rule.name](self.values)
        elif self.dtype == pl.Null:
            fails = pl.repeat(False, pl.len(), dtype=pl.Boolean)
        elif self.kind is None or rule.kind not in _GOES_WITH[self.kind]:
            raise self._misfit(rule, f"it is for {rule.kind} columns; cast it, or use another rule")
        else:
            passes = _RULES[rule.name](self.values, *map(self._argument, rule.arguments))
            fails = ~passes.fill_null(True)
        try:
            return frame.select(fails.alias(self.name)).to_series()
        except PolarsError as error:
            reason = str(error).split("\n\n")[0].rpartition("error: ")[2].strip()
            if rule.name == "matches_regex":
                raise DefinitionError(
                    f"{self.where}: {rule} of {self.name!r} is no pattern to polars: {reason}"
                ) from error
            raise self._misfit(rule, reason) from error

    def lacks(self, rule: Rule, frame: pl.DataFrame) -> pl.Series:
        """Which rows break the rule where the column is not there: all, or none."""
        broken = rule.name in _OF_PRESENCE
        return pl.repeat(broken, frame.height, dtype=pl.Boolean, eager=True)

    def examples(self, frame: pl.DataFrame, broken: pl.Series) -> tuple[str, ...]:
        """Some values that break a rule."""
        values = frame.filter(broken).select(self.values).to_series()
        return tuple(map(self._shown, values.unique(maintain_order=True).head(_EXAMPLES)))

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, tuple):
            return _members(argument, self.dtype)
        return instant(argument) if isinstance(argument, date) else argument

    def _shown(self, value: Any) -> str:
        if self.kind in ("date", "datetime"):
            try:
                time = from_us(value)
            except OverflowError:
                return f"{value} us since 1970"
            return str(time.date() if self.kind == "date" else time)
        if isinstance(value, pl.Series):
            value = value.to_list()
        text = repr(value) if isinstance(value, str) else str(value)
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."

    def _misfit(self, rule: Rule, hint: str) -> RuleMisfit:
        return RuleMisfit(
            f"{self.where}: {rule} does not go with column {self.name!r}, which is "
            f"{dtype_text(self.dtype)}; {hint}"
        )


def _comparable(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return pl.when(column.is_finite()).then(column)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    if isinstance(dtype, (pl.Datetime, pl.Date)):
        physical = column.to_physical()
        return in_us(physical.cast(pl.Int128) if unit_us(dtype) > 1 else physical, dtype)
    return column


def _kind(dtype: pl.DataType) -> str | None:
    if dtype.is_numeric():
        return "number"
    for kind, types in _KINDS.items():
        if isinstance(dtype, types):
            return kind
    return None


_KINDS: dict[str, tuple[type[pl.DataType], ...]] = {
    "text": (pl.String, pl.Categorical, pl.Enum),
    "boolean": (pl.Boolean,),
    "date": (pl.Date,),
    "datetime": (pl.Datetime,),
}
_OF_PRESENCE = (REQUIRED, "not_null")
# Rules without arguments mark the rows that break them; all other rules the rows that pass, null where null.
_BARE: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    REQUIRED: lambda values: values.is_null() & values.is_not_null(),
    "not_null": lambda values: values.is_null(),
    "unique": lambda values: values.is_not_null() & ~values.is_first_distinct(),
}
_RULES: dict[str, Callable[..., pl.Expr]] = {
    "greater_than": lambda values, bound: values > bound,
    "less_than": lambda values, bound: values < bound,
    "greater_than_or_equal": lambda values, bound: values >= bound,
    "less_than_or_equal": lambda values, bound: values <= bound,
    "in_range": lambda values, low, high: values.is_between(low, high),
    "matches_regex": lambda values, pattern: values.str.contains(pattern),
    "is_in": lambda values, members: values.is_in(members),
}


def _members(values: tuple[Any, ...], dtype: pl.DataType) -> pl.Series:
    """The values in the column's dtype; values that it cannot hold match no row and are left out."""
    if dtype.is_temporal():
        return pl.Series([instant(value) for value in values], dtype=pl.Int64)
    if dtype.is_float():
        return pl.Series([float(value) for value in values]).cast(dtype)
    if isinstance(dtype, pl.Decimal):
        return pl.Series([Decimal(str(value)) for value in values])
    if dtype.is_integer():
        whole = [int(value) for value in values if value == int(value)]
        return pl.Series(whole, dtype=pl.Int128)
    return pl.Series(values)

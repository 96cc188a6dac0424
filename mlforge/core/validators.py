"""Rules about the values of a column: descriptions only, no engine.

Rules see the rows that a feature's function returns, file by file. Nulls pass every rule but
`not_null`; NaN and infinities count as null, and so does each row of a file that lacks the column. `no_drift` alone
sees columns of the feature's table, version by version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal, get_args

from mlforge.core.arguments import choice
from mlforge.core.signatures import named_arguments
from mlforge.core.values import to_iso, to_us
from mlforge.errors import DefinitionError

OnFail = Literal["error", "drop", "warn"]
ON_FAIL: tuple[str, ...] = get_args(OnFail)

REQUIRED = "required"
"""The rule that asks for the column itself, whatever its values."""

NO_DRIFT = "no_drift"
"""The rule of a column of the table, which no single file can break."""
_OF_TABLES: tuple[str, ...] = ("error", "warn")

Bound = int | float | Decimal | date | datetime
Value = Bound | str | bool
Argument = Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. `on_fail`: "error" rejects the file, "drop" leaves the rows out, "warn" reports them.

    Of a rule of tables "error" holds the feature, and there is no "drop".
    """

    name: str
    arguments: tuple[Argument, ...] = ()
    on_fail: OnFail = "error"

    def __post_init__(self) -> None:
        choice(self.on_fail, _OF_TABLES if self.is_of_table else ON_FAIL, f"{self.name}: on_fail")

    @property
    def is_of_table(self) -> bool:
        """Whether it sees the rows of a version's table; else those of a file."""
        return self.name == NO_DRIFT

    @property
    def kind(self) -> str | None:
        """The kind of its arguments: text, boolean, number, date or datetime; None where it has none."""
        if not self.arguments:
            return None
        first = self.arguments[0]
        return _kind(first[0] if isinstance(first, tuple) else first)

    def describe(self) -> str:
        """As it is written: `in_range(0, 10)`."""
        return f"{self.name}({', '.join(map(_text, self.arguments))})"

    def __str__(self) -> str:
        """With all that tells it from another rule: `in_range(0, 10, on_fail='drop')`."""
        if self.on_fail == "error":
            return self.describe()
        return (
            f"{self.name}({', '.join([*map(_text, self.arguments), f'on_fail={self.on_fail!r}'])})"
        )

    def to_json(self) -> dict[str, Any]:
        """The rule in JSON's types; dates, datetimes and Decimals as text."""
        arguments = [_json(argument) for argument in self.arguments]
        return {"name": self.name, "arguments": arguments, "on_fail": self.on_fail}


@named_arguments("required")
def required(*, on_fail: OnFail = "error") -> Rule:
    """The file has the column, with a value or without, in a dtype that goes with the other files'."""
    return Rule(REQUIRED, (), on_fail)


@named_arguments("not_null")
def not_null(*, on_fail: OnFail = "error") -> Rule:
    """No value is null."""
    return Rule("not_null", (), on_fail)


@named_arguments("unique")
def unique(*, on_fail: OnFail = "error") -> Rule:
    """No value comes twice in one file; the first row of each value passes, the later ones fail."""
    return Rule("unique", (), on_fail)


@named_arguments("greater_than")
def greater_than(bound: Bound, *, on_fail: OnFail = "error") -> Rule:
    """Every value is greater than the bound."""
    return Rule("greater_than", (_bound("greater_than", bound),), on_fail)


@named_arguments("less_than")
def less_than(bound: Bound, *, on_fail: OnFail = "error") -> Rule:
    """Every value is less than the bound."""
    return Rule("less_than", (_bound("less_than", bound),), on_fail)


@named_arguments("greater_than_or_equal")
def greater_than_or_equal(bound: Bound, *, on_fail: OnFail = "error") -> Rule:
    """No value is less than the bound."""
    return Rule("greater_than_or_equal", (_bound("greater_than_or_equal", bound),), on_fail)


@named_arguments("less_than_or_equal")
def less_than_or_equal(bound: Bound, *, on_fail: OnFail = "error") -> Rule:
    """No value is greater than the bound."""
    return Rule("less_than_or_equal", (_bound("less_than_or_equal", bound),), on_fail)


@named_arguments("in_range")
def in_range(low: Bound, high: Bound, *, on_fail: OnFail = "error") -> Rule:
    """Every value lies between the bounds, both included."""
    low, high = _bound("in_range", low), _bound("in_range", high)
    if isinstance(low, date) != isinstance(high, date):
        raise DefinitionError(
            f"in_range: {low!r} and {high!r} cannot be compared; give two numbers or two times"
        )
    if _ordered(low) > _ordered(high):
        raise DefinitionError(f"in_range: {low!r} is above {high!r}; give the lower bound first")
    return Rule("in_range", (low, high), on_fail)


@named_arguments("matches_regex")
def matches_regex(pattern: str, *, on_fail: OnFail = "error") -> Rule:
    """The pattern is found in every string; `^` and `$` tie it to the ends."""
    if not isinstance(pattern, str):
        raise DefinitionError(f"matches_regex: {pattern!r} is not a text")
    try:
        re.compile(pattern)
    except re.error as error:
        raise DefinitionError(f"matches_regex: {pattern!r} is not a pattern: {error}") from error
    return Rule("matches_regex", (pattern,), on_fail)


@named_arguments("is_in")
def is_in(values: Iterable[Value], *, on_fail: OnFail = "error") -> Rule:
    """Every value is one of these."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DefinitionError(
            f"is_in: {values!r} is not a list of values; write is_in([{values!r}])"
        )
    # A set has another order in each process, and the rule's text is part of what partials depend on.
    allowed = tuple(sorted(values, key=repr) if isinstance(values, Set) else values)
    if not allowed:
        raise DefinitionError("is_in: no value is allowed; give at least one")
    for value in allowed:
        if not isinstance(value, (str, bool)):
            _bound("is_in", value)
    kinds = {_kind(value) for value in allowed}
    if len(kinds) > 1:
        raise DefinitionError(
            f"is_in: {_text(allowed)} mixes {' and '.join(sorted(kinds))}; give values of one kind"
        )
    return Rule("is_in", (allowed,), on_fail)


@named_arguments("no_drift")
def no_drift(psi: float = 0.2, *, on_fail: OnFail = "error") -> Rule:
    """The rows that a version adds after the last row of the served one have the distribution of the rows before them.

    psi: the population stability index from which on a column has drifted; above 0. The rule is for columns of the
    feature's table, such as `amount__sum__7d`, and for features with a timestamp. "error": a refresh by a worker holds the
    feature, as after a loss; "warn": the version is published, `mlforge status` warns. Fewer than 100 new rows are not judged.
    """
    if type(psi) not in (int, float) or not 0 < psi < math.inf:
        raise DefinitionError(f"no_drift: psi={psi!r} is no index above 0; write no_drift(psi=0.2)")
    return Rule(NO_DRIFT, (float(psi),), on_fail)


def _kind(value: Value) -> str:
    for kind, types in _KINDS.items():
        if isinstance(value, types):
            return kind
    raise AssertionError(value)


# In this order: a bool is an int, a datetime is a date.
_KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "boolean": (bool,),
    "number": (int, float, Decimal),
    "datetime": (datetime,),
    "date": (date,),
}


def _bound(rule: str, value: object) -> Any:
    """The value if rows can be compared with it."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, date)):
        raise DefinitionError(f"{rule}: {value!r} is neither a number nor a date or datetime")
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        raise DefinitionError(f"{rule}: {value!r} is no value to compare with: it counts as null")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise DefinitionError(f"{rule}: {value!r} has more than 64 bits; use a float")
    return value


def instant(value: date) -> int:
    """UTC microseconds: a date is its midnight, a naive datetime is UTC."""
    if isinstance(value, datetime):
        return to_us(value)
    return to_us(datetime(value.year, value.month, value.day, tzinfo=UTC))


def _ordered(value: Bound) -> Any:
    return instant(value) if isinstance(value, date) else value


def _text(argument: Argument) -> str:
    if isinstance(argument, tuple):
        return f"[{', '.join(map(_text, argument))}]"
    if isinstance(argument, (datetime, date, Decimal)):
        return str(argument)
    return repr(argument)


def _json(argument: Argument) -> Any:
    if isinstance(argument, tuple):
        return [_json(value) for value in argument]
    if isinstance(argument, datetime):
        return to_iso(to_us(argument))
    if isinstance(argument, (date, Decimal)):
        return str(argument)
    return argument

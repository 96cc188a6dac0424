"""Advice: what would work where a text is refused."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from mlforge.core.expression.kinds import BOOL, DATE, DURATION, INSTANT_KIND, element
from mlforge.errors import did_you_mean

FUNCTIONS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("abs", "log", "log1p", "exp", "sqrt", "floor", "ceil", "is_null"), (1, 1)),
    **dict.fromkeys(("seconds", "hours", "days", "length"), (1, 1)),
    "round": (1, 2),
    "clip": (3, 3),
    "contains": (2, 2),
    **dict.fromkeys(("min", "max", "coalesce"), (2, None)),
}
"""Each function's least and greatest number of arguments; None for any number."""
_ARGUMENTS = {
    "round": "x, 2",
    "clip": "x, 0, 1",
    "contains": "x, 'a'",
    **dict.fromkeys(("min", "max", "coalesce"), "a, b"),
}
INSTEAD: dict[type[ast.AST], tuple[str, str]] = {
    ast.Pow: ("there is no **", "write x * x, sqrt(x), or exp(2.5 * log(x))"),
    ast.BitAnd: ("there is no &", "write: and"),
    ast.BitOr: ("there is no |", "write: or"),
    ast.BitXor: ("there is no ^", "write a != b, or x * x for a square"),
    ast.Invert: ("there is no ~", "write: not"),
    ast.Is: ("there is no `is`", "write is_null(x), or =="),
    ast.IsNot: ("there is no `is not`", "write not is_null(x), or !="),
    ast.Attribute: ("there are no attributes and methods", "use a function, as in log(x)"),
    ast.Subscript: ("there are no [...] behind a value", "take the value in an earlier column"),
    ast.JoinedStr: ("there are no f-strings", "write a plain text"),
    ast.Tuple: ("a list of values stands only behind `in`", "as in x in (1, 2)"),
    ast.List: ("a list of values stands only behind `in`", "as in x in [1, 2]"),
}
_SYNONYMS = {
    **dict.fromkeys(("ln", "log2", "log10"), "log"),
    **dict.fromkeys(("len", "size"), "length"),
    **dict.fromkeys(("isnull", "isna", "is_none", "is_nan", "isnan"), "is_null"),
    **dict.fromkeys(("ifnull", "nvl", "fillna", "fill_null"), "coalesce"),
    **dict.fromkeys(("greatest", "maximum"), "max"),
    **dict.fromkeys(("least", "minimum"), "min"),
    "ceiling": "ceil",
}
_WITHOUT: dict[str, str] = {
    "minutes": "write seconds(x) / 60",
    "weeks": "write days(x) / 7",
    **dict.fromkeys(("now", "today", "current_timestamp"), "t is the instant of evaluation"),
    **dict.fromkeys(("pow", "power", "square"), "write x * x, or exp(2.5 * log(x))"),
    **dict.fromkeys(("iff", "ifelse", "where", "case", "when"), "write: x if c else y"),
    **dict.fromkeys(("bool", "int", "float"), "write (1 if x else 0), floor(x) or x * 1.0"),
    **dict.fromkeys(
        ("sum", "mean", "avg", "count", "median", "std"),
        "aggregate in metrics=, and name the column",
    ),
    **dict.fromkeys(
        ("lower", "upper", "strip", "replace", "hour", "weekday", "month", "year"),
        "make a column of it in the feature's function",
    ),
}
"""Functions that other languages have, and what does their work here."""
_SYNTAX = (
    (r"&&", "write: and"),
    (r"\|\|", "write: or"),
    (r"<>", "write: !="),
    (r"=<", "write: <="),
    (r"=>", "write: >="),
    (r"!(?!=)", "write: not"),
    (r"\?", "write: x if c else y"),
    (r"(?<![=<>!:])=(?!=)", "write == to compare"),
    (r"\b(?:CASE|case|WHEN|when|THEN|then)\b", "write: x if c else y"),
    (r"\b(?:BETWEEN|between)\b", "write: a <= x and x <= b"),
    (r"\b(?:AND|OR|NOT|IN|IS|IF|ELSE)\b", "write and, or, not, in, if and else in small letters"),
)
_TEXTS = re.compile(r"'[^']*'|\"[^\"]*\"")
_NAMES = {
    **dict.fromkeys(("null", "nil", "na"), "write None, and is_null(x) to ask for it"),
    "true": "write True",
    "false": "write False",
    **dict.fromkeys(
        ("nan", "inf"), "there is no such number; what is not finite is null: write None"
    ),
}
"""Names that other languages have, and what is written here."""
THERE_IS = "the columns, t and these functions can be used: " + ", ".join(sorted(FUNCTIONS))


def of_function(name: str) -> str:
    """Advice on a function that there is not."""
    known = name.lower()
    if known in _WITHOUT:
        return _WITHOUT[known]
    meant = _SYNONYMS.get(known)
    return f"did you mean {meant!r}?" if meant else did_you_mean(name, sorted(FUNCTIONS))


def usage(function: str) -> str:
    """An example of a function's use."""
    return f"as in {function}({_ARGUMENTS.get(function, 'x')})"


def of_syntax(text: str) -> str:
    """Advice on a text that does not parse: what is written here for an operator of another language."""
    code = _TEXTS.sub("", text)
    meant = (works for pattern, works in _SYNTAX if re.search(pattern, code))
    return next(meant, "write one expression, as in 'a / b'")


def of_name(name: str, known: Iterable[str]) -> str:
    """Advice on a name of no column; known: those of columns."""
    return _NAMES.get(name.lower()) or did_you_mean(name, known)


def of_kinds(kinds: set[str]) -> str:
    """A way out of kinds that do not go together."""
    if DURATION in kinds:
        return "take seconds(...), hours(...) or days(...) of a duration"
    if BOOL in kinds:
        return "write (1 if x else 0) for a number"
    if "true or false" in kinds:
        return "compare it, as in x > 0"
    if kinds & {INSTANT_KIND, DATE}:
        return "subtract two instants, and take seconds(...), hours(...) or days(...) of it"
    if any(element(kind) for kind in kinds):
        return "take length(x), or ask contains(x, value)"
    return "cast the column in the feature's function"

"""Errors of columns that a feature names and that are not there, and of expressions in the place of a column."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlforge.core.expression.parser import parse
from mlforge.core.expression.tree import Text
from mlforge.errors import ColumnNotFound, ExpressionError

_EXPRESSION = re.compile(r"[<>=!&|~()+*/%]|(?:\s|^)(?:and|or|not|in|is)\s", re.IGNORECASE)
_CONDITION = (
    "where= names a boolean column and takes no expression: have the function return the condition as a column, as in "
    'df.with_columns((pl.col("amount") > 100).alias("is_large")), and write where="is_large"'
)
_VALUE = (
    "a column's name stands here, not an expression: have the function return the value as a column, as in "
    'df.with_columns((pl.col("price") * pl.col("number")).alias("amount")), and write "amount"'
)
_CONDITIONS = ("eq", "ne", "lt", "le", "gt", "ge", "in", "and", "or", "not", "is_null", "contains")


def absent(name: str, owner: str, present: Sequence[str], *, condition: bool) -> ColumnNotFound:
    """The error, with the way to have a column of what is written where it is an expression.

    owner: what needs the column, for the error. present: the columns that there are. condition: whether `where`
    names it, which is said, as such a name is hard to find otherwise.
    """
    told = f"{owner}: where={name!r}" if condition else owner
    error = ColumnNotFound.among(told, name, list(present))
    if not _EXPRESSION.search(name):
        return error
    return ColumnNotFound(f"{error}; {_CONDITION if condition else _VALUE}")


def refuse_condition(where: str, owner: str) -> None:
    """Raise ExpressionError, with the place, where the text for `where` is a condition instead of a column's name.

    Any other text may be a column's name, as `plan=pro` and `is refund` may.
    """
    try:
        tree = parse(where, owner)
    except ExpressionError:
        return
    if tree.op in _CONDITIONS:
        raise Text.of(owner, where).error_at(tree, "this is an expression", _CONDITION)

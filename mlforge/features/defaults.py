"""Defaults of a feature: values that take the place of null in answers, never in what is stored."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from mlforge.core.arguments import named, shown
from mlforge.core.feature_spec import FeatureSpec
from mlforge.errors import DefinitionError, did_you_mean

_WORKS = 'write defaults={"amount__sum__7d": 0}'
_SCALARS = (bool, int, float, str, date, datetime, Decimal)


def parse_defaults(defaults: object, spec: FeatureSpec) -> dict[str, Any]:
    """The defaults by column.

    Raises DefinitionError for a column that the feature cannot have, as far as columns do not follow from data, and for
    a value that no column holds: null, NaN, a list.
    """
    what = f"{spec.name}: defaults"
    by_column = {} if defaults is None else dict(named(defaults, what, _WORKS))
    for column, value in by_column.items():
        if column in spec.identity:
            raise DefinitionError(
                f"{what}: {column!r} is a key or the timestamp, which is never null"
            )
        if spec.columns and column not in spec.output_names:
            raise DefinitionError(
                f"{what}: no column {column!r}; {did_you_mean(column, spec.output_names)}"
            )
        by_column[column] = default_value(value, f"{what}: {column!r}")
    return by_column


def default_value(value: Any, what: str) -> Any:
    """A default as Python has it; DefinitionError, which names it as `what`, for null, NaN and what is no single value."""
    plain = value.item() if hasattr(value, "item") else value  # numpy's
    if not isinstance(plain, _SCALARS) or plain != plain:  # noqa: PLR0124 - NaN is not itself
        raise DefinitionError(
            f"{what} must be a number, a text, a boolean, a date or an instant, not {shown(value)}; {_WORKS}"
        )
    return plain

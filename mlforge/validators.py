"""Rules about the values of a column: `import mlforge.validators as v`.

Rules see the rows that a feature's function returns, file by file. Nulls pass every rule but
`not_null`; NaN and infinities count as null, and so does each row of a file that lacks the column.
`required()` makes a file without the column one that does not fit. `no_drift()` sees columns of the feature's
table: what a version adds, against the rows of the version served before it.
"""

from mlforge.core.validators import (
    Rule,
    greater_than,
    greater_than_or_equal,
    in_range,
    is_in,
    less_than,
    less_than_or_equal,
    matches_regex,
    no_drift,
    not_null,
    required,
    unique,
)

__all__ = [
    "Rule",
    "greater_than",
    "greater_than_or_equal",
    "in_range",
    "is_in",
    "less_than",
    "less_than_or_equal",
    "matches_regex",
    "no_drift",
    "not_null",
    "required",
    "unique",
]

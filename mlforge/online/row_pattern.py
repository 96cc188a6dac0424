"""Stored rows that need no decoding: a pattern of JSON tells whether a row is what values of training are written as.

It accepts less than a reader takes: the columns in the books' order without white space, text without odd escapes, numbers
far from the bounds of their dtypes. No group repeats possessively (`(...)*+`): before Python 3.11.5 such a group may match
what it should not, and not match what it should (cpython's gh-106052). A row that it accepts can be passed on as it is, in whole or in parts, if it is UTF-8; any
other is to be read the usual way, which knows whether it is damaged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mlforge.core.nested import Nested, nested
from mlforge.core.schema import DIGITS, INSTANT, Schema, decimal_scale


@dataclass(frozen=True, slots=True, eq=False)
class RowPattern:
    """A pattern of rows.

    row: of a whole row, with a group for each column's JSON, in their order. rows: of several, a line each.
    """

    row: re.Pattern[bytes]
    rows: re.Pattern[bytes]

    def fits_all(self, rows: Sequence[bytes]) -> bool:
        """Whether each of these rows is accepted. Much quicker than to look at one after the other."""
        lines = b"\n".join(rows)
        # No row that is accepted has an end of a line in it.
        return lines.count(b"\n") == len(rows) - 1 and self.rows.fullmatch(lines) is not None


def _whole(digits: int) -> str:
    return f"(?:[1-9][0-9]{{0,{digits - 1}}}+|0)"


_DAY = (
    "[1-9][0-9]{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    "|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}"
_EXPONENT = "[eE][+-]?[0-9]{1,2}"
_FLOAT = rf"-?+{_whole(18)}\.[0-9]{{1,25}}+(?:{_EXPONENT})?|-?+{_whole(18)}{_EXPONENT}"
_PLAIN: Mapping[str, str] = {
    "Int8": f"-?{_whole(2)}",
    "Int16": f"-?{_whole(4)}",
    "Int32": f"-?{_whole(9)}",
    "Int64": f"-?{_whole(18)}",
    "UInt8": _whole(2),
    "UInt16": _whole(4),
    "UInt32": _whole(9),
    "UInt64": _whole(19),
    "Float32": _FLOAT,
    "Float64": _FLOAT,
    "Boolean": "true|false",
    "String": r'"[^"\\\x00-\x1f]*+(?:\\["\\/bfnrt][^"\\\x00-\x1f]*+)*"',
    "Date": f'"{_DAY}"',
    "Time": f'"{_TIME}"',
    INSTANT: f'"{_DAY}T{_TIME}Z"',
    "Null": "null",
}
"""How a value of a dtype is written; each has fewer digits than its dtype might hold, so that no bound is in reach."""


@lru_cache(maxsize=256)
def row_pattern(columns: Schema) -> RowPattern | None:
    """The pattern of rows with these columns; None where the dtype of one has none."""
    fields, plain = [], []
    for column in columns:
        value = _value(column.dtype)
        if value is None:
            return None
        fields.append(f"{_name(column.name)}:({value})")
        plain.append(f"{_name(column.name)}:{value}")
    row = f"\\{{{','.join(fields)}\\}}"
    values_only = f"\\{{{','.join(plain)}\\}}"
    lines = f"(?:{values_only}\\n)*{values_only}"
    return RowPattern(re.compile(row.encode()), re.compile(lines.encode()))


def _name(name: str) -> str:
    return re.escape(json.dumps(name, ensure_ascii=False))


def _value(dtype: str) -> str | None:
    """How a value of a dtype is written, or null."""
    outer, scale = nested(dtype), decimal_scale(dtype)
    if outer is not None:
        value = _NESTED[outer.kind](outer)
    elif scale is not None:
        value = _decimal(scale)
    else:
        value = _PLAIN.get(dtype)
    return None if value is None else f"(?>{value}|null)"


def _decimal(scale: int) -> str | None:
    fraction = rf"(?:\.[0-9]{{{scale}}})?" if scale else ""
    return f'"-?{_whole(DIGITS - scale)}{fraction}"' if scale < DIGITS else None


def _list(outer: Nested) -> str | None:
    value = _value(outer.parts[0][1])
    return None if value is None else rf"\[(?:{value}(?:,{value})*)?\]"


def _array(outer: Nested) -> str | None:
    value = _value(outer.parts[0][1])
    if value is None or outer.width == 0:
        return None
    return rf"\[{value}(?:,{value}){{{outer.width - 1}}}\]"


def _struct(outer: Nested) -> str | None:
    fields = [(name, _value(dtype)) for name, dtype in outer.parts]
    if any(value is None for _, value in fields):
        return None
    return rf"\{{{','.join(f'{_name(name)}:{value}' for name, value in fields)}\}}"


_NESTED: Mapping[str, Callable[[Nested], str | None]] = {
    "List": _list,
    "Array": _array,
    "Struct": _struct,
}

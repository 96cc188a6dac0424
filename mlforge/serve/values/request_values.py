"""Values of a request's columns, and options, as Python has them: from JSON, or from the texts of a query."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, TypeAlias

from mlforge.core.arguments import shown
from mlforge.core.schema import FLOATS, INSTANT, INTEGERS
from mlforge.serve.problems import Refused
from mlforge.services.service import Service

Convert: TypeAlias = Callable[[Any, str], Any]


def request_row(
    service: Service, row: Mapping[str, Any], convert: Mapping[str, Convert]
) -> dict[str, Any]:
    """A row of the request's columns as Python has their values; what has no conversion stays as it is."""
    values = dict(row)
    for column in service.request:
        name, value = column.name, row.get(column.name)
        if column.dtype in convert and value is not None:
            what = f"{service.name}: request {name!r}"
            values[name] = convert[column.dtype](value, what)
    return values


def _instant(value: Any, what: str) -> Any:
    return _from_iso(datetime, value, what, "an instant as in '2026-01-31T10:00:00Z'")


def _date(value: Any, what: str) -> Any:
    return _from_iso(date, value, what, "a date as in '2026-01-31'")


def _from_iso(kind: Any, value: Any, what: str, works: str) -> Any:
    try:
        return kind.fromisoformat(value)
    except (TypeError, ValueError):
        raise Refused(422, "unfit_request", f"{what} is {shown(value)}; write {works}") from None


def boolean(value: Any, what: str) -> bool:
    """The boolean that a text of a query writes; Refused for any other text."""
    if value not in ("true", "false"):
        raise Refused(422, "unfit_request", f"{what} is {shown(value)}; write true or false")
    return bool(value == "true")


def _whole(value: Any, what: str) -> int:
    if not _WHOLE.fullmatch(value):
        raise Refused(422, "unfit_request", f"{what} is {shown(value)}, no whole number")
    return int(value)


def _float(value: Any, what: str) -> float:
    if not _NUMBER.fullmatch(value):
        raise Refused(422, "unfit_request", f"{what} is {shown(value)}, no number")
    return float(_finite(float(value), what))


def _finite(value: Any, what: str) -> Any:
    """A number of JSON; Refused for one that is too large for a float, as infinity counts as null."""
    if value in (math.inf, -math.inf):
        raise Refused(422, "unfit_request", f"{what} is larger than a float can be")
    return value


_WHOLE = re.compile(r"-?[0-9]{1,40}")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""Numbers of a query, much as JSON has them: Python takes others, too, and what counts as null."""
OF_JSON: dict[str, Convert] = {
    INSTANT: _instant,
    "Date": _date,
    **dict.fromkeys(FLOATS, _finite),
}
OF_TEXT: dict[str, Convert] = {
    **OF_JSON,
    **dict.fromkeys(INTEGERS, _whole),
    **dict.fromkeys(FLOATS, _float),
    "Boolean": boolean,
}
"""How a request column's value in JSON, or its text in a query, becomes Python's, by the column's dtype."""

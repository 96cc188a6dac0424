"""JSON that somebody else wrote, as values of Python: what JSON does not have, or means twice, is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from mlforge.core.repeated import first_repeated


def decoded(text: str) -> Any:
    """The value of a text.

    Raises ValueError for one that is no JSON, for NaN and infinities, and where an object says a name twice, of which a
    parser would take the last in silence; RecursionError for one that is nested too deeply.
    """
    value = _PLAIN.decode(text)
    # A colon follows each name. Where there are more, as within texts, only a second look tells whether a name came twice.
    return value if text.count(":") == _names_in(value) else _STRICT.decode(text)


def decoded_bytes(data: bytes) -> Any:
    """The value of a text in UTF-8, UTF-16 or UTF-32. Raises as `decoded`."""
    return decoded(data.decode(json.detect_encoding(data), "surrogatepass"))


def _names_in(value: Any) -> int:
    """The number of names of an object and of its lists of objects; others are not counted."""
    if not isinstance(value, dict):
        return 0
    lists = (each for each in value.values() if type(each) is list and {*map(type, each)} == {dict})
    return len(value) + sum(sum(map(len, each)) for each in lists)


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = first_repeated(name for name, _ in pairs) or ""
        raise ValueError(f"an object says {twice[:100]!r} twice")
    return values


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


_PLAIN = json.JSONDecoder(parse_constant=_no_number)
_STRICT = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_each_once)

"""The query of a request, of whose names the server knows each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from starlette.requests import Request

from mlforge.serve.problems import Refused

_COLUMN = "key."


def each_once(pairs: Iterable[tuple[str, str]], what: str = "query") -> dict[str, str]:
    """The values of a query, or of a form, by their names; Refused where it says one name twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise Refused(400, f"unfit_{what}", f"the {what} says {name!r} twice")
        values[name] = value
    return values


def column_in_query(name: str, options: Collection[str]) -> str:
    """The name of a key or a request's column in a query: `key.at` where an option of the query is called `at`."""
    return f"{_COLUMN}{name}" if name in options else name


def parted(
    query: Mapping[str, str], options: Collection[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The options of a query, and the keys and request's columns that it names, as `column_in_query` has them."""
    columns = {column_in_query(name, options): name for name in options}
    told = {name: value for name, value in query.items() if name in options}
    others = {columns.get(name, name): query[name] for name in query if name not in options}
    return told, others


def pairs_of(request: Request) -> dict[str, str]:
    """The query's values by their names; raises as `each_once`."""
    return each_once(request.query_params.multi_items())


def query_of(request: Request, *names: str) -> dict[str, str]:
    """The query's values; Refused for a name that is none of these, or is said twice."""
    query = pairs_of(request)
    may = f"it may say {' and '.join(names)}" if names else "it takes none here"
    for name in query:
        if name not in names:
            raise Refused(422, "unknown_field", f"the query has no {name!r}; {may}")
    return query

"""The query of a request, of whose names the server knows each."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request

from mlforge.serve.problems import Refused


def each_once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A query's values by their names; Refused where it says one name twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise Refused(400, "unfit_query", f"the query says {name!r} twice")
        values[name] = value
    return values


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

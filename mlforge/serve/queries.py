"""The query of a request, of whose names the server knows each."""

from __future__ import annotations

from starlette.requests import Request

from mlforge.serve.problems import Refused


def query_of(request: Request, *names: str) -> dict[str, str]:
    """The query's values; Refused for a name that is none of these."""
    query = dict(request.query_params)
    may = f"it may say {' and '.join(names)}" if names else "it takes none here"
    for name in query:
        if name not in names:
            raise Refused(422, "unknown_field", f"the query has no {name!r}; {may}")
    return query

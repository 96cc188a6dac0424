"""Requests for values: what a path, a query and a body ask of the online store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from mlforge.core.arguments import shown
from mlforge.core.renames import Renames
from mlforge.core.values import Duration
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.features.feature import Feature
from mlforge.features.selection import Selection
from mlforge.retrieval.references import FeatureRef
from mlforge.serve.bodies import list_of_objects, parsed_object
from mlforge.serve.limits import Limits
from mlforge.serve.problems import Refused, unknown_feature
from mlforge.serve.queries import column_in_query, each_once, parted
from mlforge.serve.values.request_values import OF_JSON, OF_TEXT, boolean, request_row
from mlforge.services.service import Service

ARROW = "application/vnd.apache.arrow.stream"
LAYOUTS = ("nested", "flat")
_OPTIONS = {
    "max_age": 'the oldest acceptable as_of, as in "1h"',
    "at": "the instant of derived columns, in ISO 8601",
    "details": "true for what stands behind each value",
}
IN_QUERY = ("layout", *_OPTIONS)
"""The options that a query may say beside keys and a request's columns."""
_SERVICE_FIELDS = {
    "entities": "a list of objects with the keys",
    "request": "a list of objects with the request's columns",
    **_OPTIONS,
}
_FEATURE_FIELDS = {
    "features": "a list of names, or of objects with feature, version, columns, prefix and keys",
    "entities": "a list of objects with the keys",
    **_OPTIONS,
}
_USE_FIELDS: dict[str, Any] = {
    "feature": str,
    "version": (str, type(None)),
    "columns": list,
    "prefix": str,
    "keys": dict,
}


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A read as `online_answer` takes it, and the form of its answer: a layout of JSON, or a stream of Arrow."""

    features: Service | Sequence[FeatureRef]
    entities: Sequence[Mapping[str, object]]
    request: Sequence[Mapping[str, object]] | None
    max_age: str | None
    at: str | None
    details: bool
    layout: str
    arrow: bool


def service_request(
    service: Service, query: bytes, accept: str, body: bytes, limits: Limits
) -> ReadRequest:
    """The request of a POST to a service; Refused where it does not fit."""
    fields = parsed_object(body, _SERVICE_FIELDS)
    rows = list_of_objects(fields, "request", limits.entities) if "request" in fields else None
    if rows is not None:
        rows = [request_row(service, row, OF_JSON) for row in rows]
    entities = list_of_objects(fields, "entities", limits.entities)
    return _read_request(service, entities, rows, fields, _layout(_pairs(query)), accept)


def entity_request(service: Service, query: bytes, accept: str) -> ReadRequest:
    """The request of a GET of a service: one entity, its keys and request columns in the query."""
    told, columns = parted(_pairs(query), IN_QUERY)
    layout = _layout({name: told.pop(name) for name in ("layout",) if name in told})
    options: dict[str, Any] = {**told}
    if "details" in options:
        options["details"] = boolean(options["details"], "details")
    names = [column.name for column in service.request]
    row = {name: columns.pop(name) for name in names if name in columns}
    rows = [request_row(service, row, OF_TEXT)] if names else None
    missing = [column_in_query(name, IN_QUERY) for name in names if name not in row]
    if missing:
        raise Refused(
            422,
            "unfit_request",
            f"{service.name}: the query lacks {', '.join(missing)}; it has the keys, and of the request {', '.join(names)}",
        )
    return _read_request(service, [columns], rows, options, layout, accept)


def features_request(
    features: Mapping[str, Feature],
    query: bytes,
    accept: str,
    body: bytes,
    limits: Limits,
    renames: Callable[[], Renames] = Renames,
) -> ReadRequest:
    """The request of a POST for features by name; Refused where it does not fit, 404 for unknown features.

    renames: those of the store, asked for once a feature is unknown.
    """
    fields = parsed_object(body, _FEATURE_FIELDS)
    uses = fields.get("features")
    if not isinstance(uses, list) or not uses:
        raise Refused(422, "unfit_request", f"send 'features': {_FEATURE_FIELDS['features']}")
    if len(uses) > limits.features:
        raise Refused(
            422,
            "too_many_features",
            f"'features' has {len(uses):,} entries, a request has at most {limits.features:,}",
        )
    references = [_reference(features, use, renames) for use in uses]
    entities = list_of_objects(fields, "entities", limits.entities)
    return _read_request(references, entities, None, fields, _layout(_pairs(query)), accept)


def _read_request(
    features: Service | Sequence[FeatureRef],
    entities: Sequence[Mapping[str, object]],
    rows: Sequence[Mapping[str, object]] | None,
    options: Mapping[str, Any],
    layout: str,
    accept: str,
) -> ReadRequest:
    details, arrow = options.get("details", False), ARROW in accept
    if type(details) is not bool:
        raise Refused(422, "unfit_request", f"details is {shown(details)}; write true or false")
    if details and arrow:
        raise Refused(
            422, "unfit_request", "details come in JSON; leave them out, or Arrow out of Accept"
        )
    max_age, at = (_text(options, name) for name in ("max_age", "at"))
    if max_age is not None:
        try:
            Duration.parse(max_age, "max_age")
        except DefinitionError as error:
            raise Refused(422, "unfit_request", str(error)) from None
    return ReadRequest(features, entities, rows, max_age, at, details, layout, arrow)


def _text(options: Mapping[str, Any], name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise Refused(
            422, "unfit_request", f"{name} is {shown(value)}; write {_OPTIONS[name]}, as a string"
        )
    return value


def _reference(
    features: Mapping[str, Feature], use: Any, renames: Callable[[], Renames]
) -> FeatureRef:
    """The reference that an entry of `features` stands for: a name, `name@1.0.0`, or an object."""
    if isinstance(use, str):
        name, _, named = use.partition("@")
        use = {"feature": name, "version": named or None}
    if not isinstance(use, dict) or "feature" not in use:
        raise Refused(422, "unfit_request", f"{shown(use)} names no feature; write its name")
    for field, value in use.items():
        if field not in _USE_FIELDS:
            advice = did_you_mean(field, _USE_FIELDS)
            raise Refused(422, "unknown_field", f"a feature has no field {field!r}; {advice}")
        if not isinstance(value, _USE_FIELDS[field]):
            raise Refused(422, "unfit_request", f"{field} is {shown(value)}")
    feature = features.get(use["feature"])
    if feature is None:
        raise unknown_feature(use["feature"], features, renames())
    texts = [*use.get("columns", ()), *use.get("keys", {}).values()]
    if not all(isinstance(text, str) for text in texts):
        raise Refused(
            422, "unfit_request", f"{feature.name}: columns and keys are named by strings"
        )
    try:
        selection = _selection(feature, use)
    except DefinitionError as error:
        raise Refused(422, "unfit_request", str(error)) from None
    version = use.get("version")
    return selection if version is None else (selection, version)


def _selection(feature: Feature, use: Mapping[str, Any]) -> Selection:
    """The columns, prefix and keys that an object names; DefinitionError where the feature has no such."""
    selection = Selection(feature.spec)
    if use.get("columns"):
        selection = selection[tuple(use["columns"])]
    prefix, keys = use.get("prefix"), use.get("keys", {})
    return selection.as_(prefix or feature.name, **keys) if prefix or keys else selection


def _pairs(query: bytes) -> dict[str, str]:
    """The query's names and values; Refused where it is not text, or says one name twice."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise Refused(400, "unfit_query", f"the query is not text in UTF-8: {error}") from None
    return each_once(pairs)


def _layout(pairs: Mapping[str, str]) -> str:
    """The layout that a query of nothing else asks for."""
    for name in pairs:
        if name != "layout":
            raise Refused(422, "unknown_field", f"the query has no {name!r}; it may say layout")
    layout = pairs.get("layout", LAYOUTS[0])
    if layout not in LAYOUTS:
        raise Refused(
            422, "unfit_request", f"layout={layout!r} is neither {' nor '.join(map(repr, LAYOUTS))}"
        )
    return layout

"""The OpenAPI document of a project: its services with their own columns, and what every project has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlforge.core.release import release
from mlforge.core.schema import FLOATS, INTEGERS, Schema, inner_of
from mlforge.registry.entries import ColumnEntry, ServiceEntry
from mlforge.serve.limits import Limits
from mlforge.serve.problems import CONTENT_TYPE
from mlforge.serve.read_request import ARROW, LAYOUTS

Document = dict[str, Any]
_TYPES: dict[str, Document] = {
    **{dtype: {"type": "integer"} for dtype in INTEGERS},
    **{dtype: {"type": "number"} for dtype in FLOATS},
    "Boolean": {"type": "boolean"},
    "String": {"type": "string"},
    "Date": {"type": "string", "format": "date"},
}
_TEXTS = re.compile(r"(Datetime|Decimal|Duration|Time|Categorical|Enum)\b")


def document(
    project: str,
    services: Sequence[tuple[ServiceEntry, Schema]],
    limits: Limits,
    takes_keys: bool = False,
) -> Document:
    """The OpenAPI 3.1 document.

    services: each with the keys of its entities, none where they are not known yet. takes_keys: whether callers need a key.
    """
    paths = dict(_PATHS)
    for entry, keys in services:
        paths[f"/v1/services/{entry.name}"] = _service(entry, keys, limits)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{project}: features", "version": release()},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, "Served": _SERVED},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if takes_keys else [],
    }


def value_schema(dtype: str | None) -> Document:
    """The JSON schema of a column's values, null among them; any value where the dtype is not known."""
    known = _schema(dtype)
    return {**known, "type": [known["type"], "null"]} if "type" in known else known


def _schema(dtype: str | None) -> Document:
    if dtype is None:
        return {}
    inner = inner_of(dtype)
    if inner is not None:
        return {"type": "array", "items": value_schema(inner)}
    if dtype.startswith("Datetime"):
        return {"type": "string", "format": "date-time"}
    return {"type": "string"} if _TEXTS.match(dtype) else dict(_TYPES.get(dtype, {}))


def _service(entry: ServiceEntry, keys: Schema, limits: Limits) -> Document:
    key_schemas = {key.name: _schema(key.dtype) for key in keys} or {
        name: {} for name in entry.keys
    }
    request = {column.name: value_schema(column.dtype) for column in entry.request}
    body = _object({"entities": _rows(key_schemas, limits), **_OPTIONS}, ["entities"], closed=True)
    if request:
        body["properties"]["request"] = _rows(request, limits)
        body["required"].append("request")
    answers = _answers(_answer(entry, key_schemas, request))
    about = {"tags": ["services"], "description": entry.description or f"Values of {entry.name}."}
    one = [
        _parameter(name, schema, required=name in key_schemas)
        for name, schema in {**key_schemas, **request}.items()
    ]
    return {
        "post": {
            **about,
            "operationId": f"read_{entry.name}",
            "summary": f"Values of {entry.name} for several entities",
            "parameters": [_LAYOUT],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": answers,
        },
        "get": {
            **about,
            "operationId": f"read_one_{entry.name}",
            "summary": f"Values of {entry.name} for one entity",
            "parameters": [
                *one,
                _LAYOUT,
                *(_parameter(name, schema) for name, schema in _OPTIONS.items()),
            ],
            "responses": answers,
        },
    }


def _answer(
    entry: ServiceEntry, keys: Mapping[str, Document], request: Mapping[str, Document]
) -> Document:
    """The schema of an answer in either layout."""
    features: dict[str, dict[str, Document]] = {}
    for column in entry.columns:
        if column.feature is not None:
            prefix = column.name.removesuffix(f"__{column.of}")
            features.setdefault(prefix, {})[str(column.of)] = _described(column)
    own = {c.name: _described(c) for c in entry.columns if c.feature is None}
    flat = {**keys, **request, **{c.name: _described(c) for c in entry.columns}}
    nested: Document = {
        "features": _object({name: _list(_object(of)) for name, of in features.items()}),
        **({"derived": _list(_object(own))} if own else {}),
    }
    further: Document = {"served": _REFERS_TO_SERVED, "details": _DETAILS}
    return {
        "oneOf": [
            _object({**nested, **further}, [*nested, "served"]),
            _object({"rows": _list(_object(flat)), **further}, ["rows", "served"]),
        ]
    }


def _described(column: ColumnEntry) -> Document:
    about = {"description": column.description} if column.description else {}
    return value_schema(column.dtype) | about


def _object(
    properties: Mapping[str, Document], required: Sequence[str] | None = None, closed: bool = False
) -> Document:
    """The schema of an object, all of whose properties are required unless some are named."""
    schema: Document = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
    }
    return {**schema, "additionalProperties": False} if closed else schema


def _list(items: Document) -> Document:
    return {"type": "array", "items": items}


def _rows(columns: Mapping[str, Document], limits: Limits) -> Document:
    return {**_list(_object(columns, closed=True)), "maxItems": limits.entities}


def _parameter(
    name: str, schema: Document, required: bool = False, where: str = "query"
) -> Document:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _answers(schema: Document, arrow: bool = True) -> Document:
    content: Document = {"application/json": {"schema": schema}}
    if arrow:
        content[ARROW] = {}
    problem = {
        "description": "what failed, on what, and what would work",
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return {"200": {"description": "the answer", "content": content}, "default": problem}


def _get(summary: str, *parameters: Document, content: str = "application/json") -> Document:
    answers = _answers({"type": "object"}, arrow=False)
    if content != "application/json":
        answers["200"]["content"] = {content: {}}
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": answers}}


def _deed(operation: str, summary: str, *parameters: Document) -> Document:
    """A deed on a feature; its key has to operate."""
    answers = _answers({"type": "object"}, arrow=False)
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "parameters": [_FEATURE, *parameters],
            "responses": answers,
        }
    }


_PROBLEM = _object(
    {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "reason": {"type": "string", "description": "a word for programs, such as not_served"},
        "detail": {"type": "string"},
    }
)
_SERVED = {
    "type": "object",
    "description": "the version and as_of of each feature's values",
    "additionalProperties": _object(
        {"version": {"type": "string"}, "as_of": value_schema("Datetime(us, UTC)")}
    ),
}
_REFERS_TO_SERVED = {"$ref": "#/components/schemas/Served"}
_DETAILS = {"type": "array", "items": {"type": "object"}}
_OPTIONS: dict[str, Document] = {
    "max_age": {"type": "string", "description": "the oldest acceptable as_of, a duration"},
    "at": {"type": "string", "description": "the instant of derived columns, in ISO 8601"},
    "details": {"type": "boolean", "default": False},
}
_LAYOUT = _parameter("layout", {"type": "string", "enum": list(LAYOUTS), "default": LAYOUTS[0]})
_FEATURE = _parameter("feature", {"type": "string"}, True, "path")
_USE = {
    "oneOf": [
        {"type": "string", "description": "a name, or name@version"},
        _object(
            {
                "feature": {"type": "string"},
                "version": {"type": ["string", "null"]},
                "columns": _list({"type": "string"}),
                "prefix": {"type": "string"},
                "keys": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            ["feature"],
            closed=True,
        ),
    ]
}
_READ_FEATURES = _object(
    {
        "features": {**_list(_USE), "minItems": 1, "maxItems": Limits().features},
        "entities": {**_list({"type": "object"}), "maxItems": Limits().entities},
        **_OPTIONS,
    },
    ["features", "entities"],
    closed=True,
)
_PATHS: Document = {
    "/healthz": _get("Whether the process answers"),
    "/readyz": _get("Whether the online store answers, and what it serves"),
    "/metrics": _get("Figures for Prometheus", content="text/plain"),
    "/openapi.json": _get("This document"),
    "/v1/catalog": _get("All features and services"),
    "/v1/status": _get("The state of the project, as its workers have it"),
    "/v1/events": _get(
        "What happens in the project, as server-sent events, each with its id",
        _parameter("after", {"type": "string", "pattern": r"^\d{1,20}(-\d{1,20})?$"}),
        _parameter("last-event-id", {"type": "string"}, where="header"),
        content="text/event-stream",
    ),
    "/v1/sources": _get("The sources that rows may be sent to"),
    "/v1/sources/{source}": {
        "post": {
            "operationId": "send_rows",
            "summary": "Rows for a source; they are on the disk once this answers",
            "parameters": [
                _parameter("source", {"type": "string"}, True, "path"),
                _parameter("idempotency-key", {"type": "string"}, where="header"),
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": _list({"type": "object"})},
                    "application/x-ndjson": {},
                    ARROW: {},
                    "application/vnd.apache.parquet": {},
                },
            },
            "responses": {
                "202": _answers({"type": "object"}, arrow=False)["200"],
                "default": _answers({"type": "object"})["default"],
            },
        }
    },
    "/v1/drops/{source}/{drop}": _get(
        "How far a drop has come in each feature that reads its source",
        _parameter("source", {"type": "string"}, True, "path"),
        _parameter("drop", {"type": "string"}, True, "path"),
        _parameter("wait", {"type": "number", "minimum": 0, "maximum": 60}),
    ),
    "/v1/features": {
        "post": {
            "operationId": "read_features",
            "summary": "Values of features by name",
            "parameters": [_LAYOUT],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _READ_FEATURES}},
            },
            "responses": _answers({"type": "object"}),
        }
    },
    "/v1/features/{feature}": _get("A feature", _FEATURE),
    "/v1/features/{feature}/versions": _get("A feature's versions, the newest last", _FEATURE),
    "/v1/features/{feature}/explain": _get(
        "Why an entity's values are what they are; its keys are in the query, too",
        _FEATURE,
        _parameter("at", {"type": "string"}),
        _parameter("version", {"type": "string"}),
    ),
    "/v1/features/{feature}/profile": _get(
        "What the values of a version's columns are like, and how far they have moved since another",
        _FEATURE,
        _parameter("version", {"type": "string"}),
        _parameter("against", {"type": "string"}),
    ),
    "/v1/features/{feature}/diff": _get(
        "How two versions differ, the second by default the served one",
        _FEATURE,
        _parameter("a", {"type": "string"}, True),
        _parameter("b", {"type": "string"}),
    ),
    "/v1/features/{feature}/approve": _deed("approve", "Let a held feature go on"),
    "/v1/features/{feature}/rollback": _deed(
        "rollback",
        "Serve an older version, by default the one before, and hold the feature there",
        _parameter("version", {"type": "string"}),
    ),
    "/v1/features/{feature}/retry": _deed(
        "retry",
        "Ask the workers to try a feature again, or a quarantined file of it",
        _parameter("path", {"type": "string"}),
    ),
}

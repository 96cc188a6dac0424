"""The part of the OpenAPI document that every project has: its paths, and what schemas are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from mlforge.serve.limits import Limits
from mlforge.serve.problems import CONTENT_TYPE
from mlforge.serve.values.read_request import ARROW, LAYOUTS

Document: TypeAlias = dict[str, Any]


def object_of(
    properties: Mapping[str, Document], required: Sequence[str] | None = None, closed: bool = False
) -> Document:
    """The schema of an object, all of whose properties are required unless some are named."""
    schema: Document = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
    }
    return {**schema, "additionalProperties": False} if closed else schema


def list_of(items: Document) -> Document:
    """The schema of a list."""
    return {"type": "array", "items": items}


def parameter(
    name: str, schema: Document, required: bool = False, where: str = "query"
) -> Document:
    """A parameter in the query, the path or a header."""
    return {"name": name, "in": where, "required": required, "schema": schema}


def answers_of(schema: Document, arrow: bool = True) -> Document:
    """The answers of an operation: a 200 by its schema, in Arrow too if it may be, else a problem."""
    content: Document = {"application/json": {"schema": schema}}
    if arrow:
        content[ARROW] = {}
    problem = {
        "description": "what failed, on what, and what would work",
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return {"200": {"description": "the answer", "content": content}, "default": problem}


def _get(
    operation: str, summary: str, *parameters: Document, content: str = "application/json"
) -> Document:
    answers = answers_of({"type": "object"}, arrow=False)
    if content != "application/json":
        answers["200"]["content"] = {content: {}}
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "parameters": list(parameters),
            "responses": answers,
        }
    }


def _deed(operation: str, summary: str, *parameters: Document) -> Document:
    """A deed on a feature; its key has to operate."""
    answers = answers_of({"type": "object"}, arrow=False)
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "parameters": [_FEATURE, *parameters],
            "responses": answers,
        }
    }


PROBLEM = object_of(
    {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "reason": {"type": "string", "description": "a word for programs, such as not_served"},
        "detail": {"type": "string"},
    }
)
SERVED = {
    "type": "object",
    "description": "the version and as_of of each feature's values",
    "additionalProperties": object_of(
        {
            "version": {"type": "string"},
            "as_of": {"type": ["string", "null"], "format": "date-time"},
        }
    ),
}
REFERS_TO_SERVED = {"$ref": "#/components/schemas/Served"}
DETAILS = {"type": "array", "items": {"type": "object"}}
OPTIONS: dict[str, Document] = {
    "max_age": {"type": "string", "description": "the oldest acceptable as_of, a duration"},
    "at": {"type": "string", "description": "the instant of derived columns, in ISO 8601"},
    "details": {"type": "boolean", "default": False},
}
LAYOUT = parameter("layout", {"type": "string", "enum": list(LAYOUTS), "default": LAYOUTS[0]})
QUERY = [LAYOUT, *(parameter(name, schema) for name, schema in OPTIONS.items())]
COLUMNS = {
    **parameter("columns", {"type": "object", "additionalProperties": {"type": "string"}}),
    "style": "form",
    "explode": True,
    "description": "keys and request columns, each a parameter of its own name: ?user_id=1&amount=12.5",
}
_KEYS = {**COLUMNS, "name": "keys", "description": "the entity's keys: ?user_id=1"}
_FEATURE = parameter("feature", {"type": "string"}, True, "path")
_USE = {
    "oneOf": [
        {"type": "string", "description": "a name, or name@version"},
        object_of(
            {
                "feature": {"type": "string"},
                "version": {"type": ["string", "null"]},
                "columns": list_of({"type": "string"}),
                "prefix": {"type": "string"},
                "keys": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            ["feature"],
            closed=True,
        ),
    ]
}
_READ_FEATURES = object_of(
    {
        "features": {**list_of(_USE), "minItems": 1, "maxItems": Limits().features},
        "entities": {**list_of({"type": "object"}), "maxItems": Limits().entities},
        **OPTIONS,
    },
    ["features", "entities"],
    closed=True,
)
PATHS: Document = {
    "/healthz": _get("is_alive", "Whether the process answers"),
    "/readyz": _get("is_ready", "Whether the online store answers, and what it serves"),
    "/metrics": _get("metrics", "Figures for Prometheus", content="text/plain"),
    "/openapi.json": _get("openapi", "This document"),
    "/v1/catalog": _get("catalog", "All features and services"),
    "/v1/status": _get("status", "The state of the project, as its workers have it"),
    "/v1/events": _get(
        "events",
        "What happens in the project, as server-sent events, each with its id",
        parameter("after", {"type": "string", "pattern": r"^\d{1,20}(-\d{1,20})?$"}),
        parameter("last-event-id", {"type": "string"}, where="header"),
        content="text/event-stream",
    ),
    "/v1/sources": _get("sources", "The sources that rows may be sent to"),
    "/v1/sources/{source}": {
        "post": {
            "operationId": "send_rows",
            "summary": "Rows for a source; they are on the disk once this answers",
            "parameters": [
                parameter("source", {"type": "string"}, True, "path"),
                parameter("idempotency-key", {"type": "string"}, where="header"),
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": list_of({"type": "object"})},
                    "application/x-ndjson": {},
                    ARROW: {},
                    "application/vnd.apache.parquet": {},
                },
            },
            "responses": {
                "202": answers_of({"type": "object"}, arrow=False)["200"],
                "default": answers_of({"type": "object"})["default"],
            },
        }
    },
    "/v1/notices": {
        "post": {
            "operationId": "tell_of_changes",
            "summary": "Notices of a bucket's changes, in the form of its cloud: the sources of the objects are listed at once",
            "requestBody": {"required": True, "content": {"application/json": {}}},
            "responses": {
                "202": answers_of(object_of({"objects": {"type": "integer"}}), arrow=False)["200"],
                **answers_of(object_of({"validationResponse": {"type": "string"}}), arrow=False),
            },
        }
    },
    "/v1/drops/{source}/{drop}": _get(
        "drop",
        "How far a drop has come in each feature that reads its source",
        parameter("source", {"type": "string"}, True, "path"),
        parameter("drop", {"type": "string"}, True, "path"),
        parameter("wait", {"type": "number", "minimum": 0, "maximum": 60}),
    ),
    "/v1/features": {
        "post": {
            "operationId": "read_features",
            "summary": "Values of features by name",
            "parameters": [LAYOUT],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _READ_FEATURES}},
            },
            "responses": answers_of({"type": "object"}),
        }
    },
    "/v1/features/{feature}": _get("feature", "A feature", _FEATURE),
    "/v1/features/{feature}/versions": _get(
        "versions", "A feature's versions, the newest last", _FEATURE
    ),
    "/v1/features/{feature}/explain": _get(
        "explain",
        "Why an entity's values are what they are",
        _FEATURE,
        _KEYS,
        parameter("at", {"type": "string"}),
        parameter("version", {"type": "string"}),
    ),
    "/v1/features/{feature}/profile": _get(
        "profile",
        "What the values of a version's columns are like, and how far they have moved since another",
        _FEATURE,
        parameter("version", {"type": "string"}),
        parameter("against", {"type": "string"}),
    ),
    "/v1/features/{feature}/diff": _get(
        "diff",
        "How two versions differ, the second by default the served one",
        _FEATURE,
        parameter("a", {"type": "string"}, True),
        parameter("b", {"type": "string"}),
    ),
    "/v1/features/{feature}/approve": _deed(
        "approve",
        "Let a held feature go on; with hold, only where that is how the reason begins",
        parameter("hold", {"type": "string"}),
    ),
    "/v1/features/{feature}/rollback": _deed(
        "rollback",
        "Serve an older version, by default the one before, and hold the feature there; with from, only where that version is served",
        parameter("version", {"type": "string"}),
        parameter("from", {"type": "string"}),
    ),
    "/v1/features/{feature}/retry": _deed(
        "retry",
        "Ask the workers to try a feature again, or a quarantined file of it",
        parameter("path", {"type": "string"}),
    ),
}

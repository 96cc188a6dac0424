"""The OpenAPI document of a project: its services with their own columns, and what every project has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlforge.core.release import RELEASE
from mlforge.core.schema import FLOATS, INTEGERS, Schema, inner_of
from mlforge.registry.entries import ColumnEntry, ServiceEntry
from mlforge.serve.limits import Limits
from mlforge.serve.openapi_paths import (
    COLUMNS,
    DETAILS,
    LAYOUT,
    OPTIONS,
    PATHS,
    PROBLEM,
    QUERY,
    REFERS_TO_SERVED,
    SERVED,
    Document,
    answers_of,
    list_of,
    object_of,
    parameter,
)
from mlforge.serve.queries import column_in_query
from mlforge.serve.values.read_request import IN_QUERY
from mlforge.serve.values.reads import SERVICES

# Without a format, clients in Java, Go or C# take 32 bits for enough.
_FORMATS = {
    **dict.fromkeys(("Int8", "Int16", "Int32", "UInt8", "UInt16"), "int32"),
    **dict.fromkeys(("Int64", "UInt32"), "int64"),
    "UInt64": "uint64",
    "Float32": "float",
    "Float64": "double",
}
_TYPES: dict[str, Document] = {
    **{dtype: {"type": "integer", "format": _FORMATS[dtype]} for dtype in INTEGERS},
    **{dtype: {"type": "number", "format": _FORMATS[dtype]} for dtype in FLOATS},
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
    root: str = "",
) -> Document:
    """The OpenAPI 3.1 document.

    services: each with the keys of its entities, none where they are not known yet. takes_keys: whether callers need a key.
    root: the path below which the server answers.
    """
    paths = dict(PATHS)
    for entry, keys in services:
        paths[f"{SERVICES}{entry.name}"] = _service(entry, keys, limits)
    if services:
        paths[f"{SERVICES}{{service}}@{{version}}"] = _kept_service(limits)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{project}: features", "version": RELEASE},
        **({"servers": [{"url": root}]} if root else {}),
        "paths": paths,
        "components": {
            "schemas": {"Problem": PROBLEM, "Served": SERVED},
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
    body = object_of({"entities": _rows(key_schemas, limits), **OPTIONS}, ["entities"], closed=True)
    if request:
        body["properties"]["request"] = _rows(request, limits)
        body["required"].append("request")
    answers = answers_of(_answer(entry, key_schemas, request))
    about = {"tags": ["services"], "description": entry.description or f"Values of {entry.name}."}
    in_query = {column.name: _schema(column.dtype) for column in entry.request}  # which has no null
    one = [
        parameter(column_in_query(name, IN_QUERY), schema, required=True)
        for name, schema in {**key_schemas, **in_query}.items()
    ]
    return {
        "post": {
            **about,
            "operationId": f"read_service_{entry.name}",
            "summary": f"Values of {entry.name} for several entities",
            "parameters": [LAYOUT],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": answers,
        },
        "get": {
            **about,
            "operationId": f"get_service_{entry.name}",
            "summary": f"Values of {entry.name} for one entity",
            "parameters": [*one, *QUERY],
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
        "features": object_of({name: list_of(object_of(of)) for name, of in features.items()}),
        **({"derived": list_of(object_of(own))} if own else {}),
    }
    further: Document = {"served": REFERS_TO_SERVED, "details": DETAILS}
    return {
        "oneOf": [
            object_of({**nested, **further}, [*nested, "served"]),
            object_of({"rows": list_of(object_of(flat)), **further}, ["rows", "served"]),
        ]
    }


def _described(column: ColumnEntry) -> Document:
    about = {"description": column.description} if column.description else {}
    return value_schema(column.dtype) | about


def _kept_service(limits: Limits) -> Document:
    """The path of a service's kept versions, whose columns are their own."""
    rows = {**list_of({"type": "object"}), "maxItems": limits.entities}
    body = object_of({"entities": rows, "request": rows, **OPTIONS}, ["entities"], closed=True)
    about = {
        "tags": ["services"],
        "description": "The newest version of a MAJOR, with its columns as they were: checkout@1; or one version: checkout@1.2.0.",
        "responses": answers_of({"type": "object"}),
    }
    version = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+\.[0-9]+)?$"}
    path = [
        parameter("service", {"type": "string"}, True, "path"),
        parameter("version", version, True, "path"),
    ]
    return {
        "post": {
            **about,
            "operationId": "read_kept",
            "summary": "Values of a kept version of a service for several entities",
            "parameters": [*path, LAYOUT],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        },
        "get": {
            **about,
            "operationId": "get_kept",
            "summary": "Values of a kept version of a service for one entity",
            "parameters": [*path, COLUMNS, *QUERY],
        },
    }


def _rows(columns: Mapping[str, Document], limits: Limits) -> Document:
    return {**list_of(object_of(columns, closed=True)), "maxItems": limits.entities}

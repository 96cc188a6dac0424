"""A service as a value of JSON, and a service of such a value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.values import from_iso, from_us, to_iso, to_us
from mlforge.features.feature import Feature
from mlforge.features.selection import Selection
from mlforge.frames import polars_schema
from mlforge.services.spec import ServiceSpec

Document = dict[str, Any]
S = TypeVar("S", bound=ServiceSpec)


def describe(service: ServiceSpec) -> Document:
    """All that decides a service's answers, then what people are told of it, as JSON has it.

    `{"name", "features": [{"feature", "version", "columns", "prefix", "keys"}], "request": {name: dtype}, "derive":
    {name: expression}, "defaults": {column: value}, "max_age", "owner", "description"}`. version: null is the served
    one. columns: empty for all. prefix: empty for the feature's name. keys: each renamed key's name in entities.
    """
    return {
        "name": service.name,
        "features": [_described_use(entry) for entry in service.features],
        "request": {column.name: column.dtype for column in service.request},
        "derive": {column.name: column.expression for column in service.derived},
        "defaults": described_defaults(service.defaults),
        "max_age": None if service.max_age is None else str(service.max_age),
        "owner": service.owner,
        "description": service.description,
    }


def service_of(kind: type[S], document: Mapping[str, Any], specs: Mapping[str, FeatureSpec]) -> S:
    """The service that was described, of that class; specs: those of its features, by name."""
    return kind(
        document["name"],
        [_use(use, specs[use["feature"]]) for use in document["features"]],
        {name: polars_schema.to_polars(dtype) for name, dtype in document["request"].items()},
        document["derive"],
        {name: default_of(value) for name, value in document["defaults"].items()},
        document["max_age"],
        document["owner"],
        document["description"],
    )


def described_default(value: Any) -> Any:
    """A default as JSON has it: what JSON has no type for is a dict from the type's name to a text."""
    value = value.item() if hasattr(value, "item") else value  # numpy's
    if isinstance(value, datetime):
        return {"instant": to_iso(to_us(value))}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    return {"decimal": str(value)} if isinstance(value, Decimal) else value


def described_defaults(defaults: Mapping[str, Any]) -> Document:
    """Defaults by column as JSON has them."""
    return {name: described_default(value) for name, value in defaults.items()}


def plain_default(value: Any) -> Any:
    """A default as a column's meaning has it."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def default_of(value: Any) -> Any:
    """The default that was described."""
    if not isinstance(value, dict):
        return value
    [(kind, text)] = value.items()
    return _DEFAULTS[kind](text)


_DEFAULTS: dict[str, Any] = {
    "instant": lambda text: from_us(from_iso(text) or 0),
    "date": date.fromisoformat,
    "decimal": Decimal,
}


def _described_use(entry: Any) -> Document:
    use, version = entry if isinstance(entry, tuple) else (entry, None)
    if isinstance(use, Feature):
        use = use.name
    selection = use if isinstance(use, Selection) else None
    return {
        "feature": selection.feature if selection else use,
        "version": version,
        "columns": list(selection.columns) if selection else [],
        "prefix": selection.prefix if selection else "",
        "keys": dict(selection.renamed) if selection else {},
    }


def _use(use: Mapping[str, Any], spec: FeatureSpec) -> Any:
    selection = Selection(spec, tuple(use["columns"]), use["prefix"], tuple(use["keys"].items()))
    plain: Any = selection if selection != Selection(spec) else spec.name
    return plain if use["version"] is None else (plain, use["version"])

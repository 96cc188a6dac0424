"""Answers: the bytes of an online answer, as nested JSON, flat JSON, or a stream of Arrow."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl

from mlforge.core.schema import Column
from mlforge.core.values import to_iso
from mlforge.frames import polars_schema
from mlforge.frames.encoding import json_value
from mlforge.online import Target
from mlforge.retrieval.serving import DETAILS, OnlineAnswer
from mlforge.serve.problems import Refused

Document = dict[str, Any]


def json_body(answer: OnlineAnswer, layout: str, details: bool) -> bytes:
    """The answer as JSON in one of the layouts, `nested` or `flat`; details: whether the rows hold some."""
    of_values = [row.pop(DETAILS) for row in answer.rows] if details else []
    document = _flat(answer) if layout == "flat" else _nested(answer)
    document["served"] = served(targets_of(answer))
    if details:
        document[DETAILS] = [
            {name: asdict(of_value) for name, of_value in row.items()} for row in of_values
        ]
    return encoded(document)


def encoded(document: object) -> bytes:
    """The JSON of a document or value; values that JSON lacks are written as the wire format has them."""
    try:
        text = json.dumps(document, separators=(",", ":"), allow_nan=False, default=json_value)
    except ValueError:  # a float that JSON lacks, computed by an expression
        text = json.dumps(json_value(document), separators=(",", ":"))
    return text.encode()


def _nested(answer: OnlineAnswer) -> Document:
    """Rows by feature, under the columns' own names; features that share a prefix share its rows."""
    features: dict[str, list[dict[str, Any]]] = {}
    for part in answer.parts:
        of_part = [
            dict(zip(part.columns, map(row.__getitem__, part.labels), strict=True))
            for row in answer.rows
        ]
        earlier = features.setdefault(part.name, of_part)
        if earlier is not of_part:
            for known, further in zip(earlier, of_part, strict=True):
                known.update(further)
    document: Document = {"features": features}
    if answer.service is not None and answer.service.derived:
        names = [column.name for column in answer.service.derived]
        document["derived"] = [{name: row[name] for name in names} for row in answer.rows]
    return document


def _flat(answer: OnlineAnswer) -> Document:
    """A row for each entity, as `get_online_features` has it, keys in their dtypes."""
    return {"rows": _rows(answer)}


def _rows(answer: OnlineAnswer) -> list[dict[str, Any]]:
    return [row | keys for row, keys in zip(answer.rows, answer.key_rows, strict=True)]


def served(targets: Mapping[str, Target]) -> Document:
    """The version and `as_of` of each feature's values."""
    return {
        name: {"version": target.version, "as_of": to_iso(target.as_of)}
        for name, target in targets.items()
    }


def targets_of(answer: OnlineAnswer) -> dict[str, Target]:
    """The push that the values of each feature are of."""
    return {part.reference.name: part.served for part in answer.parts}


def arrow_body(answer: OnlineAnswer) -> bytes:
    """The flat rows as a stream of Arrow, the columns in their dtypes."""
    rows = _rows(answer)
    columns = [_series(column, [row[column.name] for row in rows]) for column in answer.columns]
    stream = io.BytesIO()
    pl.DataFrame(columns).write_ipc_stream(stream, compat_level=pl.CompatLevel.oldest())
    return stream.getvalue()


def _series(column: Column, values: list[Any]) -> pl.Series:
    """A column in its dtype; Refused for an entity's key that the dtype does not have, as of no row."""
    try:
        return pl.Series(column.name, values, polars_schema.to_polars(column.dtype))
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise Refused(
            422,
            "unfit_request",
            f"a value of {column.name!r} is no {column.dtype}, so that Arrow cannot hold it; ask for JSON, or leave it out",
        ) from None

"""Books as the fields of a hash that a person can read with HGETALL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlforge.core.schema import Column, Schema
from mlforge.core.values import from_iso, to_iso
from mlforge.errors import OnlineError
from mlforge.online.base import Evidence, OnlineBooks, Target

FORMAT = "1"


def fence_text(target: Target | None) -> str:
    """The target's fence as the scripts compare it; empty for none."""
    return "" if target is None else "{} {}".format(*target.fence)


def target_text(target: Target) -> str:
    """The target as JSON; equal targets have equal texts."""
    return _json(
        {
            "version": target.version,
            "generation": target.generation,
            "as_of": to_iso(target.as_of),
            "content": target.content,
        }
    )


def to_fields(target: Target, books: OnlineBooks) -> dict[str, str]:
    """The fields of books whose target is done and that have none pending."""
    return {
        "version": target.version,
        "generation": str(target.generation),
        "as_of": to_iso(target.as_of) or "",
        "content": target.content,
        "rows": str(books.rows),
        "pushed_at": to_iso(books.pushed_at) or "",
        "renewed_at": to_iso(books.renewed_at) or "",
        "keys": _schema_text(books.keys),
        "columns": _schema_text(books.columns),
        "empty": _json(dict(books.empty)),
        "pending": "[]",
        "losses": losses_text(books.losses),
    }


def losses_text(losses: Evidence | None) -> str:
    """The losses as a person can read them; empty where the server does not tell."""
    return "" if losses is None else f"{losses.evicted} {losses.server}"


def from_fields(fields: Mapping[str, str], where: str) -> OnlineBooks | None:
    """The books of a hash, None for an absent one; OnlineError if `where` holds something else."""
    if not fields:
        return None
    if fields.get("format") != FORMAT:
        raise OnlineError(
            f"{where} holds no books that this mlforge reads; use another prefix or db, "
            "or the mlforge that wrote it"
        )
    try:
        return _parsed(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise OnlineError(
            f"{where} is damaged ({error!r}); delete it and the next push makes it anew"
        ) from error


def _parsed(fields: Mapping[str, str]) -> OnlineBooks:
    pending = tuple(map(_target, json.loads(fields["pending"])))
    if "version" not in fields:
        return OnlineBooks(None, pending)
    return OnlineBooks(
        target=Target(
            fields["version"],
            int(fields["generation"]),
            from_iso(fields["as_of"] or None),
            fields.get("content", ""),
        ),
        pending=pending,
        rows=int(fields["rows"]),
        pushed_at=from_iso(fields["pushed_at"]) or 0,
        renewed_at=from_iso(fields["renewed_at"]) or 0,
        keys=_schema(fields["keys"]),
        columns=_schema(fields["columns"]),
        empty=json.loads(fields["empty"]),
        losses=_losses(fields.get("losses", "")),
    )


def _losses(text: str) -> Evidence | None:
    evicted, _, server = text.partition(" ")
    return Evidence(server, int(evicted)) if text else None


def _target(document: Mapping[str, Any]) -> Target:
    return Target(
        document["version"],
        document["generation"],
        from_iso(document["as_of"]),
        document.get("content", ""),
    )


def _schema(text: str) -> Schema:
    return tuple(Column(**column) for column in json.loads(text))


def _schema_text(schema: Schema) -> str:
    documents = [
        {"name": column.name, "dtype": column.dtype}
        | ({"aggregation": column.aggregation} if column.aggregation else {})
        | ({"window": column.window} if column.window else {})
        for column in schema
    ]
    return _json(documents)


def _json(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)

"""JSON bodies: bytes of a request as a value, or the refusal of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlforge.core.arguments import shown
from mlforge.core.json_text import decoded_bytes
from mlforge.serve.problems import Refused


def parsed_object(body: bytes, fields: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object that a body holds; Refused for another value, and for fields that are not among these.

    fields: what each field is, for messages.
    """
    value = _parsed(body)
    if not isinstance(value, dict):
        raise Refused(
            400, "not_an_object", f"the body is {shown(value)}; send an object with {_told(fields)}"
        )
    unknown = [name for name in value if name not in fields]
    if unknown:
        raise Refused(
            422, "unknown_field", f"no field {unknown[0]!r}; send an object with {_told(fields)}"
        )
    return value


def list_of_objects(body: Mapping[str, Any], field: str, most: int) -> list[dict[str, Any]]:
    """A field that is a list of objects; Refused for another value, and for more of them than `most`."""
    value = body.get(field)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        what = "is missing" if field not in body else f"is {shown(value)}"
        raise Refused(422, "unfit_request", f"{field!r} {what}; send a list of objects")
    if len(value) > most:
        raise Refused(
            422,
            "too_many_entities",
            f"{field!r} has {len(value):,} entries, a request has at most {most:,}; ask several times",
        )
    return value


def _parsed(body: bytes) -> Any:
    if not body:
        raise Refused(400, "not_json", "the body is empty; send a JSON object")
    try:
        return decoded_bytes(body)
    except RecursionError:
        raise Refused(400, "too_deep", "the body's JSON is nested too deeply") from None
    except (
        ValueError
    ) as error:  # also of bytes that are no text, and of numbers with too many digits
        raise Refused(400, "not_json", f"the body is not JSON: {error}") from None


def _told(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({what})" for name, what in fields.items())

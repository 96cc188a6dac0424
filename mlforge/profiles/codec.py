"""A profile as a JSON document, as stores keep it, and back."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mlforge.core.values import to_iso
from mlforge.profiles import registers
from mlforge.profiles.column_profile import ColumnProfile, Counted, Scalar

FORMAT = 1
"""Of the documents. A document of another one is as good as none: the part is profiled anew."""
Profiles = Mapping[str, ColumnProfile]
_COUNTS = ("rows", "nulls", "nans", "infinities")


def to_json(profiles: Profiles) -> dict[str, Any]:
    """The document of the profiles of a part's columns."""
    columns = {name: _column_json(profile) for name, profile in profiles.items()}
    return {"format": FORMAT, "columns": columns}


def from_json(document: Mapping[str, Any]) -> dict[str, ColumnProfile] | None:
    """Read the document; None where it is damaged, or of another format."""
    try:
        if document["format"] != FORMAT:
            return None
        return {name: _column(entry) for name, entry in document["columns"].items()}
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, zlib.error):
        return None


def shown(value: Scalar | None, profile: ColumnProfile) -> Any:
    """A value of the column in JSON's types: instants as ISO 8601, dates without a time, decimals as text."""
    if profile.kind == "time" and isinstance(value, int):
        text = to_iso(value) or ""
        return text[:10] if profile.dtype == "Date" else text
    return str(value) if isinstance(value, Decimal) else value


def _column_json(profile: ColumnProfile) -> dict[str, Any]:
    return {
        "kind": profile.kind,
        "dtype": profile.dtype,
        **{name: getattr(profile, name) for name in _COUNTS},
        "least": _scalar_json(profile.least),
        "greatest": _scalar_json(profile.greatest),
        "total": str(profile.total),
        "squares": str(profile.squares),
        "histogram": [[bucket, rows] for bucket, rows in profile.histogram.items()],
        "registers": base64.b64encode(zlib.compress(profile.registers)).decode(),
        "sample": [[each.hash, _scalar_json(each.value), each.rows] for each in profile.sample],
    }


def _column(entry: Mapping[str, Any]) -> ColumnProfile:
    is_decimal = entry["dtype"].startswith("Decimal")
    state = zlib.decompress(base64.b64decode(entry["registers"]))
    if len(state) != registers.COUNT:
        raise ValueError(f"{len(state)} registers")
    return ColumnProfile(
        kind=entry["kind"],
        dtype=entry["dtype"],
        **{name: int(entry[name]) for name in _COUNTS},
        least=_scalar(entry["least"], is_decimal),
        greatest=_scalar(entry["greatest"], is_decimal),
        total=Fraction(entry["total"]),
        squares=Fraction(entry["squares"]),
        histogram={int(bucket): int(rows) for bucket, rows in entry["histogram"]},
        registers=state,
        sample=tuple(
            Counted(int(hash_), _scalar(value, is_decimal), int(rows))
            for hash_, value, rows in entry["sample"]
        ),
    )


def _scalar_json(value: Scalar | None) -> Any:
    return str(value) if isinstance(value, Decimal) else value


def _scalar(value: Any, is_decimal: bool) -> Any:
    return Decimal(value) if is_decimal and value is not None else value

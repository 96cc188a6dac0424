"""Profiles as a document of JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlforge.core.manifest import Manifest
from mlforge.profiles.buckets import lower_edge, upper_edge
from mlforge.profiles.codec import shown
from mlforge.profiles.column_profile import ColumnProfile

_TOP = 10


def profile_document(manifest: Manifest, profiles: Mapping[str, ColumnProfile]) -> dict[str, Any]:
    """The profiles of a version's columns as `mlforge profile --json` shows them, floats that JSON lacks as null."""
    return {
        "feature": manifest.name,
        "version": str(manifest.version),
        "rows": manifest.row_count,
        "columns": [_column(name, each) for name, each in profiles.items()],
    }


def _column(name: str, profile: ColumnProfile) -> dict[str, Any]:
    is_number = profile.kind in ("number", "boolean")
    return {
        "name": name,
        "dtype": profile.dtype,
        "rows": profile.rows,
        "nulls": profile.nulls,
        "nans": profile.nans,
        "infinities": profile.infinities,
        "distinct": profile.distinct,
        "distinct_is_exact": profile.is_complete,
        "least": shown(profile.least, profile),
        "greatest": shown(profile.greatest, profile),
        "mean": _finite(profile.mean),
        "std": _finite(profile.std),
        "top": [
            {"value": shown(each.value, profile), "rows": each.rows} for each in profile.top(_TOP)
        ],
        "histogram": [
            {"from": lower_edge(bucket), "to": _finite(upper_edge(bucket)), "rows": rows}
            for bucket, rows in (profile.histogram.items() if is_number else ())
        ],
    }


def _finite(value: float | None) -> float | None:
    """A float that JSON has; None for an infinite one."""
    return value if value is not None and math.isfinite(value) else None

"""Addresses of buckets, in which a store or a source may lie."""

from __future__ import annotations

import os
import re

SCHEMES = ("s3", "gs", "az")
_BUCKET = re.compile(rf"({'|'.join(SCHEMES)})://([^/\s?#]+)(/[^\s?#]*)?")
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # a letter alone is a drive


def is_bucket(place: str | os.PathLike[str]) -> bool:
    """Whether a place is the address of a bucket, such as `s3://bucket/feature_store`."""
    return _BUCKET.fullmatch(os.fspath(place)) is not None


def scheme_of(place: str | os.PathLike[str]) -> str | None:
    """The scheme of an address of any kind, None for a path."""
    match = _SCHEME.match(os.fspath(place))
    return match[1] if match else None

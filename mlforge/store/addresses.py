"""Addresses of buckets, in which a store or a source may lie."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from mlforge.core.arguments import shown
from mlforge.errors import DefinitionError

SCHEMES = ("s3", "gs", "az")
_BUCKET = re.compile(rf"({'|'.join(SCHEMES)})://([^/\s?#]+)(/[^\s?#]*)?")
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # a letter alone is a drive


def is_bucket(place: str | os.PathLike[str]) -> bool:
    """Whether a place is the address of a bucket, such as `s3://bucket/feature_store`."""
    return _BUCKET.fullmatch(os.fspath(place)) is not None


def as_path(address: str) -> Path | None:
    """The address of an object as a path of that many parts; None for what is no such address."""
    return Path(address) if address.startswith(tuple(f"{each}://" for each in SCHEMES)) else None


def scheme_of(place: str | os.PathLike[str]) -> str | None:
    """The scheme of an address of any kind, None for a path."""
    match = _SCHEME.match(os.fspath(place))
    return match[1] if match else None


def checked_bucket(url: object) -> str:
    """The address of a bucket, without a slash at its end; DefinitionError for all else."""
    if not isinstance(url, str) or not is_bucket(url):
        raise DefinitionError(
            f"ObjectStore: url must be an address such as 's3://bucket/feature_store', not {shown(url)}; "
            f"it begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
        )
    return url.rstrip("/")


def folder_name(url: str) -> str:
    """The name of a folder for an address, another for each."""
    readable = re.sub(r"[^0-9A-Za-z.-]+", "-", url.partition("://")[2])[:60]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"

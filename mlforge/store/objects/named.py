"""ObjectStore by the names of its clouds."""

from __future__ import annotations

from mlforge.store.objects.store import ObjectStore


class S3Store(ObjectStore):
    """An ObjectStore in a bucket of S3, or of a server that speaks as it does."""


class GCSStore(ObjectStore):
    """An ObjectStore in a bucket of Google Cloud Storage."""

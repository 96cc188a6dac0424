"""Whether a bucket's server keeps to conditions: without them two publishers could both believe that they have won."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress

from mlforge.errors import StoreError, UnsupportedStore
from mlforge.store.objects.objects import ConditionFailed, Objects

FOLDER = "_metadata/probes"


def probe(objects: Objects) -> None:
    """Create, replace and delete an object of no meaning.

    Raises UnsupportedStore for a server that writes although a condition does not hold, StoreError if it gives no answer.
    """
    key = f"{FOLDER}/{uuid.uuid4().hex}"
    first = objects.create(key, b"1")
    try:
        _refused(objects, "If-None-Match", lambda: objects.create(key, b"2"))
        objects.replace(key, b"3", first)
        _refused(objects, "If-Match", lambda: objects.replace(key, b"4", first))
        blob = objects.read(key)
        if blob is None or blob.data != b"3":
            raise UnsupportedStore(
                f"{objects.url}: its server does not read back what was written last; no store can be kept there"
            )
    finally:
        with suppress(StoreError):  # what the server does with conditions is known by now
            objects.delete([key])


def _refused(objects: Objects, condition: str, write: Callable[[], object]) -> None:
    try:
        write()
    except ConditionFailed:
        return
    raise UnsupportedStore(
        f"{objects.url}: its server ignores {condition}, so that publishers could overwrite each other's versions; "
        "use a server that keeps to it, such as S3, Google Cloud Storage, Azure, MinIO or SeaweedFS"
    )

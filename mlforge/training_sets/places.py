"""From a text to the place of a training set that it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlforge.core.paths import path_of
from mlforge.core.scratch import scratch_folder
from mlforge.store import Store
from mlforge.store.addresses import is_bucket
from mlforge.store.bucket_client import objects_at
from mlforge.training_sets.bucket import BucketFiles, BucketPlace
from mlforge.training_sets.folder import FolderFiles, FolderPlace
from mlforge.training_sets.set_files import SetFiles, SetPlace


def place_at(out: str | Path, store: Store | None) -> SetPlace:
    """The place at a path, or in a bucket for an address such as `s3://bucket/train/2026-11`, which is reached as the store's own is."""
    if is_bucket(out):
        return BucketPlace(objects_at(str(out).rstrip("/"), store))
    return FolderPlace(path_of(out).absolute())


@contextmanager
def files_at(address: str, store: Store) -> Iterator[SetFiles]:
    """The files of a set that another process makes, as a task names them."""
    if not is_bucket(address):
        yield FolderFiles(Path(address))
        return
    place, _, set_id = address.rpartition("/")
    with scratch_folder("set") as scratch:
        yield BucketFiles(objects_at(place, store), set_id, scratch)

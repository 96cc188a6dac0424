"""How a machine's cache loses what was scrubbed from the bucket: files with rows that no version names any more."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from mlforge.core.values import Version
from mlforge.errors import IntegrityError, StoreError
from mlforge.store.local import io, upkeep
from mlforge.store.local.paths import entries_of
from mlforge.store.objects import keys
from mlforge.store.objects.cache import FeatureCache

_FOLLOWED = ".scrubbed"


def scrub(
    cache: FeatureCache, hashes: Collection[str], named: Collection[str], sorted_by: str | None
) -> None:
    """Delete partials from whatever file, and parts, lists and versions that the bucket does not name; call with the lock held.

    named: keys of the objects that versions name. A reader amid one of the files fails.
    """
    try:
        upkeep.scrub(cache.folder.partial_store, hashes, sorted_by)
    except IntegrityError:  # what is left of a damaged file is in the bucket
        shutil.rmtree(cache.path, ignore_errors=True)
        return
    cache.folder.tiles.scrub(hashes)
    _keep_named(cache, keys.PARTS, named)
    _keep_named(cache, keys.LINEAGE, named)
    versions = set(map(str, cache.versions()))
    for entry in entries_of(cache.path):
        if _is_version(entry.name) and entry.name not in versions:
            shutil.rmtree(entry.path, ignore_errors=True)


def follow(cache: FeatureCache, named: Collection[str], sorted_by: str | None) -> None:
    """Delete all that the bucket does not name, after another machine has scrubbed it; call with the lock held."""
    home, held = cache.home, cache.folder.partial_store.hashes()
    scrub(cache, {h for h in held if keys.partial(home, h) not in named}, named, sorted_by)
    prefix = keys.part(home, "").partition(".")[0]
    cache.folder.profiles.keep_only(
        {key.removeprefix(prefix).partition(".")[0] for key in named if key.startswith(prefix)}
    )


def followed(cache: FeatureCache) -> int:
    """How many scrubs of the bucket the cache has followed."""
    with suppress(OSError, ValueError):
        return int((cache.path / _FOLLOWED).read_text())
    return 0


def note_followed(cache: FeatureCache, scrubs: int) -> None:
    """Note that the cache has followed so many scrubs of the bucket."""
    with io.storage_errors(cache.path):
        cache.path.mkdir(parents=True, exist_ok=True)
        with io.replacing(cache.path / _FOLLOWED, durable=False) as temporary:
            temporary.write_text(str(scrubs))


def _keep_named(cache: FeatureCache, folder: str, named: Collection[str]) -> None:
    for entry in entries_of(cache.path / folder):
        if f"{cache.home}/{folder}/{entry.name}" not in named:
            with io.storage_errors(Path(entry.path)):
                Path(entry.path).unlink(missing_ok=True)


def _is_version(name: str) -> bool:
    with suppress(StoreError):
        return str(Version.parse(name)) == name
    return False

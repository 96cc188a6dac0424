"""How objects go: what no version names any more, once it is old enough that nobody can be about to name it or reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlforge.core import clock
from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.errors import StoreBusy, StoreError
from mlforge.store.local.manifest_chunks import named
from mlforge.store.objects import keys
from mlforge.store.objects.cache import FeatureCache
from mlforge.store.objects.document import FeatureDocument, new_id
from mlforge.store.objects.documents import Documents
from mlforge.store.objects.objects import Entry, Objects, each
from mlforge.store.records import Books

_BATCH = 1000
_ABANDONED_US = 60_000_000


def hide(documents: Documents, name: str, version: Version) -> None:
    """Take a version from readers in one step; `sweep` deletes its objects later.

    Raises StoreError for the served version.
    """

    def hidden(document: FeatureDocument) -> FeatureDocument:
        if document.pointer is not None and document.pointer.version == version:
            raise StoreError(f"{name} {version} is served and cannot be removed")
        return replace(document, removing={version: clock.now(), **document.removing})

    documents.change(name, hidden)
    reach("remove.hidden")


def sweep(
    cache: FeatureCache, documents: Documents, versions: Sequence[Version], grace_us: int
) -> None:
    """Delete objects that no version names and that are older than the grace period; call with the feature's lock held.

    versions: all that the bucket has. Nothing goes while a manifest cannot be read, as it is not known what it names.
    """
    document, now = documents.read(cache.name), clock.now()
    if document is None:
        return
    expired = [v for v, since in document.removing.items() if now - since >= grace_us]
    if expired:
        cache.objects.delete([keys.meta(cache.name, version) for version in expired])
        documents.change(
            cache.name,
            lambda d: replace(
                d, removing={v: since for v, since in d.removing.items() if v not in expired}
            ),
        )
    try:
        manifests = [cache.manifest(version) for version in versions if version not in expired]
    except StoreError:
        return
    named_keys = {key for manifest in manifests if manifest for key in _keys_of(cache, manifest)}
    for folder in (keys.PARTS, keys.PARTIALS, keys.LINEAGE):
        entries = cache.objects.entries(f"{cache.name}/{folder}")
        spare = [e for e in entries if e.key not in named_keys and _is_old(e, now, grace_us)]
        _delete_old(cache.objects, spare, now, grace_us)


def erase(documents: Documents, objects: Objects, name: str) -> None:
    """Delete all objects of a feature; its document stays, and says that the name is free.

    Raises StoreBusy while another process is at it.
    """

    def erasing(document: FeatureDocument) -> FeatureDocument:
        return FeatureDocument(born=document.born, erasing=clock.now())

    if documents.read(name) is None:
        return
    begun = documents.change(name, erasing)
    reach("erase.unserved")
    found = [e.key for e in objects.entries(name) if e.key != f"{name}/{keys.LATEST}"]
    for start in range(0, len(found), _BATCH):
        objects.delete(found[start : start + _BATCH])
    reach("erase.hidden")

    def free(document: FeatureDocument) -> FeatureDocument:
        if document.erasing != begun.erasing:
            raise StoreBusy(f"{name} is being erased by another process; try again")
        return FeatureDocument(born=new_id(), books=Books())

    documents.change(name, free)


def finish_erasing(documents: Documents, objects: Objects, name: str) -> None:
    """Erase a feature whose eraser has ended midway; StoreBusy where it may still be at work."""
    document = documents.read(name)
    if document is None or document.erasing is None:
        return
    if clock.now() - document.erasing < _ABANDONED_US:
        raise StoreBusy(f"{name} is being erased by another process; try again in a minute")
    erase(documents, objects, name)


def _keys_of(cache: FeatureCache, manifest: Manifest) -> set[str]:
    assert manifest.version is not None
    document = cache.folder.document(manifest.version)
    return {
        *(keys.part(cache.name, part.hash) for part in manifest.parts),
        *(keys.partial(cache.name, partial.hash) for partial in manifest.partials),
        *(keys.piece(cache.name, piece) for piece in named(document)),
    }


def _is_old(entry: Entry, now: int, grace_us: int) -> bool:
    return now - entry.modified >= grace_us


def _delete_old(objects: Objects, spare: Sequence[Entry], now: int, grace_us: int) -> None:
    """Delete objects that are still as old as they were listed: a publisher may have written one again meanwhile."""
    for start in range(0, len(spare), _BATCH):
        batch = spare[start : start + _BATCH]
        looked = each(objects.look, [entry.key for entry in batch])
        objects.delete([e.key for e in looked if e is not None and _is_old(e, now, grace_us)])
        reach("pack.swept")

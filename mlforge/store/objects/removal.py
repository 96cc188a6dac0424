"""How objects go: what no version names any more, once it is old enough that nobody reads it.

A publisher on another machine may write an object anew just when it is deleted. So the feature's document counts the
sweeps, and says while one goes on: nothing is served whose objects were written before the last one had ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

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
from mlforge.store.objects.renames import RenamesObject
from mlforge.store.records import Books

_BATCH = 1000
_ABANDONED_US = 180_000_000
"""After so long without a word a machine that sweeps or erases has ended, whatever requests it had on their way."""
_SWEEP_S = 20.0
"""A sweep deletes for so long at most; the rest goes with the next one."""
_WAIT_S, _LOOK_S = 30.0, 0.1


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
    remaining = [v for v in versions if v not in expired and not document.is_unserved(v)]
    old, known = _old_keys(cache, now, grace_us), _named_or_unknown(cache, remaining)
    spare = old - known if known is not None else set()
    if not spare and not expired:
        return
    until = time.monotonic() + _SWEEP_S
    with suppress(_AtWork), _sweeping(cache, documents) as document:
        if expired:
            cache.objects.delete([keys.meta(cache.home, version) for version in expired])
            documents.change(cache.name, partial(_without, versions=expired))
        # What was made and not served by now never will be, as the sweep has begun.
        named_by_now = _named_or_unknown(cache, _served(cache, document))
        if named_by_now is not None:
            is_spare = partial(_is_old, now=now, grace_us=grace_us)
            _delete(cache.objects, sorted(spare - named_by_now), is_spare, until)


def scrub(
    cache: FeatureCache,
    documents: Documents,
    hashes: Collection[str],
    leading: Collection[str] = (),
) -> set[str]:
    """Delete at once, however young they are, partials and all that no version names, with the versions that are gone for readers.

    Call with the lock of the feature held. leading: folders of names whose documents lead to the feature; nothing else of theirs
    stays. Returns the keys of objects that versions name. Raises StoreBusy while another machine
    deletes, and as a manifest that cannot be read does.
    """
    if documents.read(cache.name) is None:
        return set()
    try:
        while (named := _scrubbed_for_a_while(cache, documents, hashes, leading)) is None:
            pass
    except _AtWork:
        raise StoreBusy(
            f"{cache.name}: another machine deletes what it no longer needs; try again"
        ) from None
    documents.change(cache.name, lambda now: replace(now, scrubbed=now.scrubbed + 1))
    return named


def _scrubbed_for_a_while(
    cache: FeatureCache,
    documents: Documents,
    hashes: Collection[str],
    leading: Collection[str],
) -> set[str] | None:
    """Scrub for as long as others wait; returns what versions name, None if more is left to delete."""
    until = time.monotonic() + _SWEEP_S
    with _sweeping(cache, documents) as document:
        gone = list(document.removing)
        cache.objects.delete([keys.meta(cache.home, version) for version in gone])
        left = documents.change(cache.name, partial(_without, versions=gone))
        named = named_keys(cache, left) - {keys.partial(cache.home, hash_) for hash_ in hashes}
        spare = sorted({entry.key for entry in _stored(cache)} - named)
        spare += _all_keys(cache.objects, leading)
        for start in range(0, len(spare), _BATCH):
            if time.monotonic() >= until:
                return None
            cache.objects.delete(spare[start : start + _BATCH])
            reach("scrub.deleted")
    return named


def named_keys(cache: FeatureCache, document: FeatureDocument) -> set[str]:
    """Keys of the objects that the versions name which readers have, or had; raises as a manifest that cannot be read does."""
    return _named(cache, _served(cache, document))


def _served(cache: FeatureCache, document: FeatureDocument) -> list[Version]:
    """Versions that were served and have a manifest; those that a server lists late are known by the document."""
    listed = cache.versions()
    late = [v for v in document.recent if v not in listed and v not in document.removing]
    manifests = zip(late, each(cache.document, late), strict=True)
    there = [version for version, manifest in manifests if manifest is not None]
    return [*(v for v in listed if not document.is_unserved(v)), *there]


def _without(document: FeatureDocument, versions: Collection[Version]) -> FeatureDocument:
    """The document without versions whose manifests are gone."""
    removing = {v: since for v, since in document.removing.items() if v not in versions}
    return replace(document, removing=removing)


def finish(documents: Documents, objects: Objects, renames: RenamesObject, name: str) -> bool:
    """Wait until no other machine sweeps a feature, and end what was left of a sweep or an erasure; returns whether there was any.

    Raises StoreBusy where another machine may still be at work.
    """
    before = documents.read(name)
    _finish_sweeping(documents, name)
    _finish_erasing(documents, objects, renames, name)
    return documents.read(name) != before


def _finish_sweeping(documents: Documents, name: str) -> None:
    until = time.monotonic() + _WAIT_S
    document = documents.read(name)
    while document is not None and (begun := document.sweeping) is not None:
        if clock.now() - begun >= _ABANDONED_US:
            documents.change(name, partial(_swept, begun=begun))
            return
        if time.monotonic() >= until:
            raise StoreBusy(f"{name}: another machine deletes what it no longer needs; try again")
        time.sleep(_LOOK_S)
        document = documents.refreshed(name)


class _AtWork(Exception):
    """Another machine sweeps or erases the feature."""


@contextmanager
def _sweeping(cache: FeatureCache, documents: Documents) -> Iterator[FeatureDocument]:
    """The feature's document as a sweep begins, of which it tells; whoever has begun to publish before it begins anew."""

    def beginning(document: FeatureDocument) -> FeatureDocument:
        if not document.is_alive(cache.born) or document.sweeping is not None:
            raise _AtWork
        return replace(document, swept=document.swept + 1, sweeping=clock.now())

    begun = documents.change(cache.name, beginning)
    assert begun.sweeping is not None
    try:
        yield begun
    finally:
        documents.change(cache.name, partial(_swept, begun=begun.sweeping))


def _swept(document: FeatureDocument, begun: int) -> FeatureDocument:
    return replace(document, sweeping=None) if document.sweeping == begun else document


def erase(documents: Documents, objects: Objects, renames: RenamesObject, name: str) -> None:
    """Delete all objects of a feature; its document stays, and says that the name is free, as its former names are.

    Raises StoreBusy while another process is at it.
    """

    def erasing(document: FeatureDocument) -> FeatureDocument:
        if document.sweeping is not None:
            raise StoreBusy(f"{name}: another machine deletes what it no longer needs; try again")
        return document.ended(erasing=clock.now())

    if documents.read(name) is None:
        return

    def renewed(document: FeatureDocument) -> FeatureDocument:
        if document.erasing != begun.erasing:
            raise StoreBusy(f"{name} is being erased by another process; try again")
        return replace(document, erasing=clock.now())

    begun = documents.change(name, erasing)
    reach("erase.unserved")
    folders = [documents.folder(name), *leading_folders(documents, renames, name)]
    object_keys = _all_keys(objects, folders)
    for start in range(0, len(object_keys), _BATCH):
        begun = documents.change(name, renewed)
        objects.delete(object_keys[start : start + _BATCH])
    reach("erase.hidden")
    renames.free(name)
    reach("erase.unnamed")

    def free(document: FeatureDocument) -> FeatureDocument:
        renewed(document)
        return FeatureDocument(born=new_id(), books=Books())

    documents.change(name, free)


def leading_folders(documents: Documents, renames: RenamesObject, name: str) -> list[str]:
    """The folders of names that a feature has or had, whose documents lead to its own folder."""
    own, names = documents.folder(name), (name, *renames.read().formerly(name))
    others = {each: documents.stored.refreshed(each) for each in names if each != own}
    return sorted(n for n, document in others.items() if document and document.lies_in == own)


def _all_keys(objects: Objects, folders: Iterable[str]) -> list[str]:
    """The objects of folders, but for the features' documents; events last, by which what is left by a killed process is known."""
    listed = (entry.key for folder in folders for entry in objects.entries(folder))
    gone = (key for key in listed if not key.endswith(f"/{keys.LATEST}"))
    return sorted(gone, key=lambda key: (f"/{keys.PARTIALS}/" in key, key))


def _finish_erasing(
    documents: Documents, objects: Objects, renames: RenamesObject, name: str
) -> None:
    document = documents.read(name)
    if document is None or document.erasing is None:
        return
    if clock.now() - document.erasing < _ABANDONED_US:
        raise StoreBusy(f"{name} is being erased by another process; try again in some minutes")
    erase(documents, objects, renames, name)


def _stored(cache: FeatureCache) -> Iterator[Entry]:
    """The objects that versions name, and what builds left that were killed amid their tasks, which none does."""
    for folder in (keys.PARTS, keys.PARTIALS, keys.LINEAGE, keys.TASKS):
        yield from cache.objects.entries(f"{cache.home}/{folder}")


def _old_keys(cache: FeatureCache, now: int, grace_us: int) -> set[str]:
    return {entry.key for entry in _stored(cache) if _is_old(entry, now, grace_us)}


def _named_or_unknown(cache: FeatureCache, versions: Iterable[Version]) -> set[str] | None:
    """Keys of the objects that versions name; None where a manifest cannot be read."""
    try:
        return _named(cache, versions)
    except StoreError:
        return None


def _named(cache: FeatureCache, versions: Iterable[Version]) -> set[str]:
    manifests = [cache.manifest(version) for version in versions]
    return {key for manifest in manifests if manifest for key in _keys_of(cache, manifest)}


def _keys_of(cache: FeatureCache, manifest: Manifest) -> set[str]:
    assert manifest.version is not None
    document = cache.folder.document(manifest.version)
    return {
        *(keys.part(cache.home, part.hash) for part in manifest.parts),
        *(keys.partial(cache.home, partial.hash) for partial in manifest.partials),
        *(keys.piece(cache.home, piece) for piece in named(document)),
    }


def _is_old(entry: Entry, now: int, grace_us: int) -> bool:
    return now - entry.modified >= grace_us


def _delete(
    objects: Objects, spare: Sequence[str], is_old: Callable[[Entry], bool], until: float
) -> None:
    """Delete objects that are old still, until an instant of the monotonic clock."""
    for start in range(0, len(spare), _BATCH):
        looked = each(objects.look, spare[start : start + _BATCH])
        if time.monotonic() >= until:
            return
        objects.delete([entry.key for entry in looked if entry is not None and is_old(entry)])
        reach("pack.swept")

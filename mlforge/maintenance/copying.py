"""A copy of a store in another place: the same versions, bit by bit, with all that is noted beside them.

Versions are published one after another as they once were, so a copy that was interrupted goes on where it stopped, and
readers of the new store see whole versions only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest
from mlforge.core.schema import dtypes
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, UnsupportedStore, VersionConflict
from mlforge.maintenance.copy_checks import UNFINISHED, check_behind, check_forgotten, mark_of
from mlforge.maintenance.forgetting import scrub
from mlforge.maintenance.operations import verify
from mlforge.store import Store
from mlforge.store.apart import check_beside, check_in_no_store
from mlforge.store.file_tasks import PartialWrite, read_place
from mlforge.store.integrity import intact

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Copied:
    """A feature that was copied: its versions, and how many of them were there already.

    erased: versions that went from the copy, since the source has forgotten entities that they had rows of.
    """

    feature: str
    versions: tuple[Version, ...]
    before: int
    erased: tuple[str, ...]


def copy(
    source: Store,
    target: Store,
    names: Iterable[str] | None = None,
    told: Callable[[str, Version], None] = lambda name, version: None,
) -> list[Copied]:
    """Copy features, by default all, with the store's identity, its locks, services, former names and what it has forgotten.

    Each feature is verified once it is there; what the source has forgotten since an earlier copy is deleted there, too.
    told: called after each version. Raises UnsupportedStore where the target
    is another store, lies within one or has gone on alone, IntegrityError where a version differs or is damaged, VersionConflict if the source changes all the time.
    """
    if target.address is not None:
        check_in_no_store(target.address, may_be_one=True, store=target)
        if source.address is not None:
            check_beside(target.address, source.address)
    chosen = source.features() if names is None else list(names)
    for name in chosen:
        source.list_versions(name)  # an unknown name is refused before anything is written
    identity = source.identity()
    if identity is not None:
        target.establish_as(identity)
    check_forgotten(source, target)
    former = _former_names(source, target, chosen)
    for name in chosen:
        check_behind(source, target, name, former.get(name, name))
    for now, before in former.items():
        _rename(target, before, now)
    if source.renames() and source.renames() != target.renames():
        target.write_renames(source.renames())
    forgotten = source.forgotten()
    if forgotten != target.forgotten():
        target.write_forgotten(forgotten)
    copied = [_copied(source, target, name, told) for name in chosen]
    target.end_forgetting({*chosen} - forgotten.unfinished, forgotten)
    services = {*source.services()} if names is None else set()
    for model, lock in source.locks().items():
        if set(lock.features) <= set(target.features()):
            target.write_lock(model, lock)
            services.add(lock.service or model)
    for service in sorted(services):
        for version, document in source.service_versions(service).items():
            target.create_service_version(service, version, document)
    target.regenerate_index()
    return copied


def _former_names(source: Store, target: Store, names: Iterable[str]) -> dict[str, str]:
    """The names that features of the source have in the target, where they had others when they were copied."""
    renames, there, chosen = source.renames(), target.features(), {*names}
    names_now = {renames.now(former): former for former in there}
    return {
        now: former
        for now, former in names_now.items()
        if former != now and now in chosen and now not in there
    }


def _rename(target: Store, before: str, now: str) -> None:
    try:
        target.rename(before, now)
    except UnsupportedStore as error:
        raise UnsupportedStore(
            f"{now}: it was named {before} when it was copied, and {target} renames no feature; delete the copy there "
            f"('mlforge retire {before}' on that store), and copy again"
        ) from error


def _copied(
    source: Store, target: Store, name: str, told: Callable[[str, Version], None]
) -> Copied:
    """Copy a feature, again where its source has published meanwhile."""
    before = {*target.versions(name)}
    for _ in range(_TRIES):
        served = source.pointer(name)
        versions = source.versions(name)
        for version in versions:
            _copy_version(source, target, name, version)
            told(name, version)
        _copy_notes(source, target, name)
        if source.pointer(name) == served:
            reach("copy.copied")
            erased = _erase(source, target, name)
            problems = verify(target, [name])
            if problems:
                raise IntegrityError(
                    f"{name}: its copy is damaged: {'; '.join(str(each) for each in problems[:3])}; "
                    "see with 'mlforge verify' whether the store that was copied is whole"
                )
            return Copied(name, tuple(versions), len(before.intersection(versions)), erased)
    raise VersionConflict(
        f"{name}: it is published while it is copied; stop its workers, then copy again"
    )


def _copy_version(source: Store, target: Store, name: str, version: Version) -> None:
    with source.lease(name, version):
        manifest = source.manifest(name, version)
        if version in target.versions(name):
            _check_same(manifest, target.manifest(name, version))
            return
        with target.open(name) as snapshot:
            if version in snapshot.versions:  # made by an interrupted copy, and served only now
                _check_same(manifest, target.manifest(name, version))
                return
            if snapshot.highest is not None and snapshot.highest > version:
                raise UnsupportedStore(
                    f"{name}: {target} has {snapshot.highest} and not {version}, so it is no unfinished copy; "
                    "copy to an empty place"
                )
            _copy_partials(source, target, manifest)
            if snapshot.pointer is not None:
                _begin(target, name)
            with target.transaction(snapshot) as transaction:
                files = source.files(name, version, manifest.parts)
                parts = transaction.take_files(files, manifest.parts)
                books = replace(snapshot.books, copied=UNFINISHED)
                transaction.commit(replace(manifest, parts=parts), books)


def _check_same(manifest: Manifest, there: Manifest) -> None:
    own, other = ([part.hash for part in each.parts] for each in (manifest, there))
    if own != other or manifest.sources != there.sources or manifest.code_hash != there.code_hash:
        raise IntegrityError(
            f"{manifest.name} {manifest.version}: the two stores have different versions of this number; copy to an empty place"
        )


def _copy_partials(source: Store, target: Store, manifest: Manifest) -> None:
    """Store the partials that the target lacks."""
    there = target.partials(manifest.name)
    lacking = [partial for partial in manifest.partials if partial.hash not in there]
    places = source.locate(manifest.name, [partial.hash for partial in lacking])
    with intact(manifest.name):
        target.write_partials(
            manifest.name,
            [
                PartialWrite(partial, read_place(place, list(dtypes(partial.schema))))
                for partial, place in zip(lacking, places, strict=True)
            ],
        )


def _begin(target: Store, name: str) -> None:
    """Mark a copy as unfinished before anything that is served of it changes; call with the feature's lock held."""
    books = target.books(name)
    if books.copied != UNFINISHED:
        target.write_books(name, replace(books, copied=UNFINISHED))


def _copy_notes(source: Store, target: Store, name: str) -> None:
    """Serve what is served, at no lower a generation, by which online stores know what is newer; and copy the notes."""
    served = source.pointer(name)
    with target.lock(name):
        now = target.pointer(name)
        while served is not None and now is not None:
            if now.version == served.version and now.generation >= served.generation:
                break
            _begin(target, name)
            now = target.serve(name, served.version, served.generation)
        target.write_file_states(name, source.file_states(name))
        audit = source.audit(name)
        if audit is not None:
            target.write_audit(name, audit)
        books = source.books(name)
        mark = mark_of(served.version, books) if served is not None else ""
        exports = {**target.books(name).exports, **books.exports}
        target.write_books(name, replace(books, copied=mark, exports=exports))


def _erase(source: Store, target: Store, name: str) -> tuple[str, ...]:
    """Delete the versions and partials with rows that the source has forgotten; returns the versions."""
    if not target.forgotten():
        return ()
    # Its versions tell what the source holds by now: the cache of a bucket may hold more, as it was before.
    manifests = [source.manifest(name, version) for version in source.versions(name)]
    named = {partial.hash for manifest in manifests for partial in manifest.partials}
    suspects = target.kept_partials(name) - named
    return scrub(target, name, (), suspects).versions if suspects else ()

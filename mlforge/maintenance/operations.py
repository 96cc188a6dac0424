"""Operations of a person on a store: roll back, pin, prune, verify. No definitions are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mlforge.core import clock
from mlforge.core.arguments import instance, texts
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.values import Version
from mlforge.engines.events import keep_all_time
from mlforge.engines.kinds import kinds_of
from mlforge.errors import MlforgeError, VersionConflict, VersionNotFound
from mlforge.frames.digest import digest
from mlforge.maintenance.manifests import manifests_of
from mlforge.maintenance.retention import UNATTENDED, Retention, removable
from mlforge.sources.damage import DAMAGE
from mlforge.store import Pointer, Store
from mlforge.store.base import NOT_SERVED
from mlforge.store.file_tasks import by_file, read_together

_UNFINISHED = "rows of forgotten entities may be left: a 'mlforge forget' did not end; run the same command again, or 'mlforge build'"
_WORTH_IT = 10
_STILL_READ_US = 600_000_000
_MOSTLY = 0.5  # a pack with fewer partials that are named by no version stays as it is


@dataclass(frozen=True, slots=True)
class Pruned:
    """The versions and partials of one feature that were removed.

    unreadable: versions kept because their manifests cannot be read; all partials are kept with them.
    in_use: versions kept until the next pruning, since they are being read; their partials are kept, too.
    """

    feature: str
    versions: tuple[str, ...]
    partials: int
    unreadable: tuple[str, ...]
    in_use: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was published."""

    feature: str
    version: str
    what: str


def rollback(store: Store, name: str, version: str | None = None) -> Pointer:
    """Serve an older version, by default the one before; the feature is held until a person goes on.

    The generation rises, so the online store follows. The next build takes a number above all others.
    Raises VersionNotFound if there is no older version, VersionConflict for the served version.
    """
    _check(store, "rollback")
    store.list_versions(name)  # a lock makes the folder: not for a name that does not exist
    with store.lock(name):
        served = store.resolve(name)
        assert served.version is not None
        target = _before(store, served) if version is None else Version.parse(version)
        if target == served.version:
            raise VersionConflict(
                f"{name}: {target} is the version that is served; 'mlforge versions {name}' lists the others"
            )
        store.manifest(name, target)
        reason = f"rolled back from {served.version} to {target}; 'mlforge approve {name}' or a build goes on"
        store.write_books(name, store.books(name).held(reason, by_person=True))
        return store.serve(name, target)


def pin(
    store: Store, name: str, version: str | None = None, *, unpin: bool = False
) -> tuple[str, ...]:
    """Protect a version, by default the served one, from every prune; returns all pins."""
    _check(store, "pin")
    store.list_versions(name)
    with store.lock(name):
        chosen = str(store.resolve(name, version).version)
        books = store.books(name)
        pins = {*books.pins} - {chosen} if unpin else {*books.pins, chosen}
        ordered = tuple(sorted(pins, key=Version.parse))
        store.write_books(name, replace(books, pins=ordered))
    return ordered


def list_anew(store: Store, name: str) -> bool:
    """Have the next refresh list all of a feature's source, also partitions that were sealed; returns whether any were."""
    with store.lock(name):
        books = store.books(name)
        if books.sealed is not None:
            store.write_books(name, replace(books, sealed=None))
        return books.sealed is not None


def prune(
    store: Store, names: Iterable[str], rule: Retention, *, dry_run: bool = False
) -> list[Pruned]:
    """Remove versions that the rule allows to go, and partials and profiles of parts that no version names any more.

    A version from whose rows a version of another feature was made stays for as long as that one.
    """
    _check(store, "prune")
    instance(rule, Retention, "prune: rule", "write Retention(newest=10)")
    return [_prune(store, name, rule, dry_run=dry_run) for name in _named(names, "prune")]


def tidy(store: Store, name: str, rule: Retention = UNATTENDED) -> Pruned | None:
    """Prune a feature once enough versions can go to pay for reading all the rest.

    Small loose partials are compacted into packs, and what windows over all time need takes in what came.
    """
    versions = dict.fromkeys(store.versions(name), 0)
    pointer, now = store.pointer(name), clock.now()
    pins = map(Version.parse, store.books(name).kept_at(now))
    served = pointer.version if pointer else None
    pruned = None
    spare = set(removable(versions, served, set(pins), rule, now))
    if len(spare) >= _WORTH_IT and len(spare - store.made_from(name)) >= _WORTH_IT:
        pruned = _prune(store, name, rule, above=_MOSTLY)
    manifest = store.latest(name)
    if manifest is not None:
        compact(store, manifest)
        keep_all_time(store, manifest)
    return pruned


def compact(store: Store, manifest: Manifest) -> None:
    """Merge small loose partials of a version, the served one, into packs, where there are enough of them."""
    store.compact(manifest.name, manifest.partials, manifest.spec.timestamp)


def verify(store: Store, names: Iterable[str], version: str | None = None) -> list[Problem]:
    """Compare every byte of versions and partials with their manifests' hashes; nothing is changed.

    Of all versions also whether the one that is to be served is there, whether the books can be read, and whether rows of forgotten
    entities may be left.
    """
    _check(store, "verify")
    problems: list[Problem] = []
    unfinished = store.forgotten().unfinished if version is None else frozenset()
    for name in _named(names, "verify"):
        checked: dict[str, str | None] = {}
        versions = store.versions(name) if version is None else [Version.parse(version)]
        pointer = store.pointer(name) if version is None else None
        if versions and version is None and pointer is None:
            problems.append(Problem(name, str(versions[-1]), f"is not served: {NOT_SERVED}"))
        if pointer is not None and pointer.version not in versions:
            problems.append(Problem(name, str(pointer.version), "is to be served, but is missing"))
        if pointer is not None:
            try:
                store.books(name)
            except MlforgeError as error:
                problems.append(Problem(name, str(pointer.version), str(error)))
            if name in unfinished:
                problems.append(Problem(name, str(pointer.version), _UNFINISHED))
        for each in versions:
            try:
                manifest = store.manifest(name, each)
            except MlforgeError as error:
                problems.append(Problem(name, str(each), str(error)))
                continue
            faults = [*store.check_manifest(manifest), *_check_partials(store, manifest, checked)]
            problems += [Problem(name, str(each), what) for what in faults]
    return problems


def _check(store: object, what: str) -> None:
    """Raise DefinitionError for what is no store."""
    instance(store, Store, f"{what}: store", "write LocalStore('feature_store')")


def _named(names: Iterable[str], what: str) -> tuple[str, ...]:
    """The names, also those of a mapping by name, as `Definitions.features` is; DefinitionError for what is no list of names."""
    several = [*names] if isinstance(names, Mapping) else names
    return texts(several, f"{what}: names", 'write ["user_spend"]')


def _before(store: Store, served: Manifest) -> Version:
    assert served.version is not None
    older = [version for version in store.versions(served.name) if version < served.version]
    if not older:
        raise VersionNotFound(
            f"{served.name}: there is no version before {served.version} to go back to"
        )
    return older[-1]


def _prune(
    store: Store, name: str, rule: Retention, *, dry_run: bool = False, above: float = 0
) -> Pruned:
    store.list_versions(name)
    with store.lock(name):
        manifests, unreadable = manifests_of(store, name)
        pointer, now = store.pointer(name), clock.now()
        created = {version: manifest.created_at for version, manifest in manifests.items()}
        removed = removable(
            {**created, **dict.fromkeys(unreadable, 0)},
            pointer.version if pointer else None,
            {
                *map(Version.parse, store.books(name).kept_at(now)),
                *unreadable,
                *store.made_from(name),
            },
            rule,
            now,
        )
        in_use: list[Version] = []
        if not dry_run:
            removed, in_use = store.remove_each(name, removed)
        needed = {p.hash for v, m in manifests.items() if v not in removed for p in m.partials}
        # Which partials an unreadable version names is not known.
        spare = [] if unreadable else [h for h in store.partials(name) if h not in needed]
        if not dry_run:
            timestamp = next(reversed(manifests.values())).spec.timestamp if manifests else None
            spare = store.remove_partials(name, spare, timestamp, above)
            if not unreadable:
                kept = (m for v, m in manifests.items() if v not in removed)
                store.keep_profiles(name, {part.hash for m in kept for part in m.parts})
                _keep_tiles(store, manifests, pointer)
    removed_, unreadable_, in_use_ = (
        tuple(map(str, versions)) for versions in (removed, unreadable, in_use)
    )
    return Pruned(name, removed_, len(spare), unreadable_, in_use_)


def _keep_tiles(
    store: Store, manifests: Mapping[Version, Manifest], pointer: Pointer | None
) -> None:
    """Let go of tiles that no definition needs any more.

    Needed are those of the served version, of the newest, which it may have been rolled back from, and of versions that were served a
    moment ago, whose push or reader may be at work.
    """
    if pointer is None or pointer.version not in manifests:
        return
    of_versions = [*manifests.values()]
    since = clock.now() - _STILL_READ_US
    recent = [older for older, newer in pairwise(of_versions) if newer.created_at > since]
    needed = [manifests[pointer.version], of_versions[-1], *recent]
    of_definitions = {(manifest.spec, manifest.events): manifest for manifest in needed}
    kinds = {kind for manifest in of_definitions.values() for kind in kinds_of(store, manifest)}
    store.keep_tiles(of_versions[0].name, kinds)


def _check_partials(store: Store, manifest: Manifest, checked: dict[str, str | None]) -> list[str]:
    """Read each partial once, however many versions name it."""
    fresh = {p.hash: p for p in manifest.partials if p.hash not in checked}
    checked.update(dict.fromkeys(fresh))
    checked.update(store.check_partials(manifest.name, fresh))
    whole = [partial for hash_, partial in fresh.items() if checked[hash_] is None]
    for partial, fault in _misread(store, manifest, whole):
        checked[partial.hash] = fault
    return [
        f"partial {hash_[:12]} {checked[hash_]}"
        for hash_ in dict.fromkeys(p.hash for p in manifest.partials)
        if checked[hash_]
    ]


def _misread(
    store: Store, manifest: Manifest, stored: Sequence[Partial]
) -> Iterator[tuple[Partial, str]]:
    """Partials whose events are not what they were written with, a file after the other."""
    known = {partial.hash: partial for partial in stored}
    located = store.locate(manifest.name, list(known))
    for places in by_file(dict(zip(known, located, strict=True))):
        try:
            events = read_together(places)
        except DAMAGE as error:
            yield from ((known[h], f"cannot be read ({type(error).__name__})") for h in places)
            continue
        for hash_, rows in events.items():
            if digest(rows) != known[hash_].digest:
                yield known[hash_], "does not hold the events that it was written with"

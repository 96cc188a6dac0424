"""Erasure in a store: the rows of forgotten entities leave a feature's partials, versions and notes.

Two steps, each under the feature's lock and each of which may be repeated: a version without the rows is published,
so that online stores can follow; then whatever still holds them is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from mlforge.build.rewriting import publish_rewritten
from mlforge.core.failpoints import reach
from mlforge.core.forgotten import REASON, Entity, Forgotten
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.values import Version
from mlforge.engines import Engine
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.errors import StoreError
from mlforge.frames.forgotten import rows_of, without
from mlforge.ingest import partials
from mlforge.maintenance.manifests import manifests_of
from mlforge.store import Audit, Books, Store
from mlforge.store.file_tasks import PartialWrite, by_file, read_together
from mlforge.store.integrity import intact


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """The versions and the number of partials that went of a feature for good; `in_use` versions stay for their readers.

    sets: folders of training sets that were made from versions that went, now or before. exports: tables to which such versions
    were exported.
    """

    versions: tuple[str, ...]
    partials: int
    in_use: tuple[str, ...]
    sets: tuple[str, ...]
    exports: tuple[str, ...]


def publish_without(store: Store, name: str, engine: Engine) -> VersionsDiff | None:
    """Publish a feature's served version without the rows of forgotten entities; None where it has none.

    No source is looked at, so what a source does not hold any more stays. Raises IntegrityError where stored events are damaged.
    """
    forgotten = store.forgotten()
    with store.open(name) as snapshot, intact(name):
        latest = snapshot.latest
        if latest is None:
            return None
        rewritten = _rewritten(store, latest, forgotten)
        if not rewritten:
            return None
        reach("forget.rewritten")
        candidate = replace(
            latest,
            partials=tuple(rewritten.get(p.hash, p) for p in latest.partials),
            sources=tuple(_record(record, rewritten) for record in latest.sources),
        )
        return publish_rewritten(store, snapshot, candidate, "entity_forgotten", engine)


def scrub(
    store: Store,
    name: str,
    entities: Sequence[Entity],
    among: Collection[str] | None = None,
) -> Scrubbed:
    """Delete versions and partials with rows of forgotten entities, and what is known of them beside.

    Pinned versions go, too; the served one must be without such rows by now. entities: whose values notes may name.
    among: the hashes of partials that may hold such rows, by default all.
    """
    forgotten = store.forgotten()
    with store.lock(name), intact(name):
        stored = store.kept_partials(name)
        suspects = stored if among is None else stored & set(among)
        dirty = {hash_ for hash_, _ in _dirty(store, name, suspects, forgotten)}
        manifests, unreadable = manifests_of(store, name)
        pointer = store.pointer(name)
        served = manifests.get(pointer.version) if pointer else None
        if served is not None and not dirty.isdisjoint(p.hash for p in served.partials):
            raise StoreError(
                f"{name}: rows came in again while it was forgotten; run the same command again"
            )
        clean = stored - dirty  # what a partial held that is missing is not known
        unclean = [v for v, m in manifests.items() if m is not served and not _all_in(m, clean)]
        gone, in_use = store.remove_each(name, sorted([*unclean, *unreadable]))
        reach("forget.removed")
        staying = [m for v, m in manifests.items() if v not in gone]
        spare = dirty - {p.hash for manifest in staying for p in manifest.partials}
        timestamp = served.spec.timestamp if served else None
        store.scrub(name, spare, timestamp)  # of none, too: a killed one may have left copies
        store.keep_profiles(name, {part.hash for manifest in staying for part in manifest.parts})
        books = _redacted_books(store, name, entities, gone)
        sets, exports = _copies(books, set(store.versions(name)), gone)
    texts = (tuple(map(str, versions)) for versions in (gone, in_use))
    return Scrubbed(next(texts), len(spare), next(texts), sets, exports)


def files_with_forgotten_rows(manifest: Manifest) -> list[str]:
    """The source files of a version that hold rows of forgotten entities, which it leaves out.

    Of a function that reads the whole source all its files are named: any may be the one, see `are_read_together`.
    """
    return [record.path for record in _holding(manifest)]


def are_read_together(manifest: Manifest) -> bool:
    """Whether files of several contents are behind rows of forgotten entities, without telling which of them holds one."""
    contents: dict[str, set[str]] = {}
    for record in _holding(manifest):
        contents.setdefault(record.partial, set()).add(record.hash)
    return any(len(hashes) > 1 for hashes in contents.values())


def _holding(manifest: Manifest) -> list[SourceRecord]:
    holding = {partial.hash for partial in manifest.partials if partial.dropped.get(REASON)}
    return [record for record in manifest.sources if record.partial in holding]


def _rewritten(store: Store, latest: Manifest, forgotten: Forgotten) -> dict[str, Partial]:
    """The partials that are stored in place of those with rows of forgotten entities, by the hashes of the latter."""
    known = {partial.hash: partial for partial in latest.partials}
    rewritten: dict[str, Partial] = {}
    for hash_, events in _dirty(store, latest.name, known, forgotten):
        before = known[hash_]
        untyped = [column.name for column in before.schema if column.dtype == "Null"]
        order = [column.name for column in before.schema]
        whole = events.with_columns(pl.lit(None).alias(name) for name in untyped).select(order)
        kept, rows = without(whole, forgotten)
        dropped = {**before.dropped, REASON: before.dropped.get(REASON, 0) + rows}
        key = forgotten.rewritten(hash_)
        listed = [column.name for column in before.schema if column.listed]
        partial = partials.describe(key, kept, latest.spec, dropped, listed=listed)
        store.write_partials(
            latest.name, [PartialWrite(partial, partials.stored(kept))], latest.spec.timestamp
        )
        rewritten[hash_] = partial
    return rewritten


def _dirty(
    store: Store, name: str, hashes: Iterable[str], forgotten: Forgotten
) -> Iterator[tuple[str, pl.DataFrame]]:
    """The stored partials that hold rows of forgotten entities, with their events, read a file at a time."""
    named = list(hashes)
    for places in by_file(dict(zip(named, store.locate(name, named), strict=True))):
        for hash_, events in read_together(places).items():
            if rows_of(events, forgotten) is not None:
                yield hash_, events


def _record(record: SourceRecord, rewritten: Mapping[str, Partial]) -> SourceRecord:
    partial = rewritten.get(record.partial)
    if partial is None:
        return record
    times = partial.times if record.times is not None else None
    return record._replace(partial=partial.hash, times=times)


def _all_in(manifest: Manifest, hashes: Collection[str]) -> bool:
    return all(partial.hash in hashes for partial in manifest.partials)


def _redacted_books(
    store: Store, name: str, entities: Sequence[Entity], gone: Collection[Version]
) -> Books:
    """The feature's books, after values were taken out of notes, and pins off versions that went."""
    books, texts = store.books(name), {str(version) for version in gone}
    redacted = {
        path: replace(bad, reason=_redacted(bad.reason, entities), memo=REASON)  # it is tried again
        for path, bad in books.quarantine.items()
    }
    now = replace(
        books,
        quarantine=redacted,
        pins=tuple(pin for pin in books.pins if pin not in texts),
    )
    if now != books:
        store.write_books(name, now)
    audit = store.audit(name)
    if audit is not None and (clean := _without_names(audit, entities)) != audit:
        store.write_audit(name, clean)
    return now


def _copies(
    books: Books, there: Collection[Version], gone: Collection[Version]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training sets and exported tables of versions that are there no more, so also of those that a killed run removed.

    A table has snapshots of versions before the last, so that of any feature whose versions went now counts.
    """
    known = set(map(str, there))
    sets = tuple(pin.out for pin in books.sets.values() if not known.issuperset(pin.versions))
    exports = books.exports.items()
    return sets, tuple(table for table, note in exports if gone or note.version not in known)


def _without_names(audit: Audit, entities: Sequence[Entity]) -> Audit:
    suspects = [s for s in audit.suspects if _redacted(s, entities) == s]
    first = [_redacted(sentence, entities) for sentence in audit.first]
    return replace(audit, suspects=tuple(suspects), first=tuple(first))


def _redacted(sentence: str, entities: Sequence[Entity]) -> str:
    for entity in entities:
        sentence = entity.redacted(sentence)
    return sentence

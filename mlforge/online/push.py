"""Push: bring the online store to a version, as of an instant.

Only rows that may differ from those online are sent: the rows of entities whose events changed since
the version that is online, or whose windows gained or lost events as the instant moved.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from mlforge.core import clock
from mlforge.core.aggregations import empty_value
from mlforge.core.failpoints import reach
from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest
from mlforge.core.meaning import meaning_text
from mlforge.engines import Engine, Events, evaluation
from mlforge.engines.events import events_of
from mlforge.engines.tasks import Sharing
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.engines.views import AsOfView, Gathered
from mlforge.errors import BooksDamaged, IntegrityError, OwnedElsewhere, StalePush
from mlforge.frames.encoding import key_hashes
from mlforge.frames.shared_results import ByIdentity, once
from mlforge.online import Evidence, OnlineBooks, OnlineStore, Owner, Target, batches
from mlforge.online.affected import Affected, Differences
from mlforge.online.ahead import DiffAhead
from mlforge.online.batches import Batch, EntitySubset
from mlforge.online.books import Claim
from mlforge.online.shared_push import FullPush
from mlforge.online.targets import misled, target_of
from mlforge.store import Store, StoreIdentity
from mlforge.store.integrity import mended

log = get_logger("mlforge.push")
_ASKED = 1_000  # rows in one question


@dataclass(frozen=True)
class PushResult:
    """The outcome of a push of one feature; `as_of` is None for an untimed feature, or before any version."""

    feature: str
    version: str | None = None
    as_of: int | None = None
    written: int = 0
    deleted: int = 0
    full: bool = False
    seconds: float = 0.0


def push(
    name: str,
    store: Store,
    online: OnlineStore,
    engine: Engine,
    owner: Owner | None = None,
    adopt: bool = False,
    diff: VersionsDiff | None = None,
    sharing: Sharing | None = None,
) -> PushResult:
    """Make the online store equal the served version as of now; cheap when it already is.

    owner: who pushes, by default `owner_of(store)`. adopt: take the feature from whatever store owns it.
    diff: what the refresh before it found to differ, so that events need not be compared again. sharing: who else may write rows of a
        large push that writes all of them.

    Books that cannot be read are made anew, with all rows. A push that a newer one overtook ends quietly.
    Raises OwnedElsewhere when the rows online are of another store, OnlineError when the server cannot take
    the push, IntegrityError when the version's events are missing or damaged.
    """
    started = time.perf_counter()
    pointer = store.pointer(name)
    if pointer is None:
        return PushResult(name)
    manifest = store.manifest(name, pointer.version)
    owner = owner or owner_of(store)
    target = target_of(manifest, pointer.generation, owner.store)
    work = _Push(store, online, engine, manifest, target, owner, adopt, diff, sharing)
    try:
        result = mended(lambda: store.mend(name), work.run)
    except BooksDamaged as damage:
        log.warning(
            "books online are made anew, and all rows with them", feature=name, why=str(damage)
        )
        online.forget(name, owner.store)
        result = work.run()
    except StalePush:
        why = misled(name, store, online)
        if why is None:
            log.info("overtaken by a newer push", feature=name, version=target.version)
            return PushResult(name, target.version, target.as_of)
        log.warning("rows online bar this push: all are written anew", feature=name, why=why)
        online.forget(name, owner.store)
        result = work.run()
    result = replace(result, seconds=time.perf_counter() - started)
    if result.written or result.deleted or result.full:
        log.info(
            "pushed",
            feature=name,
            version=result.version,
            written=result.written,
            deleted=result.deleted,
            full=result.full,
            ms=round(result.seconds * 1000, 1),
        )
    return result


def owner_of(store: Store, project: str = "", root: str = "") -> Owner:
    """The offline store as an owner of rows online, which has an id from now on."""
    return replace(_owner(store, store.establish()), project=project, root=root)


def _owner(store: Store, identity: StoreIdentity | None) -> Owner:
    host = socket.gethostname()
    return Owner(identity.id if identity else "", "", "", repr(store), host, clock.now())


def planned(
    manifest: Manifest,
    store: Store,
    online: OnlineStore,
    engine: Engine,
    diff: VersionsDiff | None = None,
) -> int:
    """How many keys a push of a version would write or delete, without touching the online store; diff: as in `push`."""
    pointer = store.pointer(manifest.name)
    served = pointer is not None and pointer.version == manifest.version
    generation = 0 if pointer is None else pointer.generation + (not served)
    owner = _owner(store, store.identity())
    target = target_of(manifest, generation, owner.store)
    work = _Push(store, online, engine, manifest, target, owner, diff=diff)
    books = online.books(manifest.name)
    work.claim(books)
    if books is not None and books.target == work.target and not books.pending:
        return 0
    affected = None
    with suppress(IntegrityError):  # what was pushed before may be damaged
        difference = None if books is None else work.affected(books)
        affected = None if difference is None else difference.entities
    alive = evaluation.active_entities(work.events, work.target.as_of, affected)
    keys = manifest.spec.keys
    if affected is None:
        return alive.height + online.count_other_rows(manifest.name, key_hashes(alive, keys))
    gone = affected.join(alive, on=list(manifest.spec.entity), how="anti")
    slices = [key_hashes(part, keys).to_list() for part in gone.iter_slices(_ASKED)]
    return alive.height + sum([online.count_rows(manifest.name, hashes) for hashes in slices])


@dataclass(frozen=True)
class _Push:
    store: Store
    online: OnlineStore
    engine: Engine
    manifest: Manifest
    target: Target
    owner: Owner
    adopt: bool = False
    diff: VersionsDiff | None = None
    sharing: Sharing | None = None

    def run(self) -> PushResult:
        name, target = self.manifest.name, self.target
        begun = self._begun_unread()
        if begun is None:
            books = self.online.books(name)
            claim = self.claim(books)
            is_there = books is not None and books.is_at(target, self.online.layout)
            if books is not None and is_there and not claim.takes_from:
                return self._renewed(books)
            evidence = self._evidence()
            begun = self.online.begin(name, target, claim), evidence
        books, evidence = begun
        reach("push.begun")
        try:
            affected = self.affected(books)
            if affected is not None:
                books = self._recounted(books, evidence)
            if affected is not None and books is not None:
                return self._some(affected, books, evidence)
        except IntegrityError as error:
            # The damage may lie in what was pushed before, which a full push does not read.
            log.warning("all rows are written anew", feature=name, why=str(error))
        return self._all(evidence)

    def _begun_unread(self) -> tuple[OnlineBooks, Evidence | None] | None:
        """The books once the push has begun, without a question what they were: a version that was published just now is in none yet.

        None where the version may have been pushed before, and where the books are another's.
        """
        if self.diff is None:
            return None
        evidence = self._evidence()
        try:
            return self.online.begin(self.manifest.name, self.target, Claim(self.owner)), evidence
        except OwnedElsewhere:
            return None

    def _evidence(self) -> Evidence | None:
        """Evidence from before the first row is written: of a job's features that of the first. The older it is, the more shows as lost."""
        return once("evidence", lambda: ByIdentity(self.online), self.online.evidence_to_note)

    def claim(self, books: OnlineBooks | None) -> Claim:
        """Whose rows this push makes them; OwnedElsewhere if they are another's who may still be there."""
        name, before = self.manifest.name, None if books is None else books.owner
        if before is None or before.store == self.owner.store:
            return Claim(self.owner)
        if before.lies_where(self.owner):
            log.warning(
                "rows of a store that was here before are taken over", feature=name, of=before.store
            )
            return Claim(self.owner, before.store)
        if self.adopt:
            log.warning("rows are adopted", feature=name, of=str(before))
            return Claim(self.owner, before.store, afresh=True)
        raise OwnedElsewhere(
            f"{name}: its rows online are of another owner ({before}), so they are not overwritten. Use another "
            f"prefix, as in RedisStore(prefix=...), or another name for one of the two features; if the other "
            f"is to end, take its rows with 'mlforge adopt {name}'"
        )

    def _recounted(self, books: OnlineBooks, evidence: Evidence | None) -> OnlineBooks | None:
        """The books with the latest evidence under which all rows exist, None if some rows are missing.

        Evidence that no count has covered stays as it is: a push alone does not acknowledge it.
        """
        begun = clock.now()
        if not books.recount_due(evidence, begun):
            return books
        if books.pending != (self.target,):
            return None  # how many rows there should be is not known
        alive = self.online.renew(self.manifest.name, self.target)
        if alive < books.rows:
            log.warning(
                "rows were lost online", feature=self.manifest.name, lost=books.rows - alive
            )
            return None
        return replace(books, renewed_at=begun, evidence=evidence)

    def _renewed(self, books: OnlineBooks) -> PushResult:
        """Nothing moved: keep rows alive, and write them anew if some were lost."""
        name, evidence, begun = self.manifest.name, self.online.evidence_to_note(), clock.now()
        told = replace(
            books, meaning=self._meaning, defaults=self._defaults, formerly=self._formerly
        )
        if books.renewal_due(self.online.ttl, begun) or evidence != books.evidence:
            alive = self.online.renew(name, self.target)
            if alive < books.rows:
                log.warning("rows were lost online", feature=name, lost=books.rows - alive)
                self.online.begin(name, self.target, Claim(self.owner))
                return self._all(evidence)
            checked = replace(told, renewed_at=begun, evidence=evidence)
            self.online.finish(name, self.target, checked, _run(evidence))
        elif told != books:  # a release before wrote no meaning; the definition has other defaults
            self.online.finish(name, self.target, told, _run(evidence))
        return PushResult(name, self.target.version, self.target.as_of)

    def affected(self, books: OnlineBooks) -> Affected | None:
        """The entities whose rows may differ from those of any earlier push, finished or not; None for all entities.

        None also where rows are so old that all are better rewritten.
        """
        if books.target is None or books.renewal_due(self.online.ttl, clock.now()):
            return None
        return self._differences.since((books.target, *books.pending))

    @cached_property
    def _differences(self) -> Differences:
        return Differences(self.store, self.manifest, self.target, self.events, self.diff)

    def _all(self, evidence: Evidence | None) -> PushResult:
        name, target, begun = self.manifest.name, self.target, clock.now()
        unwritten = self.online.list_digests(name)
        push = FullPush(
            self.online, self.store, self.engine, self.manifest, target, self.now, self.sharing
        )
        written = push.put(unwritten)
        reach("push.put")
        deleted = self.online.remove_rows(name, target, unwritten) if unwritten else 0
        self._finish(written, begun, evidence, evidence)
        return PushResult(name, target.version, target.as_of, written, deleted, full=True)

    def _some(
        self, affected: Affected, books: OnlineBooks, evidence: Evidence | None
    ) -> PushResult:
        name, target, keys = self.manifest.name, self.target, self.manifest.spec.keys
        written = deleted = had = 0
        gone = affected.entities
        for batch in self._batches(affected, books):
            written += self.online.put(name, target, batch.rows, keys, encoded=batch.encoded)
            gone = _without(gone, batch.rows, self.manifest.spec.entity)
            had += batch.had
        reach("push.put")
        if not gone.is_empty():
            deleted = self.online.remove(name, target, gone, keys)
        rows = books.rows - had + written
        self._finish(rows, books.renewed_at, books.evidence, evidence)
        return PushResult(name, target.version, target.as_of, written, deleted)

    def _batches(self, affected: Affected, books: OnlineBooks) -> Iterator[Batch]:
        """The rows of affected entities, evaluated from events that are in memory by now, or gathered for it."""
        if affected.gathered is not None:
            return iter([self._of_gathered(affected.gathered)])
        assert books.target is not None
        base = self._differences.version_of(books.target)
        assert base is not None
        before = AsOfView(events_of(self.store, base), books.target.as_of)
        entities = affected.entities
        subset = EntitySubset(entities, entities.height / max(1, books.rows))
        return batches.cut(self.engine, self.now, subset, before)

    def _of_gathered(self, gathered: Gathered) -> Batch:
        """The rows of gathered events, evaluated ahead or now."""
        ahead = self.diff.rows if isinstance(self.diff, DiffAhead) else None
        batch = ahead.of(gathered, self.engine, self.online) if ahead else None
        return batch or batches.evaluated(self.engine, gathered)

    def _finish(
        self, rows: int, renewed_at: int, evidence: Evidence | None, begun: Evidence | None
    ) -> None:
        """evidence: that of when all rows were last known to be there; begun: that of when the push began."""
        spec, events = self.manifest.spec, self.manifest.events
        columns = tuple(column for column in spec.values(events) if column.name not in spec.of_t)
        books = OnlineBooks(
            target=self.target,
            rows=rows,
            pushed_at=clock.now(),
            renewed_at=renewed_at,
            keys=tuple(column for column in events if column.name in spec.keys),
            columns=columns,
            empty={column.name: empty_value(column.aggregation) for column in columns},
            evidence=evidence,
            derived=spec.derived,
            inputs=spec.inputs(events),
            meaning=self._meaning,
            defaults=self._defaults,
            formerly=self._formerly,
        )
        reach("push.removed")
        self.online.finish(self.manifest.name, self.target, books, _run(begun))
        reach("push.finished")

    @property
    def _meaning(self) -> str:
        return meaning_text(self.manifest.spec, self.manifest.code_hash)

    @property
    def _defaults(self) -> Mapping[str, Any]:
        return self.store.books(self.manifest.name).defaults

    @property
    def _formerly(self) -> tuple[str, ...]:
        return self.store.renames().formerly(self.manifest.name)

    @property
    def now(self) -> AsOfView:
        """The version's events as of the target."""
        return AsOfView(self.events, self.target.as_of)

    @cached_property
    def events(self) -> Events:
        """The version's events."""
        return events_of(self.store, self.manifest)


def _without(entities: pl.DataFrame, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The entities that have none of some rows, each of another of the entities."""
    if rows.height == entities.height:
        return entities.clear()
    present = rows[list(keys)]
    return once(
        "gone",
        lambda: tuple(keys),
        lambda: entities.join(present, on=list(keys), how="anti"),
        entities,
        present,
    )


def _run(evidence: Evidence | None) -> str | None:
    return None if evidence is None else evidence.server

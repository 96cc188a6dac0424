"""What must hold after any fault, and what must hold all the while.

`assert_invariant` waits, at most so long, until a project has settled, then compares all of it with the
oracle, with a rebuild from nothing and with itself. A `Witness` looks on meanwhile, as users do, and
judges at the end whatever it was ever answered.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl

from mlforge import Definitions, Feature, get_training_data
from mlforge.core import clock
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest
from mlforge.core.values import Version, from_us
from mlforge.errors import IntegrityError, MlforgeError
from mlforge.maintenance.operations import verify
from mlforge.online import OnlineBooks, OnlineStore
from mlforge.store import LocalStore
from tests.support import contents, oracle
from tests.support.agreement import TALLY, plain, same, same_rows
from tests.support.judged import window_of
from worker.project import Project

OTHER = {"polars": "duckdb", "duckdb": "polars"}
TICK_SLACK_US = 75_000_000
"""How far behind the clock rows that follow it may be: a tick, and the time to notice."""

_NEVER = 1 << 62
_AHEAD_US = 1_000_000  # clocks that agree differ by less

Hashes = Counter[str]


# -- after the last fault


def assert_invariant(
    project: Project,
    *,
    features: Collection[str] | None = None,
    bad: Mapping[str, Iterable[str]] | None = None,
    kept: Mapping[str, Mapping[str, bytes]] | None = None,
    good: Mapping[str, Iterable[bytes]] | None = None,
    held: Collection[str] = (),
    pruned: bool = False,
    deadline_s: float = 60.0,
) -> float:
    """Fail unless the project settles in time and everything is as the good files say; how long it took.

    bad: by feature, paths of files that must be set aside. kept: files that must be set aside, and the
        last good content that counts in place of theirs. good: all contents that must count, where that
        is not what lies in the source, as for a held feature. held: features that must be held.
    features: those looked at; all by default. pruned: whether old versions may be gone.
    """
    began = time.monotonic()
    names = list(project.definitions.features if features is None else features)
    wanted = {name: _Wanted.of(project, name, bad, kept, good, name in held) for name in names}
    while unsettled := [what for name in names for what in wanted[name].unsettled(project)]:
        assert time.monotonic() < began + deadline_s, (
            f"not settled within {deadline_s} s: {'; '.join(unsettled)}"
        )
        time.sleep(0.05)
    took = time.monotonic() - began
    for name in names:
        wanted[name].compare(project, pruned)
    return took


@dataclass(frozen=True)
class _Wanted:
    """What the good files of a feature say."""

    name: str
    hashes: Hashes
    set_aside: frozenset[str]
    held: bool

    @classmethod
    def of(
        cls,
        project: Project,
        name: str,
        bad: Mapping[str, Iterable[str]] | None,
        kept: Mapping[str, Mapping[str, bytes]] | None,
        good: Mapping[str, Iterable[bytes]] | None,
        held: bool,
    ) -> _Wanted:
        replaced = (kept or {}).get(name, {})
        aside = frozenset([*(bad or {}).get(name, ()), *replaced])
        counting = (good or {}).get(name)
        if counting is None:
            files = project.definitions.source(name).scan().files
            counting = [file.absolute.read_bytes() for file in files if file.path not in aside]
        hashes = Counter(map(contents.note, [*counting, *replaced.values()]))
        return cls(name, hashes, aside, held)

    def unsettled(self, project: Project) -> list[str]:
        """What is not as it will be, in words; cheap to ask often."""
        name, store = self.name, project.definitions.store
        [ticket] = project.work_queue.read([name])
        if ticket.behind or ticket.leased or ticket.error:
            return [f"{name}: a refresh is due or under way ({ticket})"]
        books = store.books(name)
        if bool(books.hold) != self.held:
            return [f"{name}: held: {books.hold}, should be held: {self.held}"]
        if not self.held and set(books.quarantine) != self.set_aside:
            return [f"{name}: set aside {sorted(books.quarantine)}, not {sorted(self.set_aside)}"]
        latest = store.latest(name)
        if latest is None:
            return [] if not self.hashes else [f"{name}: no version of {len(self.hashes)} files"]
        defined = project.definitions.features[name]
        if not self.held and (latest.spec, latest.code_hash) != (defined.spec, defined.code_hash):
            return [f"{name} {latest.version}: is of other definitions"]
        wrong = _differences(latest, self.hashes)
        if wrong:
            return [f"{name} {latest.version}: {wrong}"]
        online, pointer = project.online.books(name), store.pointer(name)
        assert pointer is not None
        if online is None or online.target is None or online.pending:
            return [f"{name}: a push is due or under way ({online})"]
        target = online.target
        if (target.version, target.generation) != (str(pointer.version), pointer.generation):
            return [f"{name}: {pointer} is served, {target} is online"]
        due = _as_of(latest)
        late = 0 if due is None or target.as_of is None else due - target.as_of
        if (due is None) != (target.as_of is None) or not 0 <= late <= _slack(latest, due):
            return [f"{name}: online {target}, but should be as of {due and from_us(due)}"]
        return []

    def compare(self, project: Project, pruned: bool) -> None:
        """Fail unless versions are whole and each once, and all values are the oracle's."""
        store = project.definitions.store
        problems = verify(store, [self.name])
        assert not problems, "; ".join(map(str, problems))
        _check_chain(store, self.name, pruned)
        latest = store.latest(self.name)
        if latest is None:
            assert project.online.count_other_rows(self.name, set()) == 0
            return
        if not self.held:  # a rollback is held, too
            assert latest.version == store.versions(self.name)[-1]
        _check_stored(latest, store.read(self.name))
        _check_online(project, latest)
        _check_rebuild(project, latest)


def _differences(latest: Manifest, wanted: Hashes) -> str | None:
    """How the files of a version differ from those that there are; renames and such change nothing."""
    named = Counter(record.hash for record in latest.sources)
    if named == wanted or _multiset(latest, named) == _multiset(latest, wanted):
        return None
    return f"lacks {(wanted - named).total()} files, has {(named - wanted).total()} that are none"


def _multiset(manifest: Manifest, hashes: Hashes) -> Counter[tuple[Any, ...]]:
    columns = [column.name for column in manifest.events]
    return Counter(
        tuple(row.get(column) for column in columns)
        for hash_ in hashes.elements()
        for row in contents.rows(hash_)
    )


def _check_chain(store: Any, name: str, pruned: bool) -> None:
    """No version is lost, none is doubled: each differs from the one before."""
    manifests = [store.manifest(name, version) for version in store.versions(name)]
    for before, after in pairwise(manifests):
        if not pruned:
            assert after.parent is not None
            assert after.parent <= before.version, f"{name} {after.version} has no parent"
        same_meaning = all(
            getattr(before, what) == getattr(after, what)
            for what in ("code_hash", "config_hash", "rows_hash")
        )
        assert not same_meaning, f"{name}: {after.version} says again what {before.version} says"
    if manifests and not pruned:
        assert manifests[0].parent is None, f"{name}: {manifests[0].parent} is lost"


def _check_stored(manifest: Manifest, frame: pl.DataFrame) -> None:
    """Fail unless the rows of a version are the oracle's, entity by entity."""
    feature, events = _meant(manifest), _events(manifest)
    keys = list(feature.keys)
    found = dict(frame.group_by(keys, maintain_order=True))
    assert set(found) == set(events), f"{manifest.name} {manifest.version}: other entities"
    for entity, rows in events.items():
        same_rows(feature, rows, found[entity])


def _check_online(project: Project, latest: Manifest) -> None:
    """Fail unless every key there is holds the oracle's value, and the training value, as of then."""
    name, store, online = latest.name, project.definitions.store, project.online
    feature, events = _meant(latest), _events(latest)
    entities = sorted(events, key=str)
    asked = [dict(zip(feature.keys, entity, strict=True)) for entity in entities]
    [(books, rows)] = online.fetch([(name, asked)])
    assert books is not None
    assert books.target is not None
    as_of = books.target.as_of
    for entity, row in zip(entities, rows, strict=True):
        want = served(latest, entity, as_of)
        assert (row is None) == (want is None), f"{name} {entity} online: {row}, not {want}"
        for column, cell in (want or {}).items():
            assert row is not None
            same(f"{name} {entity} {column} online", cell, row[column])
    living = [entity for entity, row in zip(entities, rows, strict=True) if row is not None]
    assert online.count_other_rows(name, set()) == len(living) == books.rows, (
        f"{name}: rows too many"
    )
    if as_of is None or not living:
        return
    spine = pl.DataFrame(
        {key: [entity[i] for entity in living] for i, key in enumerate(feature.keys)},
        schema=store.read(name, columns=feature.keys).schema,
    ).with_columns(pl.lit(from_us(as_of)).cast(pl.Datetime("us", "UTC")).alias(feature.time))
    trained = get_training_data(spine, features=[name], store=store, timestamp=feature.time)
    for entity, answer in zip(living, trained.iter_rows(named=True), strict=True):
        for column, cell in (served(latest, entity, as_of) or {}).items():
            same(f"{name} {entity} {column} in training", cell, answer[f"{name}__{column}"])


def _check_rebuild(project: Project, latest: Manifest) -> None:
    """Fail unless a build of the same contents from nothing, by the other engine, means the same."""
    defined = project.definitions.features[latest.name]
    if defined.code_hash != latest.code_hash:  # of a version that a rollback brought back
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "in"
        place.mkdir()
        for number, merged in enumerate(_merged([record.hash for record in latest.sources])):
            (place / f"{number}.parquet").write_bytes(merged)
        copied: Feature = replace(defined, sources=("in/",), engine=OTHER[latest.engine])
        rebuilt = Definitions(LocalStore(Path(folder) / "store"), [copied], root=folder)
        rebuilt.build()
        manifest = rebuilt.store.read_metadata(latest.name)
        assert manifest.rows_hash == latest.rows_hash, f"{latest.name}: a rebuild differs"


def _merged(hashes: Sequence[str], most: int = 200) -> Iterator[bytes]:
    """The contents as they are; where there are very many, some of them as one: the rows are the same."""
    each = -(-len(hashes) // most)
    for start in range(0, len(hashes), each or 1):
        some = [contents.content(hash_) for hash_ in hashes[start : start + each]]
        if len(some) == 1:
            yield some[0]
            continue
        yield contents.as_parquet(pl.concat([pl.read_parquet(one) for one in some]))


# -- what a version means, by the oracle


def _meant(manifest: Manifest) -> oracle.Feature:
    """The feature of a version, for the oracle."""
    return _feature(manifest.spec, tuple(column.name for column in manifest.events))


@lru_cache
def _feature(spec: FeatureSpec, columns: tuple[str, ...]) -> oracle.Feature:
    return oracle.Feature(
        keys=spec.keys,
        columns=columns,
        timestamp=spec.timestamp,
        interval=spec.interval.us if spec.interval else None,
        metrics=tuple(
            oracle.Metric(
                name=metric.name,
                column=metric.column,
                aggregation=metric.aggregation,
                window=window_of(metric),
                offset=metric.window.offset.us if metric.window.offset else 0,
                closed=metric.window.closed,
                where=metric.where,
            )
            for metric in spec.columns
        ),
        online_clock=spec.online_clock,
    )


def _events(manifest: Manifest) -> dict[oracle.Entity, oracle.Events]:
    """The events of a version by entity: its function picks columns of the contents that it names."""
    hashes = tuple(sorted(record.hash for record in manifest.sources))
    return _events_of(_meant(manifest), hashes)


@lru_cache(maxsize=200)
def _events_of(
    feature: oracle.Feature, hashes: tuple[str, ...]
) -> dict[oracle.Entity, oracle.Events]:
    picked = [
        {column: row.get(column) for column in feature.columns}
        for hash_ in hashes
        for row in contents.rows(hash_)
    ]
    by_entity: dict[oracle.Entity, list[oracle.Row]] = defaultdict(list)
    for row in oracle.clean(feature, picked).rows:
        by_entity[oracle.entity_of(feature, row)].append(row)
    return {entity: oracle.Events(tuple(rows)) for entity, rows in by_entity.items()}


def served(
    manifest: Manifest, entity: oracle.Entity, as_of: int | None
) -> dict[str, oracle.Cell] | None:
    """What a version gives an entity online as of an instant; None where it has no row."""
    events = _events(manifest).get(entity)
    if events is None:
        return None
    # A feature that follows the wall clock is evaluated at the very instant that it is told.
    told = replace(_meant(manifest), online_clock="wall")
    return oracle.online(told, events, as_of or 0).get(entity)


def _as_of(manifest: Manifest, now: int | None = None) -> int | None:
    """The instant at which a version is to be served, by default now."""
    every = tuple(row for events in _events(manifest).values() for row in events.rows)
    at = clock.now() if now is None else now
    feature = _meant(manifest)
    if not manifest.frontier and (manifest.watermark or at) > at:
        # The clock was set back since: a version notes only what lay ahead when it was made.
        feature = replace(feature, online_clock="wall")
    return oracle.as_of(feature, oracle.Events(every), at)


def _slack(manifest: Manifest, due: int | None) -> int:
    """How late the instant online may be: not at all, but where it moves with the clock."""
    moves = manifest.spec.interval is None and due != _as_of(manifest, _NEVER)
    return TICK_SLACK_US if moves else 0


# -- all the while


@dataclass(frozen=True)
class Sight:
    """A row as somebody was answered, and what the books said at that instant."""

    feature: str
    entity: oracle.Entity
    version: Version
    instants: tuple[int | None, ...]
    row: tuple[tuple[str, Any], ...] | None


@dataclass
class Witness:
    """Reads rows online and versions offline in a thread, again and again, while its block runs.

    entities: by feature, the keys that it asks for. online: where it asks, by default a connection of
    its own to the project's server. always: nobody may be refused an answer, once there was one. Leaving the block without an error judges all that was seen: each
    row was right for a version not older than the books said, each version was whole at every sight,
    none changed, and the pointer never went back.
    """

    project: Project
    entities: Mapping[str, Sequence[Mapping[str, Any]]]
    online: OnlineStore | None = None
    pruned: bool = False
    rolled_back: bool = False
    always: bool = False
    every_s: float = 0.02
    sights: Counter[Sight] = field(default_factory=Counter)
    versions: dict[str, dict[Version, Manifest]] = field(default_factory=dict)
    rounds: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Begin to look."""
        self._stop = threading.Event()
        self._generations: dict[str, int] = {}
        self._answered: set[str] = set()
        self._frames: dict[tuple[str, Version], pl.DataFrame] = {}
        self._thread = threading.Thread(target=self._run, name="witness")
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None:
            self.judge()

    def stop(self) -> None:
        """Look no more; `judge` says what that gave."""
        self._stop.set()
        self._thread.join()

    def _refuse(self, where: str, why: str) -> None:
        """Note that nothing was to be had; a fault only where there must always be something."""
        self.refused[f"{where}: {why}"] += 1
        if self.always and (where in self._answered):
            self.wrong.append(f"{where}: {why}")

    def _run(self) -> None:
        from mlforge.online import RedisStore

        own = self.online or RedisStore.from_url(self.project.settings.redis_url)
        store = LocalStore(self.project.definitions.store.path)
        try:
            while not self._stop.wait(self.every_s):
                self.rounds += 1
                for feature in self.entities:
                    self._look_offline(store, feature)
                    self._look_online(own, feature)
        except BaseException as error:  # a test that fails must say why
            self.wrong.append(f"the witness itself failed: {error!r}")
            raise
        finally:
            if self.online is None:
                own.close()

    def _look_offline(self, store: LocalStore, feature: str) -> None:
        known = self.versions.setdefault(feature, {})
        try:
            pointer = store.pointer(feature)
            if pointer is not None:
                before = self._generations.get(feature, 0)
                if pointer.generation < before:
                    self.wrong.append(f"{feature}: generation {before} went to {pointer}")
                self._generations[feature] = pointer.generation
            for version in store.versions(feature):
                if version not in known:
                    manifest = store.manifest(feature, version)
                    self._frames[feature, version] = store.read(feature, str(version))
                    known[version] = manifest
                    self._answered.add(f"{feature} offline")
        except IntegrityError as error:
            self.wrong.append(f"{feature} could not be read: {error}")
        except (MlforgeError, OSError) as error:
            self._refuse(f"{feature} offline", repr(error))

    def _look_online(self, online: OnlineStore, feature: str) -> None:
        asked = self.entities[feature]
        try:
            [(books, rows)] = online.fetch([(feature, asked)])
        except (MlforgeError, OSError) as error:
            self._refuse(f"{feature} online", repr(error))
            return
        if books is None or books.target is None:
            self._refuse(f"{feature} online", "not served")
            return
        self._answered.add(f"{feature} online")
        version, instants = Version.parse(books.target.version), _instants(books)
        if any(instant is not None and instant > clock.now() + _AHEAD_US for instant in instants):
            self.wrong.append(f"{feature}: served as of {instants}, which has not come")
        for keys, row in zip(asked, rows, strict=True):
            entity = tuple(keys[column.name] for column in books.keys)
            answer = None if row is None else tuple(sorted(row.items()))
            self.sights[Sight(feature, entity, version, instants, answer)] += 1

    # -- judgement

    def judge(self) -> None:
        """Fail if anything that was seen was wrong."""
        assert not self.wrong, "; ".join(self.wrong[:5])
        assert self.rounds, "the witness saw nothing"
        store = self.project.definitions.store
        for feature, known in self.versions.items():
            there = set(store.versions(feature))
            lost = sorted(set(known) - there)
            assert self.pruned or not lost, f"{feature}: versions are lost: {lost}"
            for version in there:
                manifest = store.manifest(feature, version)
                seen = known.setdefault(version, manifest)
                assert seen.content_hash == manifest.content_hash, f"{feature} {version} changed"
            for version in _some(sorted(known)):
                frame = self._frames.get((feature, version))
                if frame is not None:
                    _check_stored(known[version], frame)
        for sight in self.sights:
            assert self._was_right(sight), (
                f"{sight.feature} {sight.entity}: {sight.row} was served for {sight.version} as of "
                f"{sight.instants}, but no version gives that"
            )
        TALLY["sights"] += self.sights.total()

    def _was_right(self, sight: Sight) -> bool:
        for version, manifest in sorted(self.versions.get(sight.feature, {}).items()):
            if version < sight.version and not self.rolled_back:
                continue  # values are never older than the books say
            instants = {*sight.instants, _as_of(manifest)} if manifest.sources else sight.instants
            if any(_agrees(manifest, sight, instant) for instant in instants):
                return True
        return False


def _agrees(manifest: Manifest, sight: Sight, instant: int | None) -> bool:
    want = served(manifest, sight.entity, instant)
    if want is None or sight.row is None:
        return want is None and sight.row is None
    row = dict(sight.row)
    return row.keys() == want.keys() and all(
        oracle.close(cell.value, plain(row[column]), cell.magnitude)
        for column, cell in want.items()
    )


def _instants(books: OnlineBooks) -> tuple[int | None, ...]:
    targets = [target for target in (books.target, *books.pending) if target is not None]
    return tuple(dict.fromkeys(target.as_of for target in targets))


def _some(versions: list[Version], most: int = 20) -> list[Version]:
    """At most so many, the first and the last among them."""
    step = max(1, -(-len(versions) // most))
    return [*versions[::step], *versions[-1:]]

"""A Hypothesis machine that drops, amends, renames and removes files, and judges what mlforge answers.

After every build the stored rows, training values and versions must be the oracle's, and those of
a rebuild from nothing in the other engine; after every push, so must be every online value and key.
"""

from __future__ import annotations

import atexit
import copy
import functools
import itertools
import math
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
import redis
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from mlforge import Definitions, Service, ahead, get_online_features, get_training_data
from mlforge.build.result import BuildResult, Options
from mlforge.build.rows import Layout
from mlforge.core import clock, failpoints
from mlforge.core.manifest import Manifest
from mlforge.errors import BuildError, DataError, NotServed
from mlforge.frames.shared_results import shared_results
from mlforge.maintenance import operations
from mlforge.maintenance.retention import Retention
from mlforge.maintenance.sampling import ALL
from mlforge.online import RedisStore
from mlforge.online.prefetch import ROOM, read_ahead
from mlforge.retrieval.labels import Ahead
from mlforge.store import LocalStore, ObjectStore, Store
from mlforge.store.local.packs import Packing
from mlforge.store.objects.objects import Objects
from tests.support import histories, kernels, oracle
from tests.support.agreement import TALLY, same, same_rows
from tests.support.histories import UNITS, Plan, Row, World
from tests.support.object_servers import BUCKET, Server, seaweed
from tests.support.objects import MemoryObjects
from tests.support.oracle import Cell
from tests.support.reader import READER, Reader
from tests.support.registry import Killed, Registry, die
from tests.support.scattered import Scattered
from tests.support.servers import started
from tests.support.trained import Trained
from tests.support.workers import eventually

OnlineClock = Literal["data", "wall"]
OTHER = {"polars": "duckdb", "duckdb": "polars"}
TWIN = "twin"
"""A feature of the same source and function, whose results are handed on."""
FILES = ("a.parquet", "b.parquet", "c.parquet", "deep/a.parquet", "deep/er/z.parquet")
DATA = st.data()
TINY_PACKS = Packing(small_rows=4, at_least=2, pack_rows=8, grace_s=0)
THEN = st.sampled_from(["build", "build online", "build online", "nothing yet"])


class DyingStore(RedisStore):
    """An online store whose process is killed before or after one of its operations."""

    dies: tuple[str, str] = ("", "")

    def _die(self, when: str, operation: str) -> None:
        if self.dies == (when, operation):
            raise Killed


def _dying(operation: str) -> Any:
    def call(self: DyingStore, *arguments: Any, **options: Any) -> Any:
        self._die("before", operation)
        answer = getattr(RedisStore, operation)(self, *arguments, **options)
        self._die("after", operation)
        return answer

    return call


PUBLISHING = (
    *(
        "file.synced",
        "partial.written",
        "pack.written",
        "books.written",
        "file_states.written",
        "stage.made",
    ),
    *("tiles.written", "parts.written", "parts.placed"),
    *("publish.staged", "publish.renamed", "publish.pointed", "publish.indexed"),
)
PACKING = ("nowhere", "file.synced", "pack.written", "pack.swept", "remove.hidden")
PUSHING = ("begin", "put", "remove", "remove_rows", "finish")
for _operation in PUSHING:
    setattr(DyingStore, _operation, _dying(_operation))


@functools.cache
def server_url(cluster: bool) -> str:
    """The URL of a real server that this process owns, or of the one node of a cluster."""
    server = started(config={"save": "", "cluster-enabled": "yes" if cluster else "no"})
    atexit.register(server.stop)
    if cluster:
        with redis.Redis(port=server.port) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            eventually(lambda: "cluster_state:ok" in str(admin.execute_command("CLUSTER", "INFO")))
    return f"redis://127.0.0.1:{server.port}/0"


@functools.cache
def server_of_buckets() -> Server:
    """A real server of S3 that this process owns."""
    held = ExitStack()
    atexit.register(held.close)
    return held.enter_context(seaweed(scratch()))


def a_bucket(place: str) -> tuple[str, Mapping[str, str] | None, Objects | None] | None:
    """An empty place in a bucket, with the options and the client that reach it; None for a folder."""
    if place == "folder":
        return None
    if place == "bucket in memory":
        return "s3://memory/store", None, MemoryObjects()
    return f"s3://{BUCKET}/{uuid.uuid4().hex}", server_of_buckets().options, None


def scratch() -> Path:
    """A new folder, in memory where there is such a place: nothing here tests the disk."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="mlforge-history-", dir=parent))


class Snapshot:
    """What a version was made of: the plan and the events of then."""

    def __init__(self, plan: Plan, events: oracle.Events) -> None:
        self.plan = plan
        self.feature = plan.oracle()
        self.events = events

    @property
    def columns(self) -> set[tuple[str, str]]:
        """The function's columns and the answers': versions compare both."""
        returned = {("returned", name) for name in self.plan.columns}
        return returned | {("answered", name) for name in self.feature.outputs}

    @property
    def settings(self) -> tuple[object, ...]:
        feature = self.feature
        derived = frozenset((column.name, column.text) for column in feature.derived)
        return (feature.interval, frozenset(feature.metrics), feature.online_clock, derived)


def expected_bump(old: Snapshot, new: Snapshot) -> str | None:
    """The version rules: what went, what came, what changed in code, configuration or data."""
    if old.columns - new.columns:
        return "major"
    code = old.plan.body != new.plan.body
    if new.columns - old.columns or code or old.settings != new.settings:
        return "minor"
    return "patch" if multiset(old) != multiset(new) else None


@dataclass(frozen=True)
class Asked:
    """A feature in a request: by its name, or by a service with a default of one column and a column that sees it.

    default: the column, its default as users write it, and as answers have it.
    """

    name: str
    named: Sequence[Any]
    outputs: Sequence[str]
    default: tuple[str, Any, Any] | None = None

    @property
    def features(self) -> Any:
        """The first argument of a request."""
        if self.default is None:
            return self.named
        column, written, _ = self.default
        derive = {"whole": f"not is_null({self.name}__{column})"}
        return Service("asked", self.named, derive=derive, defaults={column: written})

    @property
    def columns(self) -> list[str]:
        """The columns of an answer, without keys."""
        return [
            *(f"{self.name}__{name}" for name in self.outputs),
            *(["whole"] if self.default else []),
        ]

    def answer(
        self, cells: Mapping[str, Cell], defaults: Mapping[str, tuple[Any, Any]]
    ) -> dict[str, Cell]:
        """An answer of the values that are stored; defaults: the feature's."""
        fill = {name: meant for name, (_, meant) in defaults.items()}
        if self.default is not None:
            fill[self.default[0]] = self.default[2]
        answer = {
            f"{self.name}__{name}": Cell(fill.get(name)) if cell.value is None else cell
            for name, cell in cells.items()
        }
        return {**answer, "whole": Cell(True)} if self.default else answer


def multiset(snapshot: Snapshot) -> Counter[tuple[Any, ...]]:
    """The rows as a version keeps them: columns that are set aside are null in each."""
    aside = snapshot.plan.set_aside
    rows = ({n: v for n, v in row.items() if n not in aside} for row in snapshot.events.rows)
    return Counter(map(histories.cells, rows))


def signs_of_zero(*snapshots: Snapshot) -> bool:
    """Whether some row holds -0.0, which equals 0.0 and yet may count as an amended value."""
    return any(
        isinstance(v, float) and v == 0 and math.copysign(1, v) < 0
        for snapshot in snapshots
        for row in snapshot.events.rows
        for v in row.values()
    )


class Machine(Registry):
    """One history of one feature."""

    places: Sequence[str] = ("folder", "folder", "bucket in memory")

    def __init__(self) -> None:
        super().__init__()
        TALLY["histories"] += 1
        self.root = scratch()
        self.source = self.root / "in"
        self.source.mkdir()
        self.files: dict[str, list[Row]] = {}
        # By feature, the files that changed since it was refreshed.
        self.touched: dict[str, set[str]] = {}
        self.versions: dict[str, Snapshot] = {}
        self.served: dict[oracle.Entity, dict[str, Cell]] | None = None
        self.served_by: Snapshot | None = None
        self.rebuilds = 0
        self.unsure = False
        self.reader: Reader | None = None
        self.trained: Trained | None = None
        self.sets = itertools.count()
        self.processes = itertools.count()
        self.defaults: dict[str, tuple[Any, Any]] = {}
        self.served_defaults: dict[str, tuple[Any, Any]] = {}

    @initialize(data=DATA)
    def begin(self, data: st.DataObject) -> None:
        self.world: World = data.draw(histories.worlds(), label="world")
        timed: st.SearchStrategy[OnlineClock] = st.sampled_from(["data", "data", "wall"])
        self.online_clock: OnlineClock = data.draw(timed) if self.world.timed else "data"
        self.plan = data.draw(histories.plans(self.world, self.online_clock), label="plan")
        self.engine: str = data.draw(st.sampled_from(["polars", "duckdb"]), label="engine")
        self.kernels = ExitStack()
        self.kernels.enter_context(
            kernels.forced(
                general=data.draw(st.booleans(), label="general kernels"),
                points=data.draw(st.booleans(), label="windows point by point"),
                tiled=data.draw(st.booleans(), label="tiles"),
                indexed=data.draw(st.booleans(), label="an index of entities beside tiles"),
                events_at_once=data.draw(st.sampled_from([None, 3]), label="events at once"),
                small_pushes=True,
                small_files=True,
                lasting=data.draw(st.booleans(), label="what is resident lasts"),
            )
        )
        self.now = self.world.base + data.draw(st.integers(2, 9)) * UNITS[self.world.unit]
        self.on_cluster = data.draw(st.sampled_from([False, False, True]), label="on a cluster")
        self.client = redis.Redis.from_url(server_url(self.on_cluster))
        self.client.flushdb()
        self.ttl = data.draw(st.sampled_from([None, 7 * 86_400]), label="ttl")
        self.online_store = self.opened(data)
        self.place = data.draw(st.sampled_from(self.places), label="the store lies in")
        self.bucket = a_bucket(self.place)
        TALLY[f"histories in a {self.place}"] += 1
        self.store = self.reopened()
        self.room = data.draw(st.sampled_from([0, 12, ROOM]), label="values read ahead at most")
        self.chained = data.draw(
            st.sampled_from([False, False, False, True]), label="a feature reads it"
        )
        twins = st.sampled_from([None, None, "alike", "doubled"])
        self.twinned = data.draw(twins, label="another feature of its source comes first")
        self.by_service = data.draw(st.booleans(), label="asked for by a service")
        seeds = st.sampled_from([None, None, None, 1, 2])
        seed = data.draw(seeds, label="builds are shared")
        self.runner = None if seed is None else Scattered(seed)
        self.trains = data.draw(st.sampled_from([False, False, True]), label="training sets")
        self.labels = data.draw(histories.labels(self.world), label="labels")
        # Where builds are shared, two files, so that tasks may read them.
        for name in FILES[: 1 + bool(self.runner)]:
            self.write(name, data.draw(histories.rows(self.world), label=name))
        self.open()
        self.then(data.draw(st.sampled_from(["build", "build online"])), data)

    def reopened(self, machine: str | None = None) -> Store:
        """The store as another process has it: in a bucket, one of two machines, or another, each with a cache of its own."""
        if self.bucket is None:
            return LocalStore(self.root / "store", TINY_PACKS)
        cache = self.root / f"cache{machine or next(self.processes) % 2}"
        url, options, objects = self.bucket
        return ObjectStore(url, cache, options, TINY_PACKS, grace="1us", objects=objects)

    def opened(self, data: st.DataObject) -> DyingStore:
        """The online store, whichever layout its rows are to have from now on; those on a cluster have one."""
        url = server_url(self.on_cluster)
        if self.on_cluster:
            return DyingStore.from_url(url, ttl=self.ttl, cluster=True)
        layout = data.draw(st.sampled_from(["json", "packed"]), label="layout online")
        return DyingStore.from_url(url, ttl=self.ttl, layout=layout)

    def open(self) -> None:
        """Definitions as a fresh process would load them."""
        features = [self.plan.library("in/", self.name)]
        if self.twinned:
            is_other = self.twinned == "doubled" and self.plan.body != "with_y"
            plan = replace(self.plan, body="doubled") if is_other else self.plan
            features.insert(0, plan.library("in/", TWIN))
        if self.reader is not None and self.reader.plan == self.plan:
            features.append(self.reader.library(self.name))
        self.definitions = Definitions(
            store=self.store,
            features=features,
            online_store=self.online_store,
            engine=self.engine,
            root=self.root,
            hold_above=1.0,
            runner=self.runner or "local",
            distribute_above=0,
            fallback="local",
        )
        if self.runner is not None:
            self.runner.executors = [self.definitions.run_task]
            if self.bucket is not None:
                elsewhere = copy.copy(self.definitions)
                elsewhere.store = self.reopened("elsewhere")
                self.runner.executors.append(elsewhere.run_task)

    # -- drops

    def write(self, name: str, rows: list[Row]) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f"{path.name}.tmp")
        self.world.frame(rows).write_parquet(hidden)
        hidden.replace(path)
        self.files[name] = rows
        self.touch(name)
        note(f"{name}: {rows}")

    def unlink(self, name: str) -> None:
        (self.source / name).unlink()
        del self.files[name]
        self.touch(name)
        note(f"{name}: removed")

    def touch(self, *names: str) -> None:
        """Note files that a watcher would name."""
        for touched in self.touched.values():
            touched.update(names)

    def some_file(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.files)), label="file")

    def free_name(self, data: st.DataObject) -> str:
        free = [name for name in FILES if name not in self.files]
        return data.draw(st.sampled_from(free), label="new name")

    @rule(data=DATA, then=THEN)
    def drop(self, data: st.DataObject, then: str) -> None:
        """A new file, or another content for one: late, tied, null and future rows come along."""
        name = data.draw(st.sampled_from(FILES), label="file")
        self.write(name, data.draw(histories.rows(self.world), label="rows"))
        self.then(then, data)

    @precondition(lambda self: self.files)
    @rule(data=DATA, then=THEN, anew=st.booleans())
    def trickle(self, data: st.DataObject, then: str, anew: bool) -> None:
        """A row or two more: in a file of their own, or behind those of another."""
        known = [row for name in sorted(self.files) for row in self.files[name]]
        more = data.draw(histories.rows(self.world, known), label="rows")[:2]
        if anew and len(self.files) < len(FILES):
            self.write(self.free_name(data), more)
        else:
            name = self.some_file(data)
            self.write(name, [*self.files[name], *more])
        self.then(then, data)

    @precondition(lambda self: any(self.files.values()))
    @rule(data=DATA, then=THEN)
    def amend(self, data: st.DataObject, then: str) -> None:
        """One row of a file changes, goes, or comes twice."""
        name = data.draw(
            st.sampled_from(sorted(n for n, rows in self.files.items() if rows)), label="file"
        )
        rows = list(self.files[name])
        i = data.draw(st.integers(0, len(rows) - 1), label="row")
        how = data.draw(st.sampled_from(["change", "change", "remove", "repeat"]))
        if how == "change":
            donor = data.draw(histories.row(self.world), label="other")
            column = data.draw(st.sampled_from(self.world.names), label="column")
            rows[i] = {**rows[i], column: donor[column]}
        elif how == "remove":
            del rows[i]
        else:
            rows.append(rows[i])
        self.write(name, rows)
        self.then(then, data)

    @precondition(lambda self: self.files and len(self.files) < len(FILES))
    @rule(data=DATA, then=THEN)
    def rename(self, data: st.DataObject, then: str) -> None:
        old, new = self.some_file(data), self.free_name(data)
        (self.source / new).parent.mkdir(parents=True, exist_ok=True)
        (self.source / old).rename(self.source / new)
        self.files[new] = self.files.pop(old)
        self.touch(old, new)
        note(f"{old}: renamed to {new}")
        self.then(then, data)

    @precondition(lambda self: self.files and len(self.files) < len(FILES))
    @rule(data=DATA, then=THEN)
    def repeat(self, data: st.DataObject, then: str) -> None:
        """Two files of equal content count twice."""
        old, new = self.some_file(data), self.free_name(data)
        (self.source / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.source / old, self.source / new)
        self.files[new] = self.files[old]
        self.touch(new)
        note(f"{old}: copied to {new}")
        self.then(then, data)

    @precondition(lambda self: self.files and self.versions)
    @rule(data=DATA, then=THEN)
    def remove(self, data: st.DataObject, then: str) -> None:
        self.unlink(self.some_file(data))
        self.then(then, data)

    @precondition(lambda self: len(self.files) > 1)
    @rule(data=DATA, then=THEN)
    def compact(self, data: st.DataObject, then: str) -> None:
        """All files into one."""
        name = self.some_file(data)
        rows = [row for each in sorted(self.files) for row in self.files[each]]
        for other in [other for other in self.files if other != name]:
            self.unlink(other)
        self.write(name, data.draw(st.permutations(rows), label="order"))
        self.then(then, data)

    # -- time, definitions, engines, servers

    @rule(data=DATA, steps=st.integers(1, 8), then=THEN)
    def wait(self, data: st.DataObject, steps: int, then: str) -> None:
        unit = UNITS[self.world.unit]
        beside = data.draw(st.sampled_from([0, 1, unit // 2]))
        self.now += steps * unit + beside
        note(f"now: {self.now}")
        self.then(then, data)

    @rule(data=DATA, then=THEN)
    def redefine(self, data: st.DataObject, then: str) -> None:
        """Other metrics, another shape, or another function."""
        plan = data.draw(histories.plans(self.world, self.online_clock), label="plan")
        part = data.draw(
            st.sampled_from(["all", "body", "metrics", "derived columns", "defaults"]), label="part"
        )
        old = self.plan
        if part == "body":
            plan = replace(old, body=plan.body)
        elif part == "metrics":
            plan = replace(old, rolls=plan.rolls, interval=plan.interval)
        elif part == "derived columns":
            plan = replace(old, derive=plan.derive)
        elif part == "defaults":
            plan = replace(old, defaults=plan.defaults)
        self.plan = plan
        note(f"plan: {plan}")
        self.open()
        self.then(then, data)

    @rule(data=DATA, then=THEN)
    def restart(self, data: st.DataObject, then: str) -> None:
        """A new process, perhaps with the other engine, perhaps with rows in the other layout online."""
        self.engine = data.draw(st.sampled_from(["polars", "duckdb"]), label="engine")
        self.online_store = self.opened(data)
        self.store = self.reopened()
        self.open()
        self.then(then, data)

    @precondition(lambda self: self.served is not None)
    @rule(data=DATA, then=THEN)
    def flush(self, data: st.DataObject, then: str) -> None:
        """The online store loses everything."""
        self.client.flushdb()
        self.online_of = {}
        self.served = None
        self.unsure = False
        note("flushed")
        self.then(then, data)

    @precondition(lambda self: self.served is not None and self.versions)
    @rule(data=DATA, steps=st.integers(0, 4))
    def restore_an_old_copy(self, data: st.DataObject, steps: int) -> None:
        """The online store goes back to what it was before a build and a push."""
        copy = {
            key: (max(self.client.pttl(key), 0), self.client.dump(key))
            for key in self.client.scan_iter("*")
        }
        self.now += steps * UNITS[self.world.unit]
        note(f"a copy is made; now: {self.now}")
        name = data.draw(st.sampled_from(FILES), label="file")
        self.write(name, data.draw(histories.rows(self.world), label="rows"))
        self.then("build online", data)
        self.client.flushdb()
        for key, (life, content) in copy.items():
            self.client.restore(key, life, content or b"")
        note("the copy is restored")
        self.push()

    @precondition(lambda self: self.versions)
    @rule(
        data=DATA,
        when=st.sampled_from(["before", "after"]),
        operation=st.sampled_from(PUSHING),
        steps=st.integers(0, 3),
    )
    def push_and_be_killed(
        self, data: st.DataObject, when: str, operation: str, steps: int
    ) -> None:
        """What an unfinished push left is put right by the next one, whatever its target."""
        self.now += steps * UNITS[self.world.unit]
        self.online_store.dies = (when, operation)
        note(f"push at {self.now}, killed {when} {operation}")
        with suppress(Killed), clock.fixed(self.now):
            self.definitions.push(self.name)
        self.online_store.dies = ("", "")
        self.unsure = True
        if data.draw(st.booleans(), label="push again at once"):
            self.push()

    @precondition(lambda self: self.versions)
    @rule(data=DATA, operation=st.sampled_from(PUSHING[1:]))
    def push_be_killed_and_undo(self, data: st.DataObject, operation: str) -> None:
        """Rows that an unfinished push wrote differ from a target that looks like the one before."""
        name = data.draw(st.sampled_from(FILES), label="file")
        before = self.files.get(name)
        self.write(name, data.draw(histories.rows(self.world), label="rows"))
        self.build(data, online=False)
        self.online_store.dies = ("after", operation)
        note(f"push, killed after {operation}")
        with suppress(Killed), clock.fixed(self.now):
            self.definitions.push(self.name)
        self.online_store.dies = ("", "")
        self.unsure = True
        if before is None:
            self.unlink(name)
        else:
            self.write(name, before)
        self.build(data, online=True)

    @rule(data=DATA, place=st.sampled_from(PUBLISHING), reached=st.integers(1, 3))
    def build_and_be_killed(self, data: st.DataObject, place: str, reached: int) -> None:
        """The last version is served, and the next build succeeds."""
        try:
            snapshot = Snapshot(self.plan, self.events())
        except oracle.Refused:
            return
        if self.unknowable():
            return
        before = self.store.list_versions(self.name) if self.versions else []
        note(f"build, killed at {place}, reached {reached} times")
        passes = itertools.count(1)
        failpoints.arm(place, lambda: die() if next(passes) == reached else None)
        try:
            with suppress(Killed), clock.fixed(self.now):
                options = Options(cost_share=99, layout=Layout(2), paths=self.named(self.name))
                self.definitions.refresh(self.name, options=options)
        finally:
            failpoints.disarm()
        self.store = self.reopened()
        self.open()
        if before:
            _as_stored(self.versions[before[-1]], self.store.read(self.name, before[-1]))
        after = [str(version) for version in self.store.versions(self.name)]
        assert after[: len(before)] == before
        for version in after[len(before) :]:
            self.versions[version] = snapshot
        self.build(data, online=data.draw(st.booleans(), label="online"))

    @precondition(lambda self: self.versions)
    @rule(data=DATA, place=st.sampled_from(PACKING), keep_all=st.booleans())
    def tidy(self, data: st.DataObject, place: str, keep_all: bool) -> None:
        """Partials are packed, or pruned and packs written anew, perhaps only half; nothing reads otherwise."""
        passes, reached = itertools.count(1), data.draw(st.integers(1, 3), label="killed at pass")
        note(f"tidy, killed at {place}, reached {reached} times; all versions stay: {keep_all}")
        failpoints.arm(place, lambda: die() if next(passes) == reached else None)
        try:
            with suppress(Killed):
                if keep_all:
                    operations.tidy(self.store, self.name)
                else:
                    operations.prune(self.store, [self.name], Retention(newest=1))
                    operations.tidy(self.store, self.name)
        finally:
            failpoints.disarm()
        TALLY["tidyings"] += 1
        self.store = self.reopened()
        self.open()
        left = self.store.list_versions(self.name)
        assert left == list(self.versions) if keep_all else left[-1] == self.latest()
        self.versions = {version: self.versions[version] for version in left}
        assert operations.verify(self.store, [self.name]) == []
        self.judge_offline(data)
        self.judge_online()

    # -- what is judged

    def then(self, step: str, data: st.DataObject) -> None:
        if step != "nothing yet":
            self.build(data, online=step == "build online")

    @precondition(lambda self: self.versions)
    @rule()
    def push(self) -> None:
        version = self.latest()
        snapshot = self.versions[version]
        with clock.fixed(self.now), shared_results() as shared:
            if TWIN in self.names and TWIN in self.store.features():
                self.definitions.push(TWIN)
            result = self.definitions.push(self.name)
        TALLY["results handed on"] += shared.handed_on
        note(f"push: {result}")
        TALLY["pushes"] += 1
        assert result.version == version
        assert result.as_of == oracle.as_of(snapshot.feature, snapshot.events, self.now)
        self.is_served(snapshot)
        with clock.fixed(self.now):
            again = self.definitions.push(self.name)
        assert (again.written, again.deleted) == (0, 0), "the same push again wrote"

    @rule(data=DATA, online=st.booleans(), full=st.sampled_from([False, False, False, True]))
    def build_again(self, data: st.DataObject, online: bool, full: bool) -> None:
        self.build(data, online=online, full=full)

    def build(self, data: st.DataObject, *, online: bool, full: bool = False) -> None:
        """Build, and judge rows, versions, training and, when asked for, the online store."""
        if self.unknowable():
            return
        before = self.store.list_versions(self.name) if self.versions else []
        if self.versions and self.room and data.draw(st.booleans(), label="after reading ahead"):
            for name in {*self.names} & {*self.store.features()}:
                read_ahead(self.store, self.store.read_metadata(name), self.room)
        override = data.draw(st.sampled_from([None, None, None, "polars", "duckdb"]))
        parts = data.draw(st.sampled_from([None, 1, 2, 5]), label="rows a part holds")
        cuts = data.draw(st.sampled_from([None, 1, 3]), label="rows evaluated at once")
        size = data.draw(
            st.sampled_from([1, 1, 2_500, 1 << 20]), label="bytes of files a task reads"
        )
        layout = Layout(parts or 1, cuts)
        options = Options(cost_share=99, layout=layout, group_bytes=size) if parts else None
        note(
            f"build: online={online} full={full} engine={override or self.engine} {parts=} {cuts=}"
        )
        TALLY["builds"] += 1
        try:
            snapshot = Snapshot(self.plan, self.events())
        except oracle.Refused:
            with pytest.raises(BuildError) as failed, clock.fixed(self.now):
                self.definitions.build(full=full, engine=override)
            assert isinstance(failed.value.failures[self.name], DataError)
            assert not self.versions or self.store.list_versions(self.name) == before
            TALLY["refusals"] += 1
            return
        with clock.fixed(self.now), shared_results() as shared:
            if options is None:
                self.touched.clear()
                result = self.built(online=online, full=full, engine=override)
            else:  # small parts, and never a full rebuild for being cheaper
                for name in self.names:
                    # A sum of doubled values may not fit where that of the values does.
                    with suppress(DataError) if name == TWIN else nullcontext():
                        told = replace(options, paths=self.named(name))
                        TALLY["refreshes that are told which files changed"] += bool(told.paths)
                        self.touched.pop(name, None)
                        result = self.definitions.refresh(
                            name, full=full, engine=override, options=told
                        )
                        self.touched[name] = set()
                        if online:
                            self.definitions.push(name, engine=override, diff=result.diff)
        TALLY["results handed on"] += shared.handed_on
        TALLY["refreshes that gather for a push"] += bool(result.diff and result.diff.gathered)
        TALLY[f"{result.mode} refreshes"] += 1
        TALLY["builds whose files tasks read"] += self.was_ingested_by_tasks()
        TALLY["builds in buckets of entities"] += any(task.buckets > 1 for task in result.tasks)
        TALLY["files that have tiles"] += len(list(self.root.glob("store/*/_tiles/*")))
        note(f"built: {result}")
        self.judge_version(before, snapshot, result)
        self.versions[self.latest()] = snapshot
        self.defaults = self.plan.filled
        if online:
            self.is_served(snapshot)
        else:
            self.judge_online()
        self.judge_locks()
        if result.changed:
            self.judge_offline(data)
            self.judge_rebuild(snapshot, override or self.engine)
            is_full = result.mode == "full" and options is not None and self.files
            if self.runner is not None and is_full:
                self.judge_bytes(options, override)
        if online:
            self.judge_audit()
        if self.chained:
            self.judge_reader(online, options)

    def named(self, name: str) -> frozenset[str] | None:
        """The files that a feature's refresh is told of; None after one that did not get through."""
        return frozenset(self.touched[name]) if name in self.touched else None

    @property
    def names(self) -> list[str]:
        """The feature, behind the one whose results are handed on to it."""
        return [TWIN, self.name] if self.twinned else [self.name]

    def built(self, **options: Any) -> BuildResult:
        """Build all features; the result of the one that is judged."""
        try:
            return self.definitions.build(**options)[self.name]
        except BuildError as failed:
            if [*failed.failures] != [TWIN] or not isinstance(failed.failures[TWIN], DataError):
                raise
            return failed.results[self.name]

    def was_ingested_by_tasks(self) -> bool:
        """Whether tasks have read files since the last time."""
        if self.runner is None or not self.runner.intakes:
            return False
        self.runner.intakes.clear()
        return True

    def judge_bytes(self, options: Options, engine: str | None) -> None:
        """A build by one process writes the very bytes that the tasks wrote, wherever these ran."""
        shared = self.store.read_metadata(self.name)
        self.runner, runner, store = None, self.runner, self.store
        self.store = LocalStore(self.root / f"alone{self.rebuilds}", TINY_PACKS)
        if self.forgotten:
            self.store.write_forgotten(store.forgotten())
        try:
            self.open()
            with clock.fixed(self.now):
                alone = self.definitions.refresh(self.name, engine=engine, options=options).manifest
        finally:
            self.runner, self.store = runner, store
            self.open()
        assert alone is not None
        assert alone.content_hash == shared.content_hash
        assert _digests(alone) == _digests(shared)
        TALLY["builds by tasks"] += 1

    def judge_reader(self, online: bool, options: Options | None) -> None:
        """A feature that is made from this one follows what it serves, also from before to behind a redefinition."""
        table = self.store.read(self.name)
        if self.reader is None or self.reader.plan != self.plan:
            self.reader = Reader.of(self.plan, table)
            self.open()
        with clock.fixed(self.now):
            if table.is_empty():  # no column of it need have a dtype
                return
            result = self.definitions.refresh(READER, options=options)
            TALLY["refreshes of a feature on a feature"] += 1
            feature, events = self.reader.oracle(table), self.reader.events(table)
            same_rows(feature, events, self.store.read(READER))
            assert result.quarantined == ()
            assert not self.definitions.refresh(READER).changed
            if online:
                self.definitions.push(READER)
                self.judge_served(feature, events)
                assert self.definitions.audit(READER, ALL).first == ()

    def judge_served(self, feature: oracle.Feature, events: oracle.Events) -> None:
        """Rows of the reader online are the oracle's."""
        served = oracle.online(feature, events, self.now)
        for entity, cells in served.items():
            keys = dict(zip(feature.keys, entity, strict=True))
            [row] = get_online_features([READER], [keys], self.online_store)
            for name, cell in cells.items():
                same(f"reader online {entity} {name}", cell, row[f"{READER}__{name}"])

    def judge_audit(self) -> None:
        """An audit of an honest store finds nothing wrong, and proves all of it while there are files."""
        with clock.fixed(self.now):
            found = self.definitions.audit(self.name, ALL)
        assert found.first == ()
        assert (found.gone, found.unproven) == ((), 0) or not self.files
        assert found.skipped == ()
        TALLY["audited values"] += found.values

    def unknowable(self) -> bool:
        """Without a file nobody can say which columns another function would return."""
        if self.files:
            return False
        return not self.versions or self.versions[self.latest()].plan.body != self.plan.body

    def latest(self) -> str:
        return self.store.list_versions(self.name)[-1]

    def judge_version(self, before: list[str], snapshot: Snapshot, result: Any) -> None:
        after = self.store.list_versions(self.name)
        if not before:
            assert after == ["1.0.0"], "a first version is 1.0.0"
            assert result.changed
            return
        old = self.versions[before[-1]]
        if old.settings == snapshot.settings and old.plan.rolls != snapshot.plan.rolls:
            return  # the same metrics told in another order
        bump = expected_bump(old, snapshot)
        if bump in (None, "patch") and signs_of_zero(old, snapshot):
            return
        if self.world.untyped:  # a dtype that comes or goes with the data is a change of schema
            assert bump is None or result.changed
            return
        assert (result.bump, result.changed) == (bump, bump is not None)
        major, minor, patch = map(int, before[-1].split("."))
        grown = {
            "major": [f"{major + 1}.0.0"],
            "minor": [f"{major}.{minor + 1}.0"],
            "patch": [f"{major}.{minor}.{patch + 1}"],
            None: [],
        }
        assert after == before + grown[bump]

    def judge_offline(self, data: st.DataObject) -> None:
        """Stored rows of the latest version; training at it and at some version before."""
        latest = self.latest()
        now_stored = self.versions[latest]
        _as_stored(now_stored, self.store.read(self.name))
        assert self.store.books(self.name).defaults.keys() == self.defaults.keys()
        points = data.draw(histories.spines(self.world), label="spine")
        for version in dict.fromkeys([latest, data.draw(st.sampled_from(list(self.versions)))]):
            snapshot = self.versions[version]
            asked = self.asked(snapshot.feature, None if version == latest else version)
            spine = self.world.spine(points)
            labels = self.aheads if version == latest else {}
            got = get_training_data(
                spine, asked.features, store=self.store, timestamp="at", labels=labels
            )
            assert got.columns == [*spine.columns, *asked.columns, *labels]
            assert got.select(spine.columns).equals(spine), "the spine came back otherwise"
            want = oracle.training(snapshot.feature, snapshot.events, points)
            for point, cells, row in zip(points, want, got.iter_rows(named=True), strict=True):
                for name, cell in asked.answer(cells, self.defaults).items():
                    same(f"training {version} {point} {name}", cell, row[name])
            if labels:
                self.judge_labels(points, got)
        if self.trains:
            self.judge_radius(data, points)

    @property
    def aheads(self) -> dict[str, Ahead]:
        """The labels as users write them."""
        unit = self.world.unit
        return {
            f"ahead{i}": ahead(
                self.name,
                label.column,
                label.aggregation,
                f"{label.horizon // UNITS[unit]}{unit}",
                label.where,
            )
            for i, label in enumerate(self.labels)
        }

    @property
    def mark(self) -> int | None:
        """The instant up to which horizons are over by the latest version."""
        snapshot = self.versions[self.latest()]
        created = self.store.read_metadata(self.name).created_at
        return oracle.watermark(snapshot.feature, snapshot.events, created)

    def judge_labels(self, points: Sequence[tuple[oracle.Entity, int]], got: pl.DataFrame) -> None:
        """Labels of the latest version are the oracle's, null where their horizon is open."""
        snapshot, mark = self.versions[self.latest()], self.mark
        for i, label in enumerate(self.labels):
            for point, value in zip(points, got[f"ahead{i}"].to_list(), strict=True):
                cell = oracle.ahead(snapshot.feature, snapshot.events, label, *point, mark)
                same(f"{label} at {point}", cell, value)
                TALLY["labels"] += 1

    def judge_radius(
        self, data: st.DataObject, points: Sequence[tuple[oracle.Entity, int]]
    ) -> None:
        """The blast radius of a set that was made some versions ago; then perhaps another set is made."""
        if self.trained is not None:
            self.trained.judge(self.store)
            if data.draw(st.booleans(), label="the training set is kept"):
                return
            self.trained.made.release(self.store)
        asked = self.asked(self.versions[self.latest()].feature)
        out, spine, labels = (
            self.root / f"set{next(self.sets)}",
            self.world.spine(points),
            self.aheads,
        )
        self.trained = Trained.of(spine, asked.features, labels, self.store, self.engine, out)
        if labels:
            self.judge_labels(points, self.trained.made.read())
        for label, used in zip(self.labels, self.trained.made.document.labels, strict=True):
            unknown = sum(oracle.is_open(label, t, self.mark) for _, t in points)
            assert used.unknown == unknown, f"{label} is null {used.unknown} times"

    def asked(self, feature: oracle.Feature, version: str | None = None) -> Asked:
        """The feature as it is asked for, by a service with a default of its own where the history does so."""
        named = self.name if version is None else (self.name, version)
        if not self.by_service:
            return Asked(self.name, [named], feature.outputs)
        own = replace(self.plan, defaults=9).filled
        column = next((name for name in own if name in feature.outputs), None)
        return Asked(
            self.name, [named], feature.outputs, (column, *own[column]) if column else None
        )

    def judge_rebuild(self, snapshot: Snapshot, engine: str) -> None:
        """A rebuild from nothing, in the other engine, means the same."""
        if not self.files:
            return
        self.rebuilds += 1
        store = LocalStore(self.root / f"rebuilt{self.rebuilds}")
        if self.forgotten:
            store.write_forgotten(self.store.forgotten())
        definitions = Definitions(
            store=store,
            features=[self.plan.library("in/", self.name)],
            engine=OTHER[engine],
            root=self.root,
        )
        with clock.fixed(self.now):
            definitions.build(full=True)
        definitions.close()
        _as_stored(snapshot, store.read(self.name))
        hashes = [s.read_metadata(self.name).rows_hash for s in (self.store, store)]
        assert hashes[0] == hashes[1], "rows_hash differs from that of a rebuild"

    def is_served(self, snapshot: Snapshot) -> None:
        self.served = oracle.online(snapshot.feature, snapshot.events, self.now)
        self.served_by = snapshot
        self.served_defaults = self.defaults
        self.unsure = False
        self.judge_online()

    def judge_online(self) -> None:
        """Every entity answers what was pushed, and there is a key for each that lives."""
        if self.unsure:
            return
        entities = self.world.entities
        names = [name for name, _ in self.world.keys]
        each = [dict(zip(names, entity, strict=True)) for entity in entities]
        if self.served is None or self.served_by is None:
            with pytest.raises(NotServed):
                get_online_features(features=[self.name], entities=each, store=self.online_store)
            return
        feature = self.served_by.feature
        asked = self.asked(feature)
        answers = get_online_features(asked.features, each, self.online_store, at=self.now)
        empty = oracle.value(feature, oracle.Events(()), (), 0)
        for entity, keys, row in zip(entities, each, answers, strict=True):
            plain = self.served.get(entity, empty)
            cells = oracle.with_derived(feature, plain, self.now)
            assert list(row) == [*names, *asked.columns]
            assert {name: row[name] for name in names} == keys
            for name, cell in asked.answer(cells, self.served_defaults).items():
                same(f"online {entity} {name}", cell, row[name])
        books = f"mlforge:{{{self.name}:*}}" if self.on_cluster else f"mlforge:{self.name}"
        json_rows = sum(1 for _ in self.client.scan_iter(f"{books}:" + "?" * 64))
        packed_rows = sum(map(self.client.hlen, self.client.scan_iter(f"mlforge:{self.name}:~?*")))
        assert json_rows + packed_rows == len(self.served), f"{sorted(self.client.scan_iter('*'))}"
        lives = [self.client.ttl(key) for key in self.client.scan_iter(f"{books}:*")]
        assert all(life == -1 if self.ttl is None else life > 0 for life in lives)

    def teardown(self) -> None:
        if hasattr(self, "definitions"):
            self.definitions.close()
        if hasattr(self, "client"):
            self.client.close()
        if hasattr(self, "kernels"):
            self.kernels.close()
        shutil.rmtree(self.root, ignore_errors=True)


def _digests(manifest: Manifest) -> list[int]:
    """Those of the events of a version's files."""
    return sorted(partial.digest for partial in manifest.partials)


def _as_stored(snapshot: Snapshot, got: pl.DataFrame) -> None:
    same_rows(snapshot.feature, snapshot.events, got)

"""The part of the state machine that locks, renames and forgets: each beside plain Python.

A lock is a meaning for each column, told from the plan; a name is a text; who is forgotten has no row in any file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from mlforge import Definitions, Service
from mlforge.core import clock, failpoints
from mlforge.errors import FeatureNotFound
from mlforge.registry.forgetting import entities_of, forget
from mlforge.registry.locks import lock_changes
from mlforge.store import Store
from tests.support import oracle
from tests.support.agreement import TALLY
from tests.support.histories import KEYS, NAME, Plan, Row, World

DATA = st.data()
MODEL = "model"
NAMES = (NAME, "other", "f2")
RENAMING = ("nowhere", "rename.noted", "rename.made_room", "rename.moved", "rename.settled")
FORGETTING = ("nowhere", "forgotten.written", "publish.renamed", "forget.rewritten", "forget.removed",
              "partials.scrubbed", "scrub.deleted")  # fmt: skip
Defaults = Mapping[str, tuple[Any, Any]]


class Killed(BaseException):
    """Stands for a process that ends there."""


def die() -> None:
    raise Killed


def meanings(plan: Plan, defaults: Defaults) -> dict[str, tuple[object, ...]]:
    """All that decides the values of each column, whatever rows there are."""
    feature, own = plan.oracle(), dict[str, object]()
    head = (plan.body, tuple(sorted(feature.keys)), feature.interval)
    for metric in feature.metrics:
        own[metric.name] = metric
    for name in feature.plain_outputs:
        own.setdefault(name, name)
    for column in feature.derived:
        reads = [own.get(word) for word in re.findall(r"\w+", column.text)]
        own[column.name] = (column.text, tuple(map(repr, reads)))
    return {
        name: (head, own[name], defaults[name][0] if name in defaults else None)
        for name in feature.outputs
    }


def text_of(value: Any) -> str:
    """A key's value as `mlforge forget` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else str(value)


class Registry(RuleBasedStateMachine):
    """A history of one feature, which has a name, a lock and forgotten entities."""

    world: World
    plan: Plan
    now: int
    engine: str
    root: Path
    files: dict[str, list[Row]]
    versions: dict[str, Any]
    store: Store
    reopened: Callable[[], Store]
    definitions: Definitions
    defaults: dict[str, tuple[Any, Any]]
    served: Any
    served_by: Any
    served_defaults: Any
    unsure: bool
    open: Callable[[], None]
    latest: Callable[[], str]
    unknowable: Callable[[], bool]
    build: Callable[..., None]
    judge_version: Callable[..., None]
    judge_offline: Callable[[st.DataObject], None]
    judge_online: Callable[[], None]
    is_served: Callable[[Any], None]
    then: Callable[[str, st.DataObject], None]
    redefine: Callable[[st.DataObject, str], None]

    def __init__(self) -> None:
        super().__init__()
        self.name = NAME
        self.online_of: dict[str, tuple[Any, ...]] = {}
        self.locked: dict[str, tuple[object, ...]] | None = None
        self.forgotten: set[tuple[str, Any]] = set()
        self.trained: Any = None

    def events(self) -> oracle.Events:
        """The events of the files as they are, without those of whom is forgotten."""
        return self.plan.events(
            {name: [row for row in rows if self.counts(row)] for name, rows in self.files.items()}
        )

    def counts(self, row: Row) -> bool:
        """Whether nothing in a row is forgotten."""
        return not any((name, row.get(name)) in self.forgotten for name, _ in self.world.keys)

    # -- locks

    def register_a_lock(self) -> None:
        """A model is made of all columns, as they are served."""
        lock = Service("locked", [self.name]).lock(self.store)
        self.store.register_lock(MODEL, replace(lock, service=""))
        self.locked = meanings(self.versions[self.latest()].plan, self.defaults)
        note(f"a lock of {sorted(self.locked)}")
        TALLY["locks"] += 1
        self.judge_locks()

    def broken(self, plan: Plan, defaults: Defaults) -> set[str]:
        """The locked columns that a plan does not give, or not with their meaning."""
        now = meanings(plan, defaults)
        return {name for name, meaning in (self.locked or {}).items() if now.get(name) != meaning}

    def judge_locks(self) -> None:
        """The store says of the lock what the plan of the served version says."""
        if self.locked is None:
            return
        lock = self.store.locks()[MODEL]
        columns = {change.column: change for change in lock_changes(self.store, lock)}
        served = self.versions[self.latest()].plan
        prefix = lock.columns[0].name.removesuffix(lock.columns[0].parts["name"])
        expected = {f"{prefix}{name}" for name in self.broken(served, self.defaults)}
        assert set(columns) == expected, columns

    @precondition(lambda self: self.versions and not self.world.untyped)
    @rule(data=DATA, again=st.booleans(), redefined=st.booleans())
    def lock_and_refresh_unattended(
        self, data: st.DataObject, again: bool, redefined: bool
    ) -> None:
        """A worker holds what would break the lock of a model, and nothing else; a build goes on."""
        if again or self.locked is None:
            self.register_a_lock()
        if redefined:
            self.redefine(data, "nothing yet")
        try:
            snapshot = type(self.versions[self.latest()])(self.plan, self.events())
        except oracle.Refused:
            return
        if self.unknowable():
            return
        before = self.store.list_versions(self.name)
        served = self.versions[before[-1]].plan
        broken = self.broken(self.plan, self.plan.filled) - self.broken(served, self.defaults)
        with clock.fixed(self.now):
            result = self.definitions.refresh(self.name, attended=False)
        hold = self.store.books(self.name).hold
        note(f"refreshed without a person: {result}; held: {hold}")
        if broken:
            assert self.store.list_versions(self.name) == before
            assert hold is not None
            assert f"model {MODEL}" in hold
            TALLY["holds for a lock"] += 1
        else:
            assert hold is None
            self.judge_version(before, snapshot, result)
            self.versions[self.latest()] = snapshot
            self.defaults = self.plan.filled
        self.judge_locks()
        self.build(data, online=data.draw(st.booleans(), label="online"))
        assert self.store.books(self.name).hold is None

    # -- names

    @precondition(lambda self: self.versions)
    @rule(
        data=DATA,
        place=st.sampled_from(RENAMING),
        then=st.sampled_from(["build", "build online", "nothing yet"]),
    )
    def rename_the_feature(self, data: st.DataObject, place: str, then: str) -> None:
        """All goes on under another name, perhaps one that it had before."""
        old = self.name
        new = data.draw(st.sampled_from([n for n in NAMES if n != old]), label="name")
        note(f"{old} is renamed to {new}, killed at {place}")
        failpoints.arm(place, die)
        try:
            with suppress(Killed):
                self.store.rename(old, new)
        finally:
            failpoints.disarm()
        self.store = self.reopened()
        self.store.rename(old, new)
        TALLY["renames"] += 1
        with pytest.raises(FeatureNotFound, match=f"{old} was renamed to {new}"):
            self.store.read(old)
        self.online_of[old] = (self.served, self.served_by, self.served_defaults, self.unsure)
        state = self.online_of.pop(new, (None, None, {}, False))
        self.served, self.served_by, self.served_defaults, self.unsure = state
        self.name, self.trained = new, None  # a set is made again by the name that it was made by
        self.open()
        assert self.store.list_versions(new) == list(self.versions)
        self.judge_offline(data)
        self.judge_online()
        self.judge_locks()
        self.then(then, data)

    # -- forgetting

    @precondition(lambda self: self.versions and self.world.keys)
    @rule(data=DATA, place=st.sampled_from(FORGETTING), online=st.booleans())
    def forget_an_entity(self, data: st.DataObject, place: str, online: bool) -> None:
        """Nobody finds a row of it any more, in any version, whatever the files hold."""
        key, kind = data.draw(st.sampled_from(self.world.keys), label="key")
        values = [value for value in KEYS[kind][1] if value != ""]
        value = data.draw(st.sampled_from(values), label="value")
        entities = entities_of(self.store, [f"{key}={text_of(value)}"])
        note(f"{key}={value!r} is forgotten, killed at {place}")
        failpoints.arm(place, die)
        try:
            with suppress(Killed), clock.fixed(self.now):
                forget(self.definitions, entities)
        finally:
            failpoints.disarm()
        self.store = self.reopened()
        self.open()
        with clock.fixed(self.now):
            outcome = forget(self.definitions, entities)
        assert outcome.failures == {}
        TALLY["entities forgotten"] += 1
        self.forgotten.add((key, value))
        served = list(self.versions.values())[-1]
        kept = [row for row in served.events.rows if self.counts(row)]
        if len(kept) < len(served.events.rows):
            events = replace(served.events, rows=tuple(kept))
            self.versions[self.latest()] = type(served)(served.plan, events)
        self.trained = None  # versions that it was made of may have gone
        self.versions = {
            version: snapshot
            for version, snapshot in self.versions.items()
            if all(map(self.counts, snapshot.events.rows))
        }
        assert self.store.list_versions(self.name) == list(self.versions)
        self.is_served(self.versions[self.latest()])  # forgetting pushes what is left
        self.judge_offline(data)
        self.judge_locks()
        self.build(data, online=True)

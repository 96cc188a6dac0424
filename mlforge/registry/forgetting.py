"""`mlforge forget`: the rows of an entity leave every feature of a store, and the online store."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points

from mlforge.core.forgotten import Entity, Forgotten
from mlforge.core.manifest import Manifest
from mlforge.core.schema import FLOATS, INTEGERS
from mlforge.core.values import FEATURE
from mlforge.definitions.building import engine_of
from mlforge.definitions.registry import Definitions
from mlforge.errors import (
    DefinitionError,
    MlforgeError,
    OwnedElsewhere,
    did_you_mean,
    near_names,
)
from mlforge.frames.forgotten import could_hold
from mlforge.maintenance.forgetting import (
    Scrubbed,
    are_read_together,
    files_with_forgotten_rows,
    publish_without,
    scrub,
)
from mlforge.online import OnlineStore
from mlforge.online.opening import online_store_at
from mlforge.online.push import owner_of, push
from mlforge.registry.project import known_features, may_be_there
from mlforge.store import Store

_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Forgot:
    """The outcome of forgetting for a feature.

    version, rows: of the version that was published without its rows, None and 0 where there was none. files: those of the
    source that hold rows of forgotten entities still, which are left out. together: whether the function reads several files
    at once, so that any of them may be the one.
    """

    feature: str
    version: str | None
    rows: int
    scrubbed: Scrubbed
    online: int
    source: str
    files: tuple[str, ...]
    together: bool = False


@dataclass(slots=True)
class Outcome:
    """Outcomes and failures by feature; a failure of one feature does not stop the others.

    left: sentences on what servers may hold still in files of their own.
    """

    features: dict[str, Forgot] = field(default_factory=dict)
    failures: dict[str, MlforgeError] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def entities_of(store: Store, texts: Sequence[str]) -> list[Entity]:
    """The entities of texts such as `user_id=7`. DefinitionError for one that no feature of the store could hold."""
    columns = _columns(store)
    return [_entity(text, columns) for text in texts]


def forget(definitions: Definitions, entities: Sequence[Entity], url: str | None = None) -> Outcome:
    """Have the store remember that entities are forgotten, then delete their rows from each feature in turn.

    It may be repeated, also after a kill in its midst: what is done already is not done again. Features of features are
    refreshed behind those that they are made from. url: the server whose event log may name them, None for none.
    """
    store = definitions.store
    store.establish()
    before = store.forgotten() or Forgotten(salt=secrets.token_hex(_SALT_BYTES))
    now = before.with_entities(entities).begun(store.features())
    store.write_forgotten(now)  # of none, too: a killed process may not have told every feature
    outcome, names = Outcome(), _in_order(definitions)
    published: dict[str, tuple[str | None, int, int]] = {}
    for name in names:
        try:
            published[name] = _published(definitions, name)
        except MlforgeError as error:
            outcome.failures[name] = error
    for name in names:
        try:
            scrubbed = scrub(store, name, entities)
            exports = tuple(filter(may_be_there, scrubbed.exports))
            scrubbed = replace(scrubbed, exports=exports)
            served = store.latest(name)
            files = files_with_forgotten_rows(served) if served else []
            version, rows, online = published.get(name, (None, 0, 0))
            source = served.source if served else ""
            together = served is not None and are_read_together(served)
            outcome.features[name] = Forgot(
                name, version, rows, scrubbed, online, source, tuple(files), together
            )
        except MlforgeError as error:
            outcome.failures.setdefault(name, error)
    store.end_forgetting(_without_rows(store, now, outcome), now)
    _end_former_names(definitions, outcome)
    if url is not None:
        _forget_elsewhere(definitions, url, entities, outcome)
    with _servers(definitions.online_store, url) as servers:
        for server in servers:
            try:
                outcome.left += server.rewrite_own_files()
            except MlforgeError as error:
                outcome.failures[str(server)] = error
    return outcome


def _without_rows(store: Store, forgotten: Forgotten, outcome: Outcome) -> set[str]:
    """The features that hold no row of entities any more, and names that no feature has by now."""
    holding = {name for name, each in outcome.features.items() if each.scrubbed.in_use}
    there = {*store.features()}
    return {
        name
        for name in forgotten.unfinished
        if name not in there or not (name in holding or name in outcome.failures)
    }


def _end_former_names(definitions: Definitions, outcome: Outcome) -> None:
    """Delete rows online under names that features of the store had before: they stay as they are, of whomever they are."""
    store, online = definitions.store, definitions.online_store
    identity, renames = store.identity(), store.renames()
    if online is None or identity is None or not renames:
        return
    try:
        for name in sorted(renames.names.keys() & set(online.features())):
            with suppress(OwnedElsewhere):
                online.drop(name, owner=identity.id)
                outcome.left.append(
                    f"{renames.sentence(name)}: the rows online under that name are deleted"
                )
    except MlforgeError as error:
        outcome.failures[str(online)] = error


@contextmanager
def _servers(online: OnlineStore | None, url: str | None) -> Iterator[list[OnlineStore]]:
    """The online store and, where it is another, the server of the event log, whose connections are closed at the end."""
    if url is None:
        yield [] if online is None else [online]
        return
    with closing(online_store_at(url)) as other:
        yield [other] if online is None else _distinct(online, other)


def _distinct(online: OnlineStore, other: OnlineStore) -> list[OnlineStore]:
    """Both, or the first alone where they are of one server."""
    try:
        runs = [evidence and evidence.server for evidence in (online.evidence(), other.evidence())]
    except MlforgeError:  # it says so itself when it is asked to rewrite
        runs = [None]
    is_same = runs[0] is not None and len(set(runs)) == 1
    return [online] if is_same else [online, other]


def _forget_elsewhere(
    definitions: Definitions, url: str, entities: Sequence[Entity], outcome: Outcome
) -> None:
    """Have the packages that keep something else of a project, which mlforge does not know, forget too."""
    for entry in entry_points(group="mlforge.forgetting"):
        try:
            entry.load()(definitions, url, entities)
        except MlforgeError as error:
            outcome.failures[entry.name] = error


def _published(definitions: Definitions, name: str) -> tuple[str | None, int, int]:
    """The version without the rows, how many rows it lacks, and how many keys went online."""
    store, online = definitions.store, definitions.online_store
    if name in definitions.features and _is_made_from_feature(store, name):
        options = replace(definitions.settings.options, attended=False, end_forgetting=_ended_here)
        definitions.refresh(name, options=options)
    engine = engine_of(definitions, name)
    diff = publish_without(store, name, engine)
    deleted = 0
    if online is not None:
        owner = owner_of(store, definitions.name, str(definitions.root))
        deleted = push(name, store, online, engine, owner, diff=diff).deleted
    if diff is None:
        return None, 0, deleted
    return str(diff.after.version), diff.events.rows, deleted


def _ended_here() -> None:
    """End nothing within a refresh: the version without the rows is to be told of."""


def _in_order(definitions: Definitions) -> list[str]:
    """All features of definitions and store, each behind the one that it is made from."""
    upstream = {name: _upstream(definitions.store, name) for name in known_features(definitions)}
    ordered: list[str] = []

    def add(name: str) -> None:
        if name in upstream and name not in ordered:
            if (above := upstream[name]) is not None:
                add(above)
            ordered.append(name)

    for name in upstream:
        add(name)
    return ordered


def _upstream(store: Store, name: str) -> str | None:
    latest = _newest(store, name)
    return latest.upstream[0] if latest and latest.upstream else None


def _is_made_from_feature(store: Store, name: str) -> bool:
    latest = _newest(store, name)
    return latest is not None and latest.source.startswith(FEATURE)


def _columns(store: Store) -> Mapping[str, set[str]]:
    """The dtypes of each column of the store's events, by name."""
    columns: dict[str, set[str]] = {}
    for name in store.features():
        latest = _newest(store, name)
        for column in latest.events if latest else ():
            columns.setdefault(column.name, set()).add(column.dtype)
    return columns


def _newest(store: Store, name: str) -> Manifest | None:
    """The served version; the highest where what says which is served was lost, as that is then taken for it."""
    latest, versions = store.latest(name), store.versions(name)
    return store.manifest(name, versions[-1]) if latest is None and versions else latest


def _entity(text: str, columns: Mapping[str, set[str]]) -> Entity:
    key, equals, value = text.partition("=")
    if not key or not equals or not value:
        raise DefinitionError(f"{text!r} names no entity; write key=value, as in user_id=7")
    if key not in columns:
        known = sorted(columns)
        near = near_names(key, known)
        advice = did_you_mean(key, near) if near else f"there are: {', '.join(known) or 'none'}"
        raise DefinitionError(f"no feature of the store has a column {key!r}; {advice}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DefinitionError(
            f"{key}: {value!r} is not valid Unicode; no row can hold it"
        ) from None
    if not any(could_hold(dtype, value) for dtype in columns[key]):
        dtypes = ", ".join(sorted(columns[key]))
        raise DefinitionError(
            f"{key} is {dtypes}, and {value!r} is no {_kind(columns[key])} as rows hold it"
        )
    return Entity(key, value)


def _kind(dtypes: set[str]) -> str:
    """The word for the values of dtypes, with how they are written."""
    if dtypes <= {*INTEGERS}:
        return "whole number"
    if dtypes <= {*INTEGERS, *FLOATS}:
        return "number such as 7 or 7.5"
    return {"Boolean": "true or false", "Date": "date such as 2025-01-31"}.get(
        "".join(dtypes), "value"
    )

"""Readings: the versions that an answer is made of, resolved once and kept from being pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from mlforge.core.manifest import Manifest
from mlforge.core.schema import Schema
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, RetrievalError, StoreError, VersionNotFound
from mlforge.retrieval.labels import Ahead, LabelUse
from mlforge.retrieval.references import FeatureRef, Reference, check_store, parse_references
from mlforge.retrieval.versions import Versions
from mlforge.services.completion import Output
from mlforge.services.keeping import AT
from mlforge.services.locking import UsedColumn, check_lock, promised, used_columns
from mlforge.services.service import Service
from mlforge.store import Store

_TRIES = 3
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class FeatureUse:
    """A feature in an answer: how the caller named it, the version that is read, and the prefix of its columns.

    defaults: the feature's described ones, by column.
    """

    reference: Reference
    manifest: Manifest
    prefix: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> list[Output]:
        """The chosen columns as the answer has them, with their defaults."""
        return [
            Output.of(self.answer_name(column.name), column.name, column.dtype, self.defaults)
            for column in self.chosen
        ]

    @property
    def chosen(self) -> Schema:
        """The value columns that the answer has of it, in order; RetrievalError for one that it does not have."""
        values = {column.name: column for column in self.manifest.spec.values(self.manifest.events)}
        return tuple(values[name] for name in self.reference.chosen(list(values)))

    def answer_name(self, column: str) -> str:
        """The name of one of its columns in the answer."""
        return f"{self.prefix}__{column}"


@dataclass(frozen=True)
class Reading:
    """The versions of an answer's features, in order, and the service that names them, if one does.

    labels: the aggregations over events ahead, which come behind the features' columns. spine: the version of whose
    events a spine is made, if it is.
    """

    store: Store
    uses: tuple[FeatureUse, ...]
    service: Service | None = None
    labels: tuple[LabelUse, ...] = ()
    spine: Manifest | None = None

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All versions that are read."""
        sources = (label.source for label in self.labels)
        spine = () if self.spine is None else (self.spine,)
        return (*(use.manifest for use in self.uses), *sources, *spine)

    @property
    def stored(self) -> Reading:
        """The same versions without features' defaults: their values as they are stored."""
        return replace(self, uses=tuple(replace(use, defaults={}) for use in self.uses))

    @property
    def columns(self) -> tuple[UsedColumn, ...]:
        """The features' columns of an answer of training, in order."""
        return tuple(
            column
            for use in self.uses
            for column in used_columns(
                use.manifest,
                [c.name for c in use.chosen],
                use.prefix,
                use.reference.renamed,
                defaults=use.defaults,
            )
        )

    @contextmanager
    def leased(self) -> Iterator[None]:
        """Keep the versions from being pruned while the block runs; VersionNotFound if one is gone."""
        with ExitStack() as leases:
            for manifest in self.manifests:
                if manifest.version is not None:
                    leases.enter_context(self.store.lease(manifest.name, manifest.version))
            yield


@dataclass(frozen=True)
class Terms:
    """Terms of a reading beside its features.

    labels: by name. spine: the feature of whose events a spine is made. known_at: the instant, in UTC microseconds, whose
    versions are meant; None for now.
    """

    labels: Mapping[str, Ahead] = field(default_factory=dict)
    spine: Reference | None = None
    known_at: int | None = None


FEATURES_ALONE = Terms()


def reading_of(
    features: Sequence[FeatureRef] | Service | str,
    store: Store,
    terms: Terms = FEATURES_ALONE,
) -> Reading:
    """The versions that these features mean now, each resolved once.

    features: a list, a Service, or a kept version of one as in `"checkout@1"`. Raises RetrievalError for a list of
    another kind or a feature that is there twice, StoreError for an unknown feature or version, LockMismatch for a kept
    version of a service whose columns are not what they were.
    """
    check_store(store, Store, "LocalStore('feature_store')")
    if isinstance(features, str) and AT in features:
        features = Service.at(store, features)
    service = features if isinstance(features, Service) else None
    references = parse_references(service.features if service else features)
    versions = Versions(store, terms.known_at)
    labels = (
        LabelUse.checked(name, label, versions.of(label.reference))
        for name, label in terms.labels.items()
    )
    spine = None if terms.spine is None else versions.of(terms.spine)
    reading = Reading(store, _resolve(references, versions), service, tuple(labels), spine)
    if service is not None and service.kept is not None:
        with promised(service):
            check_lock(service.kept, service, reading.columns)
    return reading


def read(
    features: Sequence[FeatureRef] | Service | str,
    store: Store,
    answer: Callable[[Reading], Answer],
    terms: Terms = FEATURES_ALONE,
) -> Answer:
    """The result of `answer` for the features' versions, which are leased meanwhile.

    A version that is pruned before it is leased is resolved anew, up to three times, and damaged copies of files are mended
    once. Raises as `reading_of` and
    `answer`; VersionNotFound where the caller had named a version that is gone.
    """
    is_mended = False
    for attempt in range(_TRIES):
        reading = reading_of(features, store, terms)
        try:
            with reading.leased():
                return answer(reading)
        except (IntegrityError, VersionNotFound) as error:
            is_pruned = _was_pruned(reading, terms, error)
            may_retry = is_pruned or (not is_mended and _mended(reading, error))
            if not may_retry or attempt == _TRIES - 1:
                raise
            is_mended = is_mended or not is_pruned
    raise AssertionError("the last attempt returns or raises")


def _mended(reading: Reading, error: StoreError) -> bool:
    """Whether reading again may succeed, as damaged copies of files were at fault."""
    names = {manifest.name for manifest in reading.manifests}
    return isinstance(error, IntegrityError) and {True} <= {*map(reading.store.mend, names)}


def _was_pruned(reading: Reading, terms: Terms, error: StoreError) -> bool:
    """Whether a version that was read is gone by now; VersionNotFound if the caller had named it."""
    gone = False
    references = [use.reference for use in reading.uses]
    references += [label.label.reference for label in reading.labels]
    references += [] if terms.spine is None else [terms.spine]
    for reference, manifest in zip(references, reading.manifests, strict=True):
        if manifest.version in reading.store.versions(manifest.name):
            continue
        if reference.version is not None:
            raise VersionNotFound(
                f"{manifest.name} {manifest.version} was pruned while it was read; ask for another version, and "
                f"keep one that you train on with 'mlforge pin {manifest.name} {manifest.version}'"
            ) from error
        gone = True
    return gone


def _resolve(references: Sequence[Reference], versions: Versions) -> tuple[FeatureUse, ...]:
    """Each reference with its version and prefix, in order; one that is there twice is refused."""
    manifests: list[Manifest] = []
    uses: set[tuple[Reference, Version | None]] = set()
    for reference in references:
        manifest = versions.of(reference)
        use = (replace(reference, version=None), manifest.version)
        if use in uses:
            raise RetrievalError(
                f"{manifest.name} {manifest.version} is asked for twice; name it once"
            )
        uses.add(use)
        manifests.append(manifest)
    pairs = list(zip(references, manifests, strict=True))
    several = {
        name
        for name in (reference.name for reference in references)
        if len({m.version for r, m in pairs if m.name == name and not r.prefix}) > 1
    }
    return tuple(
        FeatureUse(
            r,
            m,
            r.prefix or (f"{m.name}__{m.version}" if m.name in several else m.name),
            versions.store.books(m.name).defaults,
        )
        for r, m in pairs
    )

"""Features of a training set whose version is another one today, and how the set would be made of them now."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mlforge.core.expression.columns import read
from mlforge.core.expression.parser import T
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest, config_of
from mlforge.core.values import FIRST_INSTANT, TimeRange
from mlforge.errors import IntegrityError, MlforgeError, VersionNotFound
from mlforge.retrieval.labels import LabelUse
from mlforge.retrieval.reading import FeatureUse, Reading
from mlforge.services.description import service_of
from mlforge.services.service import Service
from mlforge.store import Store
from mlforge.training_sets.document import SetDocument
from mlforge.training_sets.used_features import UsedFeature
from mlforge.training_sets.used_labels import UsedLabel


@dataclass(frozen=True)
class SetFeature:
    """A feature of a set, as it was and as it is served today.

    unlike: the columns, by their names in the set, that have no counterpart today, and why. defaults: the feature's
    described ones of today, by column.
    """

    feature: UsedFeature
    then: Manifest
    now: Manifest
    unlike: Mapping[str, str]
    defaults: Mapping[str, Any]

    @property
    def is_moved(self) -> bool:
        """Whether its version or a default of its columns is another one."""
        return self.has_other_version or self.has_other_defaults

    @property
    def has_other_version(self) -> bool:
        """Whether its version is another one."""
        return self.then.version != self.now.version

    @property
    def has_other_defaults(self) -> bool:
        """Whether another value takes the place of null in one of the columns that can be compared."""
        names = [name for name, label in self.feature.columns if label not in self.unlike]
        return any(self.feature.defaults.get(n) != self.defaults.get(n) for n in names)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names in the set of the columns that can be compared."""
        return tuple(label for _, label in self.feature.columns if label not in self.unlike)

    @cached_property
    def use(self) -> FeatureUse:
        """The feature as it is read today, with these columns alone."""
        columns = tuple(name for name, label in self.feature.columns if label not in self.unlike)
        reference = replace(self.feature.reference, columns=columns)
        return FeatureUse(reference, self.now, self.feature.prefix, self.defaults)

    @property
    def spec(self) -> FeatureSpec:
        """How these columns are evaluated today."""
        return self.now.spec.restricted(self.use.reference.columns)

    @property
    def ahead(self) -> int:
        """How far behind a row's instant its columns are evaluated, in microseconds."""
        return 0

    @property
    def overtaken(self) -> TimeRange | None:
        """The instants of evaluation that are over at one of the two times alone, so that one of the two is null."""
        return None

    @property
    def is_redefined(self) -> bool:
        """Whether its function, its definition or its defaults are others."""
        return (
            self.then.code_hash != self.now.code_hash
            or _meaning(self.then.spec) != _meaning(self.now.spec)
            or self.has_other_defaults
        )

    @property
    def may_differ_everywhere(self) -> bool:
        """Whether its columns are evaluated in another way, so that any row may differ."""
        columns = self.use.reference.columns
        if self.has_other_defaults:
            return True
        return _meaning(self.then.spec.restricted(columns)) != _meaning(self.spec)


@dataclass(frozen=True)
class SetLabel(SetFeature):
    """A label of a set: `then` and `now` have it for their only column.

    label: as it is read today; None where it cannot be computed any more.
    """

    label: LabelUse | None = None

    @property
    def ahead(self) -> int:
        """How far behind a row's instant its column is evaluated, in microseconds."""
        return 0 if self.label is None else self.label.label.horizon.us

    @property
    def overtaken(self) -> TimeRange | None:
        """The ends of horizons that are over at one of the two times alone, so that one of the two is null."""
        marks = [
            FIRST_INSTANT - 1 if m is None else m for m in (self.then.watermark, self.now.watermark)
        ]
        return None if marks[0] == marks[1] else TimeRange(min(marks) + 1, max(marks))


@dataclass(frozen=True)
class Remake:
    """A set as it would be made today, as far as it can be compared with what it is.

    features: all that the set has. reading: the versions of today. dependent: for each name of a feature's column the
    service's own columns that follow from it. unlike: the columns that cannot be compared, and why.
    """

    features: tuple[SetFeature, ...]
    reading: Reading
    dependent: Mapping[str, Collection[str]]
    unlike: Mapping[str, str]

    @property
    def moved(self) -> list[SetFeature]:
        """The features that have another version or other defaults, and columns to compare."""
        return [feature for feature in self.features if feature.is_moved and feature.labels]

    def concerned(self, feature: SetFeature) -> list[str]:
        """A feature's columns in the set, and the service's own that follow from them."""
        own = [name for label in feature.labels for name in sorted(self.dependent.get(label, ()))]
        return list(dict.fromkeys([*feature.labels, *own]))

    @classmethod
    def of(cls, document: SetDocument, store: Store) -> Remake:
        """The set as it would be made today. Raises StoreError for a feature that is gone, VersionNotFound for its versions."""
        features = tuple(_as_of_today(store, feature) for feature in document.features)
        of_labels = tuple(_label_of_today(store, label) for label in document.labels)
        whole = (*features, *of_labels)
        unlike = {label: why for feature in whole for label, why in feature.unlike.items()}
        labels = tuple(
            f.label for f in of_labels if f.label is not None and f.is_moved and f.labels
        )
        if document.service is None:
            uses = tuple(f.use for f in features if f.is_moved and f.labels)
            return cls(whole, Reading(store, uses, labels=labels), {}, unlike)
        service, dependent = _service(document.service, features, unlike)
        uses = tuple(feature.use for feature in features if feature.labels)
        return cls(whole, Reading(store, uses, service, labels), dependent, unlike)


def _as_of_today(store: Store, feature: UsedFeature) -> SetFeature:
    """The feature then and now; one that was asked for by its version is what it was."""
    then, now = then_and_now(store, feature)
    unlike = dict(_unlike(feature, then, now)) if now.version != then.version else {}
    return SetFeature(feature, then, now, unlike, store.books(feature.reference.name).defaults)


def _label_of_today(store: Store, used: UsedLabel) -> SetLabel:
    """The label then and now."""
    before, today = then_and_now(store, used.feature)
    then = LabelUse(used.name, used.label, before).manifest
    try:
        label = LabelUse.checked(used.name, used.label, today)
    except MlforgeError as error:
        return SetLabel(used.feature, then, today, {used.name: str(error)}, {})
    now = label.manifest
    unlike = dict(_unlike(used.feature, then, now)) if now.version != then.version else {}
    return SetLabel(used.feature, then, now, unlike, {}, label)


def then_and_now(store: Store, feature: UsedFeature) -> tuple[Manifest, Manifest]:
    """A feature's version of a set, and the one that is meant today.

    Raises FeatureNotFound for a feature that is gone, VersionNotFound for its version.
    """
    reference = feature.reference
    try:
        then = store.manifest(reference.name, feature.version)
    except VersionNotFound as error:
        raise VersionNotFound(
            f"{reference.name} {feature.version}, of which the training set was made, is gone, for the set was "
            "released; make the set again"
        ) from error
    return then, then if reference.version is not None else store.resolve(reference.name)


def _unlike(feature: UsedFeature, then: Manifest, now: Manifest) -> Iterator[tuple[str, str]]:
    """The columns that have no counterpart today, by their names in the set, with the reason."""
    before = {column.name: column.dtype for column in then.spec.values(then.events)}
    today = {column.name: column.dtype for column in now.spec.values(now.events)}
    for name, label in feature.columns:
        if then.spec.keys != now.spec.keys:
            yield (
                label,
                f"the feature's keys are {list(now.spec.keys)}, were {list(then.spec.keys)}",
            )
        elif (then.spec.timestamp is None) != (now.spec.timestamp is None):
            yield label, "the feature has a timestamp either then or now, not both"
        elif name not in today:
            yield label, f"{now.name} {now.version} has no column {name!r}"
        elif today[name] != before[name]:
            yield label, f"it is {today[name]}, was {before[name]}"


def _service(
    document: Mapping[str, Any], features: Sequence[SetFeature], unlike: dict[str, str]
) -> tuple[Service | None, dict[str, set[str]]]:
    """The service as far as its columns can be compared, and its own columns that follow from each of a feature's.

    None where no column of a feature can. Its own columns that read one which cannot are noted in `unlike`.
    """
    if "features" not in document:
        raise IntegrityError(
            f"the training set does not say what the service {document['name']} was, as it was made by an earlier release; "
            "make the set again"
        )
    service = service_of(Service, document, {f.then.name: f.then.spec for f in features})
    known = _readable(service, features)
    sources: dict[str, set[str]] = {label: {label} for f in features for label in f.labels}
    lost = []
    for column in service.derived:
        names = read(column, service.name).names
        missing = [name for name in names if name not in known]
        if missing:
            lost.append(column.name)
            unlike[column.name] = f"it reads {missing[0]}, which cannot be compared"
            continue
        known.add(column.name)
        sources[column.name] = set().union(*(sources.get(name, ()) for name in names))
    dependent: dict[str, set[str]] = {}
    for column in service.derived:
        for label in sources.get(column.name, ()):
            dependent.setdefault(label, set()).add(column.name)
    if not any(feature.labels for feature in features):
        return None, {}
    specs = {feature.now.name: feature.now.spec for feature in features}
    return service_of(Service, _reduced(document, features, lost), specs), dependent


def _readable(service: Service, features: Sequence[SetFeature]) -> set[str]:
    """The names that a service's own columns can read today, beside one another."""
    kept = [feature for feature in features if feature.labels]
    keys = (feature.feature.reference.key_names(feature.now.spec.keys).values() for feature in kept)
    names = {name for of_feature in keys for name in of_feature}
    names.update(label for feature in kept for label in feature.labels)
    return names | {column.name for column in service.request} | {T}


def _reduced(
    document: Mapping[str, Any], features: Sequence[SetFeature], lost: Collection[str]
) -> dict[str, Any]:
    """The description of a service without the columns that cannot be compared."""
    pairs = list(zip(document["features"], features, strict=True))
    uses = [
        {**described, "columns": list(feature.use.reference.columns)}
        for described, feature in pairs
        if feature.labels
    ]
    columns = {name for use in uses for name in use["columns"]}
    columns.update(label for feature in features for label in feature.labels)
    return {
        **document,
        "features": uses,
        "derive": {name: text for name, text in document["derive"].items() if name not in lost},
        "defaults": {name: v for name, v in document["defaults"].items() if name in columns},
    }


def _meaning(spec: FeatureSpec) -> dict[str, Any]:
    """Everything of a feature's definition on which its values depend, beside its events."""
    return {name: value for name, value in config_of(spec).items() if name != "online_clock"}

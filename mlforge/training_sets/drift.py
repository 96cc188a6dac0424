"""Drift of a feature's columns between two sides: versions, ranges of time, training sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.manifest import Manifest
from mlforge.core.values import BEGINNING, END, TimeRange, from_iso
from mlforge.errors import RetrievalError, StoreError, VersionNotFound
from mlforge.frames.polars_schema import parse_dtype
from mlforge.profiles.column_profile import ColumnProfile
from mlforge.profiles.drift import ColumnDrift, drift_of
from mlforge.profiles.measure import profile_column
from mlforge.profiles.table import profile_rows
from mlforge.profiles.warm_up import warm_from
from mlforge.services.completion import held_defaults
from mlforge.store import Store
from mlforge.training_sets.document import DOCUMENT
from mlforge.training_sets.training_set import TrainingSet
from mlforge.training_sets.used_features import UsedFeature

_BETWEEN = ".."
_ALWAYS = TimeRange(BEGINNING, END)


@dataclass(frozen=True)
class Use:
    """A feature's columns as a side has them once.

    profiles: by column, without rows that warm up. labels: the columns' names in a training set; none of a table. prefix: of
    these, None for a table. defaults: described values that took the place of null in the set, by column.
    """

    profiles: Mapping[str, ColumnProfile]
    labels: Mapping[str, str] = field(default_factory=dict)
    prefix: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def filled_like(self, other: Use) -> Mapping[str, ColumnProfile]:
        """The profiles with the other's defaults in place of nulls, where a column holds them."""
        return {
            column: _filled(profile, column, other.defaults)
            for column, profile in self.profiles.items()
        }


@dataclass(frozen=True)
class Named:
    """Rows that a text names: those of a version within a range of time, or those of a training set with the version of each use."""

    text: str
    versions: tuple[Manifest, ...]
    times: TimeRange = _ALWAYS
    training_set: TrainingSet | None = None


@dataclass(frozen=True)
class Side:
    """A side of a comparison: how it is told, and the feature's uses there, of which a table has one."""

    text: str
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """The drift of a feature's columns from side `a` to side `b`, in the order of its table."""

    feature: str
    a: str
    b: str
    columns: tuple[ColumnDrift, ...]

    def to_json(self) -> dict[str, Any]:
        """The document that `mlforge drift --json` shows."""
        columns = [_document(column) for column in self.columns]
        return {"feature": self.feature, "a": self.a, "b": self.b, "columns": columns}


def _document(column: ColumnDrift) -> dict[str, Any]:
    return {
        "name": column.column,
        "verdict": column.verdict(),
        "psi": column.psi,
        "null_psi": column.null_psi,
        "ks": column.ks,
        "null_rate_a": column.null_rates[0],
        "null_rate_b": column.null_rates[1],
        "values_a": column.values[0],
        "values_b": column.values[1],
        "reason": column.reason,
    }


def drift(store: Store, name: str, a: str | None = None, b: str | None = None) -> FeatureDrift:
    """The drift of a feature's columns, without keys, timestamp and instants of events (first_time, last_time), from `a` to `b`.

    a, b: each a version (`1.0.3`), a range of time of the served version's rows (`2026-10-01..2026-11-01`, UTC, its end left
    out; an open end is left empty), or the folder of a training set, each of whose uses of the feature is compared; defaults that
    fill nulls there fill those of the other side, too. By default b is the served version, and a the version before b
    (the one before the served version if b is no version). Rows whose windows reach before the first event of either side are left out.

    Raises FeatureNotFound, VersionNotFound, and RetrievalError for a side that is none of the three.
    """
    served = store.resolve(name)
    to = b or str(served.version)
    sides = [_named(store, served, text) for text in (a or _before(store, served, to), to)]
    warm = _warm_on_both(version for side in sides for version in side.versions)
    before, after = (_side(store, served, side, warm) for side in sides)
    is_told_by_label = len(before.uses) > 1 or len(after.uses) > 1
    drifts = [
        drift
        for pair in _pairs(before.uses, after.uses)
        for drift in _drifts(*pair, is_told_by_label=is_told_by_label)
    ]
    if not drifts:
        raise RetrievalError(f"{name}: {before.text} and {after.text} have no column in common")
    return FeatureDrift(name, before.text, after.text, tuple(drifts))


def _pairs(before: Sequence[Use], after: Sequence[Use]) -> list[tuple[Use, Use]]:
    """The uses to compare: a table with each use of a set, the only ones of two sets, else those of one prefix."""
    if len(before) == len(after) == 1:
        return [(before[0], after[0])]
    return [
        (a, b)
        for a in before
        for b in after
        if a.prefix is None or b.prefix is None or a.prefix == b.prefix
    ]


def _drifts(a: Use, b: Use, *, is_told_by_label: bool) -> Iterator[ColumnDrift]:
    """The drift of each column that both have; a default that fills nulls on one side fills them on the other."""
    labels = (a.labels or b.labels) if is_told_by_label else {}
    then, now = a.filled_like(b), b.filled_like(a)
    for column, profile in then.items():
        if column in now:
            yield drift_of(labels.get(column, column), profile, now[column])


def _filled(profile: ColumnProfile, column: str, defaults: Mapping[str, Any]) -> ColumnProfile:
    """The profile with a column's default in place of nulls, if it has one that the column holds."""
    if column not in defaults or not profile.nulls:
        return profile
    held = held_defaults({column: defaults[column]}, {column: profile.dtype})
    values = pl.Series([held.get(column)], dtype=parse_dtype(profile.dtype))
    return profile.filled(profile_column(values)) if held else profile


def _before(store: Store, served: Manifest, text: str) -> str:
    """The version before the one that the text names, or else before the served one."""
    versions = list(map(str, store.versions(served.name)))
    after = text if text in versions else str(served.version)
    older = versions[: versions.index(after)]
    if not older:
        raise VersionNotFound(
            f"{served.name}: there is no version before {after} to compare with; name a range of time, as in "
            f"'mlforge drift {served.name} 2026-01-01..2026-02-01', or the folder of a training set"
        )
    return older[-1]


def _named(store: Store, served: Manifest, text: str) -> Named:
    """The rows that a text names."""
    if (Path(text) / DOCUMENT).is_file():
        training_set = TrainingSet.open(text).named_by(store)
        uses = _uses(training_set, served, text)
        versions = tuple(_version_of_set(store, served, used) for used in uses)
        return Named(text, versions, training_set=training_set)
    if _BETWEEN in text:
        return Named(text, (served,), _range(served, text))
    try:
        manifest = store.resolve(served.name, text)
    except VersionNotFound:
        raise
    except StoreError as error:
        raise RetrievalError(
            f"{served.name}: {text!r} is no version, no range of time and no folder of a training set; write one of "
            "1.0.3, 2026-10-01..2026-11-01, train/2026-11"
        ) from error
    return Named(text, (manifest,))


def _warm_on_both(versions: Iterable[Manifest]) -> dict[str, int]:
    """The first instant from which on a column's windows lie behind the first events of all versions: an early file that came between two would else pass for drift."""
    warm: dict[str, int] = {}
    for version in versions:
        for column, since in warm_from(version).items():
            warm[column] = max(since, warm.get(column, since))
    return warm


def _side(store: Store, served: Manifest, named: Named, warm: Mapping[str, int]) -> Side:
    """The side that the rows make; warm: the first instant of each column's rows."""
    if named.training_set is not None:
        return _of_set(served, named.training_set, named, warm)
    [manifest] = named.versions
    left_out = {*manifest.spec.identity, *manifest.spec.event_instants}
    spans = {
        column.name: TimeRange(max(named.times.start, warm[column.name]), named.times.end)
        for column in manifest.columns
        if column.name not in left_out
    }
    return Side(named.text, (Use(profile_rows(store, manifest, spans)),))


def _range(manifest: Manifest, text: str) -> TimeRange:
    """The instants from the start of a range until before its end."""
    if manifest.spec.timestamp is None:
        raise RetrievalError(
            f"{manifest.name} has no timestamp, so that {text!r} names none of its rows; compare versions"
        )
    start, _, end = text.partition(_BETWEEN)
    try:
        since, until = from_iso(start.strip() or None), from_iso(end.strip() or None)
    except (ValueError, OverflowError) as error:
        raise RetrievalError(
            f"{text!r} is no range of time ({error}); write two dates or instants, as in 2026-10-01..2026-11-01"
        ) from error
    times = TimeRange(BEGINNING if since is None else since, END if until is None else until - 1)
    if times.end < times.start:
        raise RetrievalError(f"{text!r} ends before it starts; give the earlier instant first")
    return times


def _uses(training_set: TrainingSet, served: Manifest, text: str) -> list[UsedFeature]:
    """The uses of the feature in a training set, one or more."""
    features = training_set.document.features
    uses = [used for used in features if used.reference.name == served.name]
    if not uses:
        held = ", ".join(dict.fromkeys(f.reference.name for f in features))
        raise RetrievalError(
            f"the training set {text} has no column of {served.name}; it has: {held}"
        )
    return uses


def _of_set(
    served: Manifest, training_set: TrainingSet, named: Named, warm: Mapping[str, int]
) -> Side:
    """The feature's columns as a training set has them, with the spine's rows for its time, once for each of its uses."""
    uses = zip(_uses(training_set, served, named.text), named.versions, strict=True)
    return Side(
        named.text, tuple(_of_use(version, training_set, used, warm) for used, version in uses)
    )


def _of_use(
    version: Manifest, training_set: TrainingSet, used: UsedFeature, warm: Mapping[str, int]
) -> Use:
    document, left_out = training_set.document, version.spec.event_instants
    labels = {column: label for column, label in used.columns if column not in left_out}
    dtypes = {column.name: column.dtype for column in document.columns}
    profiles = {
        column: _of_label(training_set, label, dtypes[label], warm.get(column, BEGINNING))
        for column, label in labels.items()
    }
    return Use(profiles, labels, used.prefix, document.defaults_of(used))


def _version_of_set(store: Store, served: Manifest, used: UsedFeature) -> Manifest:
    """The version that a set was made from; the served one where it was pruned."""
    kept = used.version in store.versions(served.name)
    return store.manifest(served.name, used.version) if kept else served


def _of_label(training_set: TrainingSet, label: str, dtype: str, since: int) -> ColumnProfile:
    """The profile of one column of a set, a file after the other: a set may be larger than memory."""
    timestamp = training_set.document.timestamp
    merged = profile_column(pl.Series([], dtype=parse_dtype(dtype)))
    is_cut = timestamp is not None and since > BEGINNING
    for rows in _pieces(training_set.files, training_set.address):
        warm = rows.filter(_instant(timestamp, rows) >= since) if is_cut and timestamp else rows
        merged = merged.merged(profile_column(warm.select(label).collect().to_series()))
    return merged


def _instant(timestamp: str, rows: pl.LazyFrame) -> pl.Expr:
    """A spine's timestamp, of whatever unit, as microseconds."""
    column = pl.col(timestamp)
    is_date = rows.collect_schema()[timestamp] == pl.Date
    return (
        column.cast(pl.Datetime("us")) if is_date else column.dt.cast_time_unit("us")
    ).to_physical()


def _pieces(files: Iterable[Path], where: str) -> Iterable[pl.LazyFrame]:
    for file in files:
        if not file.is_file():
            raise RetrievalError(f"the training set {where} lacks {file.name}; make it again")
        yield pl.scan_parquet(file, glob=False, hive_partitioning=False)

"""The blast radius of changes: which rows of a training set would have other values today, and by which files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.core.values import PRECISION, TimeRange
from mlforge.engines import POINT, engine_named
from mlforge.frames import interop
from mlforge.retrieval.lineage import FILE
from mlforge.retrieval.spine import spine_points
from mlforge.store import Store
from mlforge.training_sets.joining import Joining
from mlforge.training_sets.since_made.changes import ROW, ChangedEvents, changed_events
from mlforge.training_sets.since_made.moved import Remake, SetFeature, then_and_now
from mlforge.training_sets.stored_set import StoredSet

AT_ONCE = 150_000
"""So many rows that may differ are evaluated at a time."""


@dataclass(frozen=True)
class BlastRadius:
    """The rows of a training set that would have other values today.

    rows: `row`, the number of a row in the set from 0 on, `columns`, the names of those that differ, and `files`, because
    of which they do. by_column, by_file: how many rows differ in a column, and because of a file. versions: for each
    feature that has another version today, by the prefix of its columns, then and now. redefined: the features whose
    function, definition or defaults are others, by prefix. unlike: columns that cannot be compared, and why. looked_at: how many rows were
    evaluated anew. spine: where its rows were made of a feature's events and that has another version today, then and now: rows
    of the spine that would come or go are not counted.
    """

    rows: pl.DataFrame
    by_column: Mapping[str, int]
    by_file: Mapping[str, int]
    versions: Mapping[str, tuple[str, str]]
    redefined: tuple[str, ...]
    unlike: Mapping[str, str]
    looked_at: int
    spine: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Search:
    """The set, the set as it would be made today, and the events that changed between, by feature."""

    stored_set: StoredSet
    remake: Remake
    joining: Joining
    changes: Sequence[tuple[SetFeature, ChangedEvents]]

    @property
    def columns(self) -> list[str]:
        """The columns of the set that are read: those that the join needs, and those that are compared."""
        services = self.remake.reading.service
        own = [] if services is None else [column.name for column in services.derived]
        labels = [label for feature in self.remake.features for label in feature.labels]
        names = {*labels, *own, *self.joining.needed}
        return [name for name in self.stored_set.columns if name in names]

    def candidates(self) -> Iterator[pl.DataFrame]:
        """The rows that may differ, with their numbers, some 150,000 at a time."""
        waiting: list[pl.DataFrame] = []
        begun = 0
        for number, part in enumerate(self.stored_set.document.parts):
            reached = self._reached(number)
            if len(reached):
                rows = self.stored_set.part(number, self.columns).with_row_index(ROW, begun)
                waiting.append(rows[reached].with_columns(pl.col(ROW).cast(pl.Int64)))
            begun += part.rows
            if sum(frame.height for frame in waiting) >= AT_ONCE:
                yield pl.concat(waiting)
                waiting = []
        if waiting:
            yield pl.concat(waiting)

    def _reached(self, number: int) -> pl.Series:
        """The positions of a part's rows that may differ, ascending."""
        rows = self.stored_set.part(number, self.joining.needed).with_row_index(ROW)
        if any(feature.may_differ_everywhere for feature, _ in self.changes):
            return rows[ROW]
        touched = []
        for feature, events in self.changes:
            points = self._points(rows, feature)
            touched += [events.touched(points), _overtaken(points, feature.overtaken)[ROW]]
        return pl.concat(touched).unique().sort()

    def _points(self, rows: pl.DataFrame, feature: SetFeature) -> pl.DataFrame:
        """The points of a feature at some rows, with the rows' numbers."""
        table, use = interop.taken(rows.drop(ROW)), feature.use
        points = spine_points(table, use.manifest, self.joining.timestamp, use.reference)
        if feature.ahead:
            ends = pl.col(POINT) + pl.duration(microseconds=feature.ahead)
            points = points.with_columns(ends)
        return points.hstack([rows[ROW]])

    def differing(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`__row` and, for each column that is compared, whether the value differs; rows where none does are left out."""
        today = self.joining.values(rows.select(self.joining.needed))
        differs = [_differ(rows[column.name], column) for column in today]
        return pl.DataFrame([rows[ROW], *differs]).filter(pl.any_horizontal(today.columns))

    def causes(self, rows: pl.DataFrame, differing: pl.DataFrame) -> pl.DataFrame:
        """`__row` and `__file` of the rows that differ, each pair once."""
        causes = [pl.DataFrame(schema={ROW: pl.Int64, FILE: pl.String})]
        for feature, events in self.changes:
            ours = differing.filter(pl.any_horizontal(self.remake.concerned(feature))).select(ROW)
            points = self._points(rows.join(ours, on=ROW, how="semi"), feature)
            causes.append(events.causes(points))
            if feature.overtaken is not None:
                causes.append(events.revealing(_overtaken(points, feature.overtaken)))
        return pl.concat(causes).unique()


def _overtaken(points: pl.DataFrame, times: TimeRange | None) -> pl.DataFrame:
    """The points within a range of time; none without one."""
    if times is None:
        return points.clear()
    return points.filter(pl.col(POINT).to_physical().is_between(times.start, times.end))


def blast_radius(stored_set: StoredSet, store: Store) -> BlastRadius:
    """The rows of a training set that would have other values if it were made again today, and the files behind that.

    store: the set's own. Raises StoreError for a feature or version that is gone, IntegrityError where files are missing
    or damaged.
    """
    document = stored_set.document
    remake = Remake.of(document, store)
    versions = {
        f.feature.prefix: (str(f.then.version), str(f.now.version))
        for f in remake.features
        if f.has_other_version
    }
    redefined = tuple(f.feature.prefix for f in remake.features if f.is_moved and f.is_redefined)
    differing: list[pl.DataFrame] = []
    causes: list[pl.DataFrame] = []
    looked_at = 0
    if remake.moved:
        with remake.reading.leased():
            search = _search(stored_set, remake, store)
            for rows in search.candidates():
                differ = search.differing(rows)
                looked_at += rows.height
                differing.append(differ)
                causes.append(search.causes(rows, differ))
    summed = _summed(differing, causes)
    return BlastRadius(
        *summed, versions, redefined, remake.unlike, looked_at, _spine(stored_set, store)
    )


def _spine(stored_set: StoredSet, store: Store) -> tuple[str, str] | None:
    """The versions, then and now, of the feature of whose events the spine was made, if they differ."""
    if stored_set.document.spine_events is None:
        return None
    then, now = then_and_now(store, stored_set.document.spine_events.feature)
    return None if then.version == now.version else (str(then.version), str(now.version))


def _search(stored_set: StoredSet, remake: Remake, store: Store) -> _Search:
    document = stored_set.document
    spine = stored_set.part(0, [column.name for column in document.spine]).clear()
    engine = engine_named(document.engine)
    joining = Joining.checked(remake.reading, spine, document.timestamp, engine, warns=False)
    changes = [(f, changed_events(store, f.then, f.now, f.spec)) for f in remake.moved]
    return _Search(stored_set, remake, joining, changes)


def _differ(then: pl.Series, now: pl.Series) -> pl.Series:
    """Whether two columns differ, row by row; floats by more than their precision."""
    differs = then.ne_missing(now)
    if not then.dtype.is_float():
        return differs.alias(then.name)
    pair = pl.DataFrame([then.alias("then"), now.alias("now")])
    then_, now_ = pl.col("then"), pl.col("now")
    near = (then_ - now_).abs() <= PRECISION * pl.max_horizontal(then_.abs(), now_.abs())
    return (differs & ~pair.select(near).to_series().fill_null(False)).alias(then.name)


def _summed(
    differing: Sequence[pl.DataFrame], causes: Sequence[pl.DataFrame]
) -> tuple[pl.DataFrame, dict[str, int], dict[str, int]]:
    """The rows with their columns and files, and how many there are of each column and of each file."""
    all_rows = pl.concat([pl.DataFrame(schema={ROW: pl.Int64}), *differing], how="diagonal_relaxed")
    names = [name for name in all_rows.columns if name != ROW]
    listed = [pl.when(name).then(pl.lit(name)) for name in names]
    columns = pl.concat_list(listed).list.drop_nulls() if listed else pl.lit([], pl.List(pl.String))
    files = pl.concat([pl.DataFrame(schema={ROW: pl.Int64, FILE: pl.String}), *causes])
    by_row = files.group_by(ROW).agg(pl.col(FILE).sort().alias("files"))
    rows = all_rows.select(ROW, columns.alias("columns")).join(by_row, on=ROW, how="left")
    none = pl.lit([], pl.List(pl.String))
    return (
        rows.sort(ROW).select(pl.col(ROW).alias("row"), "columns", pl.col("files").fill_null(none)),
        {name: int(all_rows[name].sum()) for name in names if all_rows[name].any()},
        dict(files.group_by(FILE).len().sort(FILE).iter_rows()),
    )

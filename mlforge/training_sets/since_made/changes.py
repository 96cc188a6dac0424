"""The events by which two versions differ, with the files that brought or took them, and the points that see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.list_diff import replaced_partials
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.schema import Schema, with_dtypes_of
from mlforge.core.time_model import Window, floor
from mlforge.engines import POINT
from mlforge.frames import polars_schema
from mlforge.retrieval.lineage import FILE, MARK, files_of
from mlforge.store import Store, file_tasks
from mlforge.store.integrity import intact
from mlforge.store.scan import event_scan
from mlforge.training_sets.since_made.changed_files import changed_files, changed_paths

TIME, ROW = "__time", "__row"
_SIGN, _NET, _SEEN = "__sign", "__net", "__seen"


@dataclass(frozen=True)
class ChangedEvents:
    """The events that one of two versions has more of than the other.

    events: the columns that tell entities apart, `__time` (UTC microseconds; none for an untimed feature) and `__file`, a
    file whose coming, going or amendment is the cause: a row for each, null where it is the definition. spec: how
    the later version evaluates them.
    """

    spec: FeatureSpec
    events: pl.DataFrame

    @property
    def entity(self) -> list[str]:
        """The columns that tell entities apart."""
        return list(self.spec.entity)

    def touched(self, points: pl.DataFrame) -> pl.Series:
        """The numbers (`__row`) of the points that may have another value: all that see a changed event.

        points: `__row`, keys, and for a timed feature `POINT`.
        """
        return self._seen(points.drop_nulls(), self.entity)[ROW].unique()

    def causes(self, points: pl.DataFrame) -> pl.DataFrame:
        """`__row` of points and `__file`, each pair once: the files of the changed events that a point sees.

        Without metrics a point sees the changed events of the latest instant alone.
        """
        entity, points = self.entity, points.drop_nulls()
        caused = self.events.drop_nulls(FILE)
        if self.spec.timestamp is None:
            pairs = points.join(caused, on=entity)
        elif not self.spec.windows:
            latest = self._seen(points, entity)
            pairs = points.join(latest, on=ROW).join(caused, on=[*entity, TIME])
        else:
            files = caused.select(*entity, FILE).unique()
            pairs = self._seen(points.join(files, on=entity), [*entity, FILE])
        return pairs.select(ROW, FILE).unique()

    def revealing(self, points: pl.DataFrame) -> pl.DataFrame:
        """`__row` of points and `__file`, each pair once: the files of the changed events at or after a point, of any entity."""
        newest = self.events.drop_nulls(FILE).group_by(FILE).agg(pl.col(TIME).max())
        return (
            points.select(ROW, pl.col(POINT).to_physical())
            .join(newest, how="cross")
            .filter(pl.col(TIME) >= pl.col(POINT))
            .select(ROW, FILE)
        )

    def _seen(self, points: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """The points that see a changed event that is like them in some columns, with the `__time` of the last one.

        Once for each window that it lies in.
        """
        spec, by = self.spec, list(by)
        if spec.timestamp is None:
            return points.join(self.events.select(by).unique(), on=by, how="semi")
        times = self.events.select(*by, TIME).unique().sort(TIME)
        at = pl.col(POINT).to_physical()
        at = at if spec.interval is None else floor(at, spec.interval)
        near = points.join(times.select(by).unique(), on=by, how="semi").with_columns(at)
        spans = list(map(_span, spec.windows)) or [(pl.lit(None, pl.Int64), pl.col(POINT))]
        return pl.concat([_last_within(near, times, by, *span) for span in spans])


def _span(window: Window) -> tuple[pl.Expr, pl.Expr]:
    """The least and the greatest event time that a point sees."""
    return window.first(pl.col(POINT)), window.last(pl.col(POINT))


def _last_within(
    points: pl.DataFrame, times: pl.DataFrame, by: list[str], first: pl.Expr, last: pl.Expr
) -> pl.DataFrame:
    """`__row`, `by` and `__time`: the last time between two instants, where there is one. first: null for no bound."""
    ends = points.with_columns(first.alias(_SEEN), last.alias(POINT)).sort(POINT)
    joined = ends.join_asof(
        times,
        left_on=POINT,
        right_on=TIME,
        by=by,
        strategy="backward",
        coalesce=False,
        check_sortedness=False,
    )
    is_inside = pl.col(_SEEN).is_null() | (pl.col(TIME) >= pl.col(_SEEN))
    within = joined.filter(pl.col(TIME).is_not_null() & is_inside)
    return within.select(ROW, *(name for name in by if name == FILE), TIME)


def changed_events(
    store: Store, before: Manifest, after: Manifest, spec: FeatureSpec
) -> ChangedEvents:
    """The events by which two versions differ, as far as a feature's columns read them.

    Only the columns that `spec` needs are read, and of files that both versions have, none. Raises IntegrityError
    where stored events are missing or damaged.
    """
    needed = set(spec.needed()) if spec.columns else {column.name for column in after.events}
    events_of_both = with_dtypes_of(after.events, before.events)
    schema = tuple(column for column in events_of_both if column.name in needed)
    went, came = replaced_partials(before.partials, after.partials)
    with intact(after.name):
        sides = [
            _scanned(store, before, went, schema).with_columns(pl.lit(-1).alias(_SIGN)),
            _scanned(store, after, came, schema).with_columns(pl.lit(1).alias(_SIGN)),
        ]
        events = _net(pl.concat(sides), [column.name for column in schema])
    time = [] if spec.timestamp is None else [polars_schema.microseconds(spec.timestamp)]
    named = polars_schema.with_entities(_with_files(events, store, before, after), spec)
    columns = [*spec.entity, *(column.alias(TIME) for column in time), FILE]
    return ChangedEvents(spec, named.select(columns).unique())


def _scanned(
    store: Store, manifest: Manifest, partials: Sequence[Partial], schema: Schema
) -> pl.LazyFrame:
    return file_tasks.scan(event_scan(store, manifest, partials).tasks, schema, mark=MARK)


def _net(both: pl.LazyFrame, columns: Sequence[str]) -> pl.DataFrame:
    """The rows that one side has more of, each with the mark of a place of that side: as often as there are places."""
    marks = pl.col(MARK)
    counted = both.group_by(columns).agg(
        pl.col(_SIGN).sum().alias(_NET),
        marks.filter(pl.col(_SIGN) < 0).unique().alias("__went"),
        marks.filter(pl.col(_SIGN) > 0).unique().alias("__came"),
    )
    side = pl.when(pl.col(_NET) < 0).then("__went").otherwise("__came")
    changed = counted.filter(pl.col(_NET) != 0).select(*columns, side.alias(MARK))
    return changed.collect(engine="streaming").explode(MARK)


def _with_files(
    events: pl.DataFrame, store: Store, before: Manifest, after: Manifest
) -> pl.DataFrame:
    """The events with `__file`: their own file if it is another one now, else each of the further files that are."""
    paths = changed_paths(before, after)
    own = pl.concat([files_of(store, before), files_of(store, after)]).unique()
    own = own.filter(pl.col(FILE).is_in(list(paths)))
    own = own.with_columns(pl.col(FILE).replace_strict(paths, return_dtype=pl.String))
    named = events.join(own, on=MARK, how="left")
    is_known = pl.col(FILE).is_not_null()
    further: list[str | None] = [*changed_files(store, before, after)]
    others = pl.DataFrame({FILE: further or [None]}, schema={FILE: pl.String})
    rest = named.filter(~is_known).drop(FILE).join(others, how="cross")
    return pl.concat([named.filter(is_known), rest])

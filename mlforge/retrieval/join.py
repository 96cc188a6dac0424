"""The join of a spine with the values that features had at each row's own time."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import structlog

from mlforge.core.values import TimeRange
from mlforge.engines import POINT, Engine, Events, evaluation
from mlforge.engines.events import events_of
from mlforge.errors import RetrievalError
from mlforge.frames.interop import Table
from mlforge.retrieval.reading import FeatureUse, Reading
from mlforge.retrieval.references import AnswerNames
from mlforge.retrieval.spine import spine_instants, spine_points, time_column
from mlforge.services.completion import Output, completion, request_columns
from mlforge.services.service import Service
from mlforge.store.integrity import intact

_DRAWN = 3

log = structlog.get_logger("mlforge.training")


def joined(
    table: Table,
    reading: Reading,
    timestamp: str | None,
    engine: Engine,
    *,
    warns: bool = True,
) -> list[pl.Series]:
    """The features' columns, as long as the spine and in its order, under their names in the answer.

    Where a service names the features, its defaults take the place of nulls, and its derived columns come behind.
    timestamp: the spine's time column. warns: whether to log that a spine is made of a feature's own events.
    Raises RetrievalError for a spine that does not fit, IntegrityError where stored events are missing or damaged.
    """
    names = AnswerNames(table.columns, "the spine has a column")
    columns: list[pl.Series] = []
    for use in reading.uses:
        chosen, manifest = use.chosen, use.manifest
        labels = [names.add(use.label(c.name), manifest.name, c.name) for c in chosen]
        points = spine_points(table, manifest, timestamp, use.reference)
        events = _events(use, reading)
        if warns:
            _warn_of_own_events(events, points)
        values = evaluation.values_at(engine, events, points)
        columns += [values[c.name].alias(to) for c, to in zip(chosen, labels, strict=True)]
    if reading.service is None:
        return columns
    return _completed(reading.service, table, reading.uses, columns, timestamp)


def _events(use: FeatureUse, reading: Reading) -> Events:
    """A version's events, of which only the columns that the answer has are evaluated."""
    events = events_of(reading.store, use.manifest)
    return events.restricted(use.reference.columns) if use.reference.columns else events


def _warn_of_own_events(events: Events, points: pl.DataFrame) -> None:
    if _counts_own_events(events, points):
        log.warning(
            "the spine is made of the feature's own events, which its windows count: at the instant of an event a "
            'request has not seen it; Rolling(closed="left") leaves it out',
            feature=events.spec.name,
        )


def _completed(
    service: Service,
    table: Table,
    uses: Sequence[FeatureUse],
    columns: Sequence[pl.Series],
    timestamp: str | None,
) -> list[pl.Series]:
    """The features' columns with the service's defaults, and its derived columns behind them."""
    own = [*(c.name for c in service.request), *(c.name for c in service.derived)]
    for name in own[: len(service.request)]:
        if name not in table.columns:
            raise RetrievalError(
                f"{service.name}: the spine has no column {name!r}, which requests bring; it has "
                f"{', '.join(map(str, table.columns)) or 'none'}"
            )
    for name in own[len(service.request) :]:
        if name in table.columns:
            raise RetrievalError(
                f"the spine has a column {name!r}, which {service.name} derives, too; rename it"
            )
    values = [column for use in uses for column in use.chosen]
    outputs = tuple(
        Output(column.name, value.name, value.dtype)
        for column, value in zip(columns, values, strict=True)
    )
    request = {column.name: table.column(column.name) for column in service.request}
    instants = None
    if service.reads_t:
        timed = [
            time_column(table, use.manifest, timestamp, use.reference)
            for use in uses
            if use.manifest.spec.timestamp is not None
        ]
        instants = spine_instants(table.column(_only_time(service, table, timed, timestamp)))
    return completion(service, outputs).frame(columns, request_columns(service, request), instants)


def _only_time(service: Service, table: Table, timed: Sequence[str], timestamp: str | None) -> str:
    """The spine's column with the instant `t` of derived columns."""
    names = list(dict.fromkeys(timed)) or ([timestamp] if timestamp else table.temporal)
    if len(names) == 1 and names[0] in table.columns:
        return names[0]
    raise RetrievalError(
        f"{service.name}: its derived columns read t, and the spine's time column is not plain "
        f"({', '.join(map(str, names)) or 'there is none'}); say which with timestamp="
    )


def _counts_own_events(events: Events, points: pl.DataFrame) -> bool:
    """Whether each of a few evenly drawn points has the key and time of an event that one of its windows counts.

    points: keys and POINT. Only files that hold these times are read.
    """
    spec = events.spec
    counting = [w for w in spec.windows if w.sees_present and not w.lag]
    if spec.interval is not None or spec.timestamp is None or not counting or not spec.keys:
        return False  # without keys an instant in common proves nothing
    known = points.drop_nulls()
    drawn = known.gather_every(max(1, known.height // _DRAWN)).head(_DRAWN)
    for row in drawn.iter_slices(1):
        instant = int(row[POINT].to_physical()[0])
        times = TimeRange(instant, instant)
        within = events.within(times)
        if not within.partials:
            return False
        with intact(spec.name):
            if within.scan(spec.identity, times, row).head(1).collect().is_empty():
                return False
    return not drawn.is_empty()

"""The join of a spine with the values that features had at each row's own time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from mlforge.core.logs import get_logger
from mlforge.core.schema import Column, dtypes
from mlforge.core.values import TimeRange
from mlforge.engines import POINT, Engine, Events
from mlforge.engines.events import events_of
from mlforge.engines.shared_pass import Request, values_of_each
from mlforge.errors import RetrievalError, near_hint
from mlforge.frames.interop import Table
from mlforge.retrieval.reading import FeatureUse, Reading
from mlforge.retrieval.references import AnswerNames
from mlforge.retrieval.spine import spine_instants, spine_key, spine_points, time_column
from mlforge.services.brought import request_columns
from mlforge.services.completion import (
    Output,
    completion,
    filled_columns,
    own_defaults,
)
from mlforge.services.service import Service
from mlforge.store.integrity import intact

_DRAWN = 3

log = get_logger("mlforge.training")


def joined(
    table: Table,
    reading: Reading,
    timestamp: str | None,
    engine: Engine,
    *,
    warns: bool = True,
) -> list[pl.Series]:
    """The features' columns, as long as the spine and in its order, under their names in the answer.

    Where a service names the features, its defaults take the place of nulls, and its derived columns come behind; labels
    come behind all.
    timestamp: the spine's time column. warns: whether to log that a spine is made of a feature's own events.
    Raises RetrievalError for a spine that does not fit, IntegrityError where stored events are missing or damaged.
    """
    names = AnswerNames(table.columns, "the spine has a column")
    answer_names: list[list[str]] = []
    requests: list[Request] = []
    for use in reading.uses:
        answer_names.append(
            [names.add(use.answer_name(c.name), use.manifest.name, c.name) for c in use.chosen]
        )
        points = spine_points(table, use.manifest, timestamp, use.reference)
        requests.append(Request(_events(use, reading), points))
        if warns:
            _warn_of_own_events(requests[-1].events, points)
    outputs = [output for use in reading.uses for output in use.outputs]
    columns = [
        values[column.name].alias(name)
        for values, use, own in zip(
            values_of_each(engine, requests), reading.uses, answer_names, strict=True
        )
        for column, name in zip(use.chosen, own, strict=True)
    ]
    ahead = _labels(table, reading, timestamp, engine, names)
    service = reading.service
    if service is None:
        return [*filled_columns(columns, own_defaults(tuple(outputs))), *ahead]
    keys = _keys(table, reading.uses) if service.derived else {}
    instants = _instants(service, table, reading.uses, timestamp)
    return [*_completed(service, table, columns, tuple(outputs), keys, instants), *ahead]


def _labels(
    table: Table, reading: Reading, timestamp: str | None, engine: Engine, names: AnswerNames
) -> list[pl.Series]:
    """The labels' columns."""
    derived = [] if reading.service is None else [column.name for column in reading.service.derived]
    columns = []
    for use in reading.labels:
        if use.name in derived:
            raise RetrievalError(
                f"the service derives {use.name!r}, which is a label's name, too; rename the label"
            )
        names.add_label(use.name)
        columns.append(use.values(engine, reading.store, use.points(table, timestamp)))
    return columns


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
    columns: Sequence[pl.Series],
    outputs: tuple[Output, ...],
    keys: Mapping[str, tuple[Column, pl.Series]],
    instants: pl.Series | None,
) -> list[pl.Series]:
    """The features' columns with the service's defaults, and its derived columns behind them.

    keys: each key's column and values, by its name in the spine. instants: those of derived columns, if these read them.
    """
    for column in service.request:
        if column.name not in table.columns:
            raise RetrievalError(
                f"{service.name}: the spine has no column {column.name!r}, which requests bring; it has "
                f"{', '.join(map(str, table.columns)) or 'none'}{near_hint(column.name, table.columns)}"
            )
    for derived in service.derived:
        if derived.name in table.columns:
            raise RetrievalError(
                f"the spine has a column {derived.name!r}, which {service.name} derives, too; rename it"
            )
    request = {column.name: table.column(column.name) for column in service.request}
    complete = completion(service, outputs, tuple(column for column, _ in keys.values()))
    read_keys = [keys[name][1] for name in complete.keys]
    return complete.frame(columns, request_columns(service, request), read_keys, instants)


def _keys(table: Table, uses: Sequence[FeatureUse]) -> dict[str, tuple[Column, pl.Series]]:
    """The keys by their names in the spine, each as the first feature's dtype has it."""
    keys: dict[str, tuple[Column, pl.Series]] = {}
    for use in uses:
        dtype_of = dtypes(use.manifest.events)
        for key, name in use.reference.key_names(use.manifest.spec.keys).items():
            if name not in keys:
                values = spine_key(table, name, dtype_of[key], use.manifest.name)
                keys[name] = Column(name, dtype_of[key]), values.alias(name)
    return keys


def _instants(
    service: Service, table: Table, uses: Sequence[FeatureUse], timestamp: str | None
) -> pl.Series | None:
    """Each row's instant `t`; None where no derived column reads it."""
    if not service.reads_t:
        return None
    timed = [
        time_column(table, use.manifest, timestamp, use.reference)
        for use in uses
        if use.manifest.spec.timestamp is not None
    ]
    return spine_instants(table.column(_only_time(service, table, timed, timestamp)))


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

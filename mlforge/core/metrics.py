"""Metrics over events: descriptions only, no engine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from mlforge.core import time_model
from mlforge.core.absent_columns import refuse_condition
from mlforge.core.aggregation_kinds import KINDS
from mlforge.core.aggregations import aggregation
from mlforge.core.arguments import choice, listed, named, shown, text
from mlforge.core.calendar_units import PERIODS, Period
from mlforge.core.signatures import named_arguments
from mlforge.core.time_model import ALL, CLOSED, Closed, Window
from mlforge.core.values import Duration
from mlforge.errors import DefinitionError

_NAME_A_COLUMN = (
    'name a boolean event column, as in where="is_refund", which the function returns: '
    'df.with_columns((pl.col("amount") < 0).alias("is_refund"))'
)
_ZERO = re.compile(r"0+(w|d|h|m|s|ms|us)")


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """An output column: an aggregation of an event column over one window.

    where: a boolean event column; only events for which it is true count.
    """

    column: str
    aggregation: str
    window: Window
    where: str | None = None

    @property
    def name(self) -> str:
        """`amount__sum__7d`, with `__offset_1d` and the column of `where` behind it where there are such."""
        offset = f"__offset_{self.window.offset}" if self.window.offset else ""
        where = f"__{self.where}" if self.where else ""
        return f"{self.column}__{self.aggregation}__{self.window.name}{offset}{where}"

    @property
    def value(self) -> str:
        """The name of the values aggregated: of the column, or of its values where `where` is true.

        No column of a source has the latter's, as none begins with two underscores.
        """
        if self.where is None:
            return self.column
        return f"__where_{len(self.where)}_{self.where}_{self.column}"


@dataclass(frozen=True, init=False)
class Metric:
    """Aggregations of event columns over windows: what `Rolling` and `ToDate` have in common."""

    windows: tuple[Duration | Period, ...]
    aggregations: tuple[tuple[str, tuple[str, ...]], ...]
    closed: Closed | None
    offset: Duration | None
    where: str | None

    def _set(
        self,
        windows: tuple[Duration | Period, ...],
        aggregations: Mapping[str, Sequence[str] | str],
        closed: Closed | None,
        offset: str | timedelta | None,
        where: str | None,
    ) -> None:
        """Check and keep the arguments."""
        name, set_ = type(self).__name__, object.__setattr__
        by_column = named(aggregations, f"{name} aggregations", 'write {"amount": ["sum", "mean"]}')
        if not windows or not by_column:
            raise DefinitionError(f"{name} needs at least one window and one aggregation")
        if closed is not None:
            choice(closed, CLOSED, f"{name}: closed")
        set_(self, "windows", windows)
        set_(
            self,
            "aggregations",
            tuple(
                (column, _aggregations(name, column, names)) for column, names in by_column.items()
            ),
        )
        set_(self, "closed", closed)
        set_(self, "offset", _offset(name, offset))
        where = None if where is None else text(where, f"{name}: where", _NAME_A_COLUMN)
        if where is not None:
            refuse_condition(where, f"{name}: where")
        set_(self, "where", where)

    def columns(self, interval: Duration | None) -> tuple[MetricColumn, ...]:
        """The output columns, given the feature's interval: by event column, aggregation, window."""
        closed: Closed = self.closed or ("both" if interval is None else "left")
        return tuple(
            MetricColumn(column, name, Window(width, self.offset, closed), self.where)
            for column, names in self.aggregations
            for name in names
            for width in self.windows
        )


@dataclass(frozen=True, init=False)
class Rolling(Metric):
    """Aggregations over rolling windows.

    windows: fixed durations, `"7d"` (w d h m s ms) or timedeltas; `"all"` for all events so far.
    aggregations: event column -> some of count, sum, mean, min, max, std, var, median, p1 to p99, p99_9, first,
        last, first_time, last_time, first_K, last_K (K 1 to 1000), count_distinct, mode, top_K.
    closed: which ends of the window belong to it, "both" (the default without an interval), "right",
        "left" (leaves the present event out) or "none". An aligned feature's are always "left".
    offset: how long before the point the windows end; none by default.
    where: a boolean event column: only events for which it is true count, so null is not enough.

    Raises DefinitionError for an unknown aggregation, window or `closed`.
    """

    @named_arguments("Rolling", 'write Rolling(["7d", "30d"], {"amount": ["sum", "mean"]})')
    def __init__(
        self,
        windows: Sequence[str | timedelta] | str | timedelta,
        aggregations: Mapping[str, Sequence[str] | str],
        closed: Closed | None = None,
        offset: str | timedelta | None = None,
        where: str | None = None,
    ) -> None:
        one = isinstance(windows, (str, timedelta))
        lengths = listed(
            [windows] if one else windows, "Rolling windows", 'write windows=["7d", "30d"]'
        )
        self._set(tuple(map(_rolling, lengths)), aggregations, closed, offset, where)


@dataclass(frozen=True, init=False)
class ToDate(Metric):
    """Aggregations over calendar periods so far: from the start of the UTC day, ISO week, month or year to `t`.

    periods: `"1d"`, `"1w"`, `"1mo"`, `"1y"`, or several; columns are named `amount__sum__dtd`, wtd, mtd, ytd.
    offset: how long before the point the windows end; they start with the period that holds that end.
    aggregations, closed, where: as of `Rolling`; `closed` also says whether an event at the very start of the
        period counts.

    At the instant at which a period starts, it holds at most the events of that instant. Raises DefinitionError
    for an unknown period, aggregation or `closed`.
    """

    @named_arguments("ToDate", 'write ToDate("1mo", {"amount": "sum"})')
    def __init__(
        self,
        periods: Sequence[str] | str,
        aggregations: Mapping[str, Sequence[str] | str],
        closed: Closed | None = None,
        offset: str | timedelta | None = None,
        where: str | None = None,
    ) -> None:
        one = isinstance(periods, str)
        texts = listed([periods] if one else periods, "ToDate periods", 'write "1mo"')
        for period in texts:
            if not isinstance(period, str) or period not in PERIODS:
                raise DefinitionError(
                    f"ToDate period {shown(period)} is unknown; it is one of {', '.join(map(repr, PERIODS))}: "
                    "the UTC day, ISO week, month or year so far"
                )
        self._set(tuple(PERIODS[period] for period in texts), aggregations, closed, offset, where)


def expand(
    metrics: Iterable[Metric], interval: Duration | None, owner: str
) -> tuple[MetricColumn, ...]:
    """Every output column of a feature's metrics; what contradicts itself is refused."""
    columns: dict[str, MetricColumn] = {}
    for metric in metrics:
        _check_interval(metric, interval, owner)
        for column in metric.columns(interval):
            if column.name in columns:
                raise DefinitionError(
                    f"{owner}: two metrics give the column {column.name!r}; drop one, or give it another window, offset or where"
                )
            columns[column.name] = column
    return tuple(columns.values())


def _rolling(window: object) -> Duration:
    """The length of a rolling window."""
    if isinstance(window, str) and window == ALL.name:
        return ALL
    try:
        return Duration.parse(window, "window")
    except DefinitionError as error:
        ways = "'all' holds all events so far"
        if isinstance(window, str) and window in PERIODS:
            ways = f"ToDate({window!r}) goes back to the start of the period"
        raise DefinitionError(f"{error}; {ways}") from None


def _offset(owner: str, offset: str | timedelta | None) -> Duration | None:
    """None for no offset, however zero is written."""
    if offset is None or (isinstance(offset, timedelta) and offset == timedelta(0)):
        return None
    if isinstance(offset, str) and _ZERO.fullmatch(offset):
        return None
    if isinstance(offset, timedelta) and offset < timedelta(0):
        raise DefinitionError(
            f"{owner} offset={offset!r} is negative, but no window ends after its point; "
            "give how long before it the window ends, as in '1d', or leave it out"
        )
    return Duration.parse(offset, "offset")


def _aggregations(owner: str, column: str, names: Sequence[str] | str) -> tuple[str, ...]:
    what = f"{owner} aggregations of column {column!r}"
    names = (names,) if isinstance(names, str) else listed(names, what, 'write ["sum", "mean"]')
    if not names:
        raise DefinitionError(
            f"{owner}: no aggregation for column {column!r}; use some of {', '.join(KINDS)}"
        )
    for name in names:
        text(name, f"each of {what}", 'write ["sum", "mean"]')
        try:
            aggregation(name)
        except DefinitionError as error:
            raise DefinitionError(f"{owner}: column {column!r}: {error}") from None
    return names


def _check_interval(metric: Metric, interval: Duration | None, owner: str) -> None:
    if interval is None:
        return
    if metric.closed not in (None, "left"):
        raise DefinitionError(
            f"{owner}: closed={metric.closed!r} does not go with an interval, whose windows end before "
            "the boundary; leave it out, or drop the interval"
        )
    offset = [] if metric.offset is None else [("offset", metric.offset)]
    for what, length in [("window", w) for w in metric.windows] + offset:
        misfit = time_model.misfit(length, interval)
        if misfit is not None:
            raise DefinitionError(f"{owner}: {what} {length} {misfit}")

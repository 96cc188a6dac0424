"""Metrics over events: descriptions only, no engine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from mlforge.core.aggregations import KINDS, aggregation
from mlforge.core.arguments import choice, listed, named, text
from mlforge.core.time_model import CLOSED, Closed, Window
from mlforge.core.values import Duration
from mlforge.errors import DefinitionError

_NAME_A_COLUMN = 'name a boolean event column, as in where="is_refund"'
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
        return f"{self.column}__{self.aggregation}__{self.window.width}{offset}{where}"

    @property
    def value(self) -> str:
        """The name of the values aggregated: of the column, or of its values where `where` is true.

        No column of a source has the latter's, as none begins with two underscores.
        """
        if self.where is None:
            return self.column
        return f"__where_{len(self.where)}_{self.where}_{self.column}"


@dataclass(frozen=True, init=False)
class Rolling:
    """Aggregations over rolling windows.

    windows: fixed durations, `"7d"` (w d h m s ms) or timedeltas.
    aggregations: event column -> some of count, sum, mean, min, max, std, median.
    closed: which ends of the window belong to it, "both" (the default without an interval), "right",
        "left" (leaves the present event out) or "none". An aligned feature's are always "left".
    offset: how long before the point the windows end; none by default.
    where: a boolean event column: only events for which it is true count, so null is not enough.

    Raises DefinitionError for an unknown aggregation, window or `closed`.
    """

    windows: tuple[Duration, ...]
    aggregations: tuple[tuple[str, tuple[str, ...]], ...]
    closed: Closed | None
    offset: Duration | None
    where: str | None

    def __init__(
        self,
        windows: Sequence[str | timedelta] | str | timedelta,
        aggregations: Mapping[str, Sequence[str] | str],
        closed: Closed | None = None,
        offset: str | timedelta | None = None,
        where: str | None = None,
    ) -> None:
        if isinstance(windows, (str, timedelta)):
            windows = [windows]
        lengths = listed(windows, "Rolling windows", 'write windows=["7d", "30d"]')
        by_column = named(aggregations, "Rolling aggregations", 'write {"amount": ["sum", "mean"]}')
        if not lengths or not by_column:
            raise DefinitionError("Rolling needs at least one window and one aggregation")
        if closed is not None:
            choice(closed, CLOSED, "Rolling: closed")
        set_ = object.__setattr__
        set_(self, "windows", tuple(Duration.parse(window, "window") for window in lengths))
        set_(
            self,
            "aggregations",
            tuple((column, _aggregations(column, names)) for column, names in by_column.items()),
        )
        set_(self, "closed", closed)
        set_(self, "offset", _offset(offset))
        set_(
            self, "where", None if where is None else text(where, "Rolling: where", _NAME_A_COLUMN)
        )

    def columns(self, interval: Duration | None) -> tuple[MetricColumn, ...]:
        """The output columns, given the feature's interval: by event column, aggregation, window."""
        closed: Closed = self.closed or ("both" if interval is None else "left")
        return tuple(
            MetricColumn(column, name, Window(width, self.offset, closed), self.where)
            for column, names in self.aggregations
            for name in names
            for width in self.windows
        )


def expand(
    metrics: Iterable[Rolling], interval: Duration | None, owner: str
) -> tuple[MetricColumn, ...]:
    """Every output column of a feature's metrics; what contradicts itself is refused."""
    columns: dict[str, MetricColumn] = {}
    for rolling in metrics:
        _check_interval(rolling, interval, owner)
        for column in rolling.columns(interval):
            if column.name in columns:
                raise DefinitionError(
                    f"{owner}: two metrics give the column {column.name!r}; drop one, or give it another window, offset or where"
                )
            columns[column.name] = column
    return tuple(columns.values())


def _offset(offset: str | timedelta | None) -> Duration | None:
    """None for no offset, however zero is written."""
    if offset is None or (isinstance(offset, timedelta) and offset == timedelta(0)):
        return None
    if isinstance(offset, str) and _ZERO.fullmatch(offset):
        return None
    if isinstance(offset, timedelta) and offset < timedelta(0):
        raise DefinitionError(
            f"Rolling offset={offset!r} is negative, but no window ends after its point; "
            "give how long before it the window ends, as in '1d', or leave it out"
        )
    return Duration.parse(offset, "offset")


def _aggregations(column: str, names: Sequence[str] | str) -> tuple[str, ...]:
    what = f"Rolling aggregations of column {column!r}"
    names = (names,) if isinstance(names, str) else listed(names, what, 'write ["sum", "mean"]')
    if not names:
        raise DefinitionError(
            f"Rolling: no aggregation for column {column!r}; use some of {', '.join(KINDS)}"
        )
    for name in names:
        text(name, f"each of {what}", 'write ["sum", "mean"]')
        try:
            aggregation(name)
        except DefinitionError as error:
            raise DefinitionError(f"Rolling: column {column!r}: {error}") from None
    return names


def _check_interval(rolling: Rolling, interval: Duration | None, owner: str) -> None:
    if interval is None:
        return
    if rolling.closed not in (None, "left"):
        raise DefinitionError(
            f"{owner}: closed={rolling.closed!r} does not go with an interval, whose windows end before "
            "the boundary; leave it out, or drop the interval"
        )
    for what, length in [("window", w) for w in rolling.windows] + [("offset", rolling.offset)]:
        if length is not None and length.us % interval.us:
            raise DefinitionError(
                f"{owner}: {what} {length} is not a multiple of the interval {interval}"
            )

"""The drift of the rows that a version adds after the last row of the served one, against the rows of that one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlforge.core import clock, time_model
from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest, Part
from mlforge.core.schema import Schema
from mlforge.core.validators import OnFail, Rule
from mlforge.core.values import BEGINNING, END, TimeRange, Version, to_iso
from mlforge.errors import DefinitionError, IntegrityError, did_you_mean
from mlforge.features.feature import Feature
from mlforge.frames.polars_schema import microseconds
from mlforge.profiles.column_profile import ColumnProfile
from mlforge.profiles.drift import FEWEST, drift_of
from mlforge.profiles.measure import profile_column
from mlforge.profiles.table import profile_rows
from mlforge.profiles.warm_up import warm_from
from mlforge.sources.damage import DAMAGE
from mlforge.store import DriftNote, Store, Transaction

FOR_DRIFT = "later rows have drifted"
"""The beginning of the reason for a hold that drift is the cause of."""
log = get_logger("mlforge.build")
Rules = Mapping[str, tuple[Rule, ...]]


def check_table_rules(feature: Feature, columns: Schema) -> None:
    """Raise DefinitionError for a rule of a column that the feature's table does not have."""
    names = [column.name for column in columns]
    for column, rules in feature.table_rules.items():
        if column not in names:
            raise DefinitionError(
                f"{feature.name}: {rules[0]} of {column!r}: its table has no such column; {did_you_mean(column, names)}"
            )


@dataclass(frozen=True)
class Judgement:
    """The index of each judged column; where too few rows are later, or there is no rule, none.

    against: the served version, and the last instant of its rows.
    """

    rules: Rules
    indexes: Mapping[str, float] = field(default_factory=dict)
    against: str = ""

    def breaks(self, on_fail: OnFail) -> str | None:
        """The columns that break rules with this `on_fail`, in words; None where none does."""
        broken = [
            f"{column} has an index of {index:.2f}, {rule.describe()} allows less than {_limit(rule)}"
            for column, index in self.indexes.items()
            for rule in self.rules[column]
            if rule.on_fail == on_fail and index >= _limit(rule)
        ]
        return f"{FOR_DRIFT} from {self.against}: {'; '.join(broken)}" if broken else None

    def hold(self, name: str) -> str | None:
        """The reason to hold a feature that nobody attends to; None where there is none."""
        reason = self.breaks("error")
        return (
            f"{reason}; 'mlforge approve {name}' or a build goes on with them" if reason else None
        )

    def warnings(self) -> tuple[str, ...]:
        """Sentences on all that is broken, for a refresh that goes on nevertheless."""
        error, warn = self.breaks("error"), self.breaks("warn")
        held = f"{error}; a worker would hold the feature for it" if error else None
        return tuple(filter(None, (held, warn)))

    def noted(
        self, before: Mapping[str, DriftNote], version: Version | None
    ) -> dict[str, DriftNote]:
        """The notes of the books: judged columns anew, others as before, none of columns without a rule."""
        notes = {column: note for column, note in before.items() if column in self.rules}
        for column, index in self.indexes.items():
            limit = min(map(_limit, self.rules[column]))
            notes[column] = DriftNote(index, limit, str(version))
        return notes


def _limit(rule: Rule) -> float:
    """The index from which on the rule is broken."""
    [limit] = rule.arguments
    assert isinstance(limit, float)
    return limit


def judged(
    rules: Rules, store: Store, tx: Transaction, latest: Manifest | None, candidate: Manifest
) -> Judgement:
    """Hold the later rows of a transaction's table against those of the served version.

    Rows whose windows reach before the first event count on neither side. A served version that cannot be read is not
    held against anything, as its successor mends it.
    """
    if not rules or latest is None or latest.spec.timestamp != candidate.spec.timestamp:
        return Judgement(rules)
    times = _compared(latest, candidate, clock.now())
    if times is None:
        return Judgement(rules)
    served, later = times
    shared = rules.keys() & {column.name for column in latest.columns}
    columns = [column for column in rules if column in shared]
    try:
        before = profile_rows(store, latest, _spans(latest, columns, served))
        after = _profiles(tx, candidate, _spans(candidate, columns, later))
    except (IntegrityError, *DAMAGE) as error:
        log.warning("drift cannot be judged", feature=candidate.name, error=str(error))
        return Judgement(rules)
    drifts = [drift_of(column, before[column], after[column]) for column in columns]
    indexes = {drift.column: drift.index for drift in drifts if drift.index is not None}
    return Judgement(rules, indexes, f"the rows of {latest.version}, until {to_iso(served.end)}")


def _compared(
    latest: Manifest, candidate: Manifest, now: int
) -> tuple[TimeRange, TimeRange] | None:
    """The times of the served rows and of the later ones; None where too few rows are later.

    Where nothing comes behind the last served row, and that is ahead of the clock, as one dated 2099 is for ever, the rows
    up to the clock are compared: those behind the last served one of these.
    """
    last = _last(latest.parts)
    if last is None:
        return None
    if _later_rows(candidate, last) >= FEWEST:
        return TimeRange(BEGINNING, last), TimeRange(last + 1, END)
    if not latest.frontier:
        return None
    reached, interval = latest.reached(now), candidate.spec.interval
    assert reached is not None, "a version with events ahead has events"
    last, limit = (time_model.row_point(instant, interval) for instant in (reached, now))
    if last >= limit or _later_rows(candidate, last) < FEWEST:
        return None
    return TimeRange(BEGINNING, last), TimeRange(last + 1, limit)


def _last(parts: Iterable[Part]) -> int | None:
    """The last instant of the rows of a table; None where it has none."""
    return max((part.times.end for part in parts if part.times), default=None)


def _later_rows(candidate: Manifest, last: int) -> int:
    """An upper bound of the rows after an instant: those of parts that reach beyond it."""
    return sum(part.rows for part in candidate.parts if part.times and part.times.end > last)


def _spans(manifest: Manifest, columns: Iterable[str], times: TimeRange) -> dict[str, TimeRange]:
    """The times in which each column's windows are warm, within a range."""
    warm = warm_from(manifest)
    return {c: TimeRange(max(times.start, warm[c]), times.end) for c in columns}


def _profiles(
    tx: Transaction, candidate: Manifest, spans: Mapping[str, TimeRange]
) -> dict[str, ColumnProfile]:
    """The profiles of columns over the rows of a written table within their times, a column after the other."""
    assert candidate.spec.timestamp is not None
    instant = microseconds(candidate.spec.timestamp)
    profiles = {}
    for column, span in spans.items():
        rows = tx.scan_table().filter(instant.is_between(span.start, span.end))
        profiles[column] = profile_column(rows.select(column).collect().to_series())
    return profiles

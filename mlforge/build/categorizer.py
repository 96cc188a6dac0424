"""Which version a change makes: a pure decision.

| change                                              | bump  | reason              |
|-----------------------------------------------------|-------|---------------------|
| first build                                         | 1.0.0 | first_build         |
| metrics removed                                     | MAJOR | metrics_removed     |
| columns removed, of the output or the function's    | MAJOR | columns_removed     |
| a column's dtype changed                            | MAJOR | dtype_changed       |
| keys, time, interval, clock, window ends changed    | MINOR | config_changed      |
| a derived column's expression changed               | MINOR | config_changed      |
| metrics added                                       | MINOR | metrics_added       |
| columns added                                       | MINOR | added_columns       |
| the function changed, the schema did not            | MINOR | logic_changed       |
| events changed                                      | PATCH | data_refresh        |
| nothing changed                                     | none  | unchanged           |
| after a rollback: as the highest version            | PATCH | rolled_forward      |

The first row that applies decides; an explicit version always makes one. Where its number goes further than the change,
the bump is that of the number, for the reason explicit_version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlforge.core.expression.columns import Derived
from mlforge.core.manifest import ChangeSummary, Manifest, config_of
from mlforge.core.metrics import MetricColumn
from mlforge.core.nested import agree
from mlforge.core.schema import Schema, dtypes
from mlforge.core.text import plural
from mlforge.core.values import BUMP_ORDER, Bump, Version
from mlforge.errors import VersionConflict

FIRST = Version(1, 0, 0)
_BY_COLUMN = ("metrics", "derive")  # settings that are compared column by column


@dataclass(frozen=True, slots=True)
class DataChange:
    """How the events differ from those of the version before."""

    rows: int
    entities: int | None
    files_added: tuple[str, ...] = ()
    files_removed: tuple[str, ...] = ()
    files_replaced: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """How many rows differ, of how many entities where that is known."""
        rows = plural(self.rows, "row")
        if self.entities is None:
            return rows
        return f"{rows} of {plural(self.entities, 'entity', 'entities')}"

    def evidence(self) -> dict[str, Any]:
        """Counts, and up to twenty names of each kind of file."""
        return {
            "rows_changed": self.rows,
            **({"entities": self.entities} if self.entities is not None else {}),
            **{
                kind: {"count": len(names), "first": list(names[:20])}
                for kind, names in (
                    ("files_added", self.files_added),
                    ("files_removed", self.files_removed),
                    ("files_replaced", self.files_replaced),
                )
                if names
            },
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """How two sets of columns differ, by name."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: Schema, new: Schema) -> Difference:
        """Columns that were added, removed, or changed their dtype."""
        before, after = dtypes(old), dtypes(new)
        return cls(
            tuple(name for name in after if name not in before),
            tuple(name for name in before if name not in after),
            tuple(n for n in after if n in before and not agree(before[n], after[n])),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The version to publish and why; `version` is None when there is nothing to publish."""

    version: Version | None
    bump: Bump | None
    reason: str
    details: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> ChangeSummary:
        """The decision as `.meta.json` tells it."""
        return ChangeSummary(self.bump or "none", self.reason, self.details, self.evidence)


def decide(
    latest: Manifest | None,
    new: Manifest,
    data: DataChange,
    highest: Version | None = None,
    explicit: Version | None = None,
) -> Decision:
    """Compare a candidate with the latest version.

    highest: the greatest version that exists, which after a rollback is above the latest; numbers
        go on from it. explicit: a version asked for; VersionConflict if it is taken or too low. Its bump is that of the
        number or of the change, whichever is greater.
    """
    highest = highest or (latest.version if latest else None)
    bump, reason, details, evidence = _change(latest, new, data)
    if explicit is not None:
        if highest is not None and explicit <= highest:
            raise VersionConflict(
                f"{new.name}: version {explicit} is not above the highest, {highest}; versions are never overwritten"
            )
        step = explicit.step_from(highest) if highest else "major"
        evidence = {**evidence, "asked_for": str(explicit)}
        if bump is not None and BUMP_ORDER.index(bump) >= BUMP_ORDER.index(step):
            return Decision(explicit, bump, reason, details, evidence)
        alone = f"the change alone is a {bump}: {reason}" if bump else "nothing changed"
        return Decision(explicit, step, "explicit_version", (alone,), evidence)
    if bump is None:
        return Decision(None, None, reason)
    version = FIRST if highest is None else highest.bumped(bump)
    return Decision(version, bump, reason, details, evidence)


def rolled_forward(
    decision: Decision, highest: Manifest, new: Manifest, data: DataChange
) -> Decision:
    """A decision that follows a rollback, numbered by how the candidate differs from the highest version.

    decision: by how it differs from the version that is served. A change that the highest version made is
    published again as a PATCH above it: its columns are those that the number stands for.
    """
    assert highest.version is not None
    bump, reason, details, evidence = _change(highest, new, data)
    if bump is None:
        bump, reason = "patch", decision.reason if decision.bump == "patch" else "rolled_forward"
        details = (
            decision.details
            if decision.bump == "patch"
            else (f"as {highest.version}, which was rolled back from",)
        )
        evidence = dict(decision.evidence)
    return Decision(highest.version.bumped(bump), bump, reason, details, evidence)


def _change(
    latest: Manifest | None, new: Manifest, data: DataChange
) -> tuple[Bump | None, str, tuple[str, ...], dict[str, Any]]:
    if latest is None:
        return "major", "first_build", tuple(column.name for column in new.columns), data.evidence()
    output = Difference.between(latest.columns, new.columns)
    inner = Difference.between(latest.events, new.events)
    metrics = _metrics(latest, new)
    derived = _by_name(latest.spec.derived, new.spec.derived)
    before, after = config_of(latest.spec), config_of(new.spec)
    config = tuple(key for key in before if key not in _BY_COLUMN and before[key] != after[key])
    logic = latest.code_hash != new.code_hash
    evidence: dict[str, Any] = {}
    for label, difference in (
        ("columns", output),
        ("function_columns", inner),
        ("metrics", metrics),
        ("derived", derived),
    ):
        for kind in ("added", "removed", "retyped"):
            if names := getattr(difference, kind):
                evidence[f"{label}_{kind}"] = list(names)
    if logic:
        evidence |= {"code_hash_before": latest.code_hash, "code_hash_after": new.code_hash}
    if data.rows:
        evidence |= data.evidence()
    rows: tuple[tuple[Bump, str, tuple[str, ...]], ...] = (
        ("major", "metrics_removed", metrics.removed),
        ("major", "columns_removed", output.removed or inner.removed),
        ("major", "dtype_changed", output.retyped or inner.retyped),
        ("minor", "config_changed", config or metrics.retyped or derived.retyped),
        ("minor", "metrics_added", metrics.added),
        ("minor", "added_columns", output.added or inner.added),
        (
            "minor",
            "logic_changed",
            ("the function's code changed, its columns did not",) if logic else (),
        ),
        (
            "patch",
            "data_refresh",
            (data.text,) if data.rows else (),
        ),
    )
    for bump, reason, details in rows:
        if details:
            return bump, reason, details, evidence
    return None, "unchanged", (), {}


def _metrics(latest: Manifest, new: Manifest) -> Difference:
    """Metrics by column name; one whose window has other ends counts as retyped."""
    return _by_name(latest.spec.columns, new.spec.columns)


def _by_name(
    old: Sequence[MetricColumn | Derived], new: Sequence[MetricColumn | Derived]
) -> Difference:
    """Columns by name; one of another meaning counts as retyped."""
    before = {column.name: column for column in old}
    after = {column.name: column for column in new}
    return Difference(
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name in before and after[name] != before[name]),
    )

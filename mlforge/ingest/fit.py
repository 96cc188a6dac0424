"""How the files of a source fit together: the schema that their partials share, and the files left out.

A column is the union over files, null where a file lacks it, in the least dtype that holds all of them. Only
where nothing holds all, and the feature needs the column, files are left out. The order in which files came
does not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from mlforge.core.manifest import Partial
from mlforge.core.schema import Column, Schema, dtypes
from mlforge.core.widening import Backing, holds, narrowed, settle
from mlforge.features.feature import Feature

_NULL = "Null"


@dataclass(frozen=True, slots=True)
class Misfit:
    """A column of a file in a dtype whose values the column's dtype in the other files, `target`, does not hold."""

    column: str
    dtype: str
    target: str

    def __str__(self) -> str:
        return (
            f"column {self.column!r} is {self.dtype}, in the other files it is {self.target}; "
            "write it as they do"
        )

    @property
    def of_function(self) -> str:
        """The reason in words, where the column is one that the feature's function returns of each file."""
        return f"{self}, or have the function return {_cast(self.column, self.target)}"


@dataclass(frozen=True)
class Fit:
    """The common schema, and by the identity of a partial's schema why it does not fit, if so.

    lacking: by column, how many files lack it where other files have it. widened: how many files have a column in which
    lesser dtype.
    """

    schema: Schema
    misfits: Mapping[int, Misfit] = field(default_factory=dict)
    lacking: Mapping[str, int] = field(default_factory=dict)
    widened: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def evidence(self) -> dict[str, Any]:
        """The differences between files, as evidence for a change summary."""
        common = dtypes(self.schema)
        widened = {
            name: {"to": common[name], "files": dict(files)} for name, files in self.widened.items()
        }
        return {
            **({"files_lacking": dict(self.lacking)} if self.lacking else {}),
            **({"widened": widened} if widened else {}),
        }


@dataclass(frozen=True, slots=True)
class _Group:
    """The partials of one schema. `empty`: no partial has a row, so their dtypes do not count."""

    schema: Schema
    backing: Backing
    empty: bool

    def column(self, name: str) -> Column | None:
        """A column of theirs that has a dtype, None where they lack it or it is null throughout."""
        return next((c for c in self.schema if c.name == name and c.dtype != _NULL), None)


_schema_of = attrgetter("schema")


def strict_columns(feature: Feature) -> Collection[str] | None:
    """The columns in which files must agree: all that values follow from or rules require; None: every one."""
    spec = feature.spec
    return (*spec.needed(), *feature.required) if spec.columns else None


def fit(partials: Iterable[Partial], strict: Collection[str] | None) -> Fit | None:
    """The common schema of partials; None without partials.

    strict: columns for which a file of another dtype is left out; in others its values count as null. None
    is every column.
    """
    partials = list(partials)
    schemas = schemas_of(partials)
    if not schemas:
        return None
    if len(schemas) == 1:
        return Fit(next(iter(schemas.values())))
    groups = _groups(partials)
    misfits = _misfits(groups, _names(groups), strict)
    fitting = [group for group in groups if id(group.schema) not in misfits]
    # Columns of the fitting files only: columns that only other files have do not belong to the feature.
    names = _names(fitting)
    return Fit(
        schema=_common(fitting, {name: _settled(fitting, name) for name in names}),
        misfits=misfits,
        lacking=_lacking(fitting, names),
        widened=_widened(fitting, names),
    )


def schemas_of(partials: Iterable[Partial]) -> dict[int, Schema]:
    """The schemas of partials, by their identity: hashing the schema of each would take longer than all else."""
    schemas = [*map(_schema_of, partials)]
    return dict(zip(map(id, schemas), schemas, strict=True))


def misfit(schema: Schema, common: Schema, strict: Collection[str] | None) -> Misfit | None:
    """Why a partial's schema does not fit the common one, None if it does; more columns do no harm."""
    settled = {column.name: column.dtype for column in common}
    return _misfit(schema, settled, strict)


def _misfits(
    groups: Sequence[_Group], names: Sequence[str], strict: Collection[str] | None
) -> dict[int, Misfit]:
    """Why files do not fit, by the identity of their schema. At least one file with a row does.

    Each file has a say in each column; but where that leaves none, as where two files differ in two columns and each has its way in one,
    columns are settled one after the other, by those files alone that fit so far.
    """
    having_rows = [group for group in groups if not group.empty]
    found = _unlike(having_rows, {name: _settled(groups, name) for name in names}, strict)
    if len(found) < len(having_rows) or not found:
        return found
    misfits, left = dict[int, Misfit](), having_rows
    for name in names:
        misfits |= _unlike(left, {name: _settled(left, name)}, strict)
        left = [group for group in left if id(group.schema) not in misfits]
    return misfits


def _unlike(
    groups: Iterable[_Group], settled: Mapping[str, str], strict: Collection[str] | None
) -> dict[int, Misfit]:
    """Why files do not have the settled dtypes, by the identity of their schema; without those that do."""
    reasons = ((id(g.schema), _misfit(g.schema, settled, strict)) for g in groups)
    return {schema: reason for schema, reason in reasons if reason}


def _groups(partials: Iterable[Partial]) -> list[_Group]:
    """The partials by schema, told by its identity."""
    by_schema: dict[int, list[Partial]] = defaultdict(list)
    for partial in partials:
        by_schema[id(partial.schema)].append(partial)
    groups = []
    for alike in by_schema.values():
        rows = sum([partial.rows for partial in alike])
        groups.append(_Group(alike[0].schema, Backing(len(alike), rows), rows == 0))
    return groups


def _names(groups: Iterable[_Group]) -> list[str]:
    """All column names: first those of the commonest schema, then those of rarer ones, in each schema's order."""
    ranked = sorted(groups, key=_weight)
    return list(dict.fromkeys(column.name for group in ranked for column in group.schema))


def _weight(group: _Group) -> tuple[bool, int, int, int, str]:
    typed = sum(column.dtype != _NULL for column in group.schema)
    backing = group.backing
    return group.empty, -backing.files, -backing.rows, -typed, str(group.schema)


def _settled(groups: Iterable[_Group], name: str) -> str:
    """The dtype that a column takes; files without rows count only where no other file has the column."""
    having = [(group, column) for group in groups if (column := group.column(name))]
    if any(not group.empty for group, _ in having):
        having = [(group, column) for group, column in having if not group.empty]
    backing: dict[str, Backing] = defaultdict(Backing)
    for group, column in having:
        backing[narrowed(column.dtype, narrow=column.narrow)] += group.backing
    return settle(backing) if backing else _NULL


def _misfit(
    schema: Schema, settled: Mapping[str, str], strict: Collection[str] | None
) -> Misfit | None:
    for column in schema:
        target = settled.get(column.name, column.dtype)
        if column.dtype == _NULL or (strict is not None and column.name not in strict):
            continue
        if not holds(target, narrowed(column.dtype, narrow=column.narrow)):
            return Misfit(column.name, column.dtype, target)
    return None


def _cast(name: str, dtype: str) -> str:
    if dtype.startswith("Datetime"):
        return f"pl.col({name!r}) as {dtype}"
    return f"pl.col({name!r}).cast(pl.{dtype})"


def _common(groups: Iterable[_Group], settled: Mapping[str, str]) -> Schema:
    """The settled columns; the commonest schema object itself where it equals them."""
    commonest = min(groups, key=_weight).schema
    if dtypes(commonest) == dict(settled):
        return commonest
    return tuple(Column(name, dtype) for name, dtype in settled.items())


def _lacking(groups: Iterable[_Group], names: Iterable[str]) -> dict[str, int]:
    groups = [group for group in groups if not group.empty]
    having = {name: {id(g) for g in groups if name in dtypes(g.schema)} for name in names}
    counts = {
        name: sum(group.backing.files for group in groups if id(group) not in holders)
        for name, holders in having.items()
    }
    return {name: count for name, count in counts.items() if count}


def _widened(groups: Iterable[_Group], names: Iterable[str]) -> dict[str, dict[str, int]]:
    groups = [group for group in groups if not group.empty]
    result: dict[str, dict[str, int]] = {}
    for name in names:
        target, files = _settled(groups, name), dict[str, int]()
        for group in groups:
            column = group.column(name)
            if column is not None and column.dtype != target:
                files[column.dtype] = files.get(column.dtype, 0) + group.backing.files
        if files:
            result[name] = files
    return result

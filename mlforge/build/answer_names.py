"""Names in answers that a version would give twice: of features without metrics, whose columns follow from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest
from mlforge.errors import DefinitionError
from mlforge.store import Store


def check_answer_names(
    store: Store, candidate: Manifest, latest: Manifest | None, others: Iterable[FeatureSpec]
) -> None:
    """Refuse a version with a column that the latest has not, and whose name in an answer another feature's column or key has.

    others: the features of the same definitions. What was there before is left to requests. Raises DefinitionError.
    """
    before = {column.name for column in latest.columns} if latest else set()
    came = [c for c in _columns(candidate) if c not in before]
    names = {f"{candidate.name}__{column}": column for column in came}
    identity = [name for name in candidate.spec.identity if name not in before]
    for other in others if names or identity else ():
        for name in sorted(names.keys() & {*other.identity}):
            raise DefinitionError(
                f"{candidate.name}: its column {names[name]!r} would be {name!r} in an answer, as is a key or the timestamp of "
                f"{other.name}; rename the column, or give {candidate.name} another name="
            )
        if other.name == candidate.name or not any(
            _may_begin(name, other.name) for name in (*names, *identity)
        ):
            continue
        for column in _known(store, other):
            name = f"{other.name}__{column}"
            if name in names:
                raise DefinitionError(
                    f"{candidate.name}: its column {names[name]!r} and the column {column!r} of {other.name} would both be "
                    f"{name!r} in an answer; rename one of them, or give one of the features another name="
                )
            if name in identity:
                raise DefinitionError(
                    f"{candidate.name}: its key or timestamp {name!r} is what the column {column!r} of {other.name} would be in an "
                    f"answer; rename one of them, or give {other.name} another name="
                )


def _may_begin(name: str, feature: str) -> bool:
    return name.startswith(f"{feature}__")


def _known(store: Store, other: FeatureSpec) -> Sequence[str]:
    """The value columns that another feature has by now, or will have."""
    latest = store.latest(other.name)
    return [*other.output_names, *(_columns(latest) if latest else ())]


def _columns(manifest: Manifest) -> list[str]:
    """The names of a version's value columns."""
    return [column.name for column in manifest.columns if column.name not in manifest.spec.identity]

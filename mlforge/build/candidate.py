"""The version that an intake would make, before it has a number and rows."""

from __future__ import annotations

from collections.abc import Sequence

from mlforge.build.defaults import check_defaults
from mlforge.build.drifting import check_table_rules
from mlforge.core.list_diff import differing
from mlforge.core.manifest import Manifest, Partial, PartialSums
from mlforge.core.release import RELEASE
from mlforge.core.schema import Schema
from mlforge.engines import Engine
from mlforge.features.feature import Feature
from mlforge.ingest.intake import Intake


def candidate_of(
    feature: Feature,
    source: str,
    intake: Intake,
    schema: Schema,
    engine: Engine,
    latest: Manifest | None,
) -> Manifest:
    """The version that the intake would make of a source, before it has a number and rows. latest: the one before."""
    check_defaults(feature, schema)
    columns = feature.spec.output(schema)
    check_table_rules(feature, columns)
    return Manifest(
        spec=feature.spec,
        events=schema,
        columns=columns,
        code_hash=feature.code_hash,
        partials=intake.partials,
        engine=engine.name,
        rowwise=intake.rowwise,
        why=intake.why,
        sources=intake.records,
        tables=intake.tables,
        table_sources=dict(feature.tables),
        source=source,
        mlforge_version=RELEASE,
        known_sums=_sums_after(latest, intake.partials),
    )


def _sums_after(
    latest: Manifest | None, partials: Sequence[Partial]
) -> tuple[Sequence[Partial], PartialSums] | None:
    """The partials with their sums, where these follow from those of the version before: of very many, few differ."""
    if latest is None:
        return None
    sums = latest.sums.after(*differing(latest.partials, partials))
    return None if sums is None else (partials, sums)

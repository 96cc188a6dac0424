"""Dagster: an asset for each feature, its validators as checks, its sources as external assets, and a sensor on versions.

They go through mlforge's own loader, and a watcher's work stays the watcher's: materialising an asset builds its
feature, and the sensor tells Dagster of the versions that a watcher publishes. Needs the extra `dagster`.
"""

# No postponed annotations: Dagster looks at those of the functions that it calls.

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlforge.core.validators import REQUIRED, Rule
from mlforge.definitions import registry
from mlforge.definitions.chains import in_order
from mlforge.errors import MissingExtra
from mlforge.features.feature import Feature
from mlforge.integrations.project import Attempt, Project, note, outcome

try:
    import dagster as dg
except ImportError as error:
    raise MissingExtra.of("mlforge.integrations.dagster", "dagster") from error

_SECONDS = 30
_NOT_A_NAME = "".join(chr(code) for code in range(128) if not chr(code).isalnum())


def definitions_of(
    definitions: str | Path, profile: str | None = None, *, push: bool = False
) -> dg.Definitions:
    """All that Dagster needs of a project: assets of its features, their checks, its sources, and the sensor on versions.

    definitions: the absolute path of a file or folder, or `module:name`. push: a build brings the online store up to
    date, too. Raises as mlforge's loader.
    """
    project = Project(str(definitions), profile)
    loaded = project.load()
    return dg.Definitions(
        assets=[_features(project, loaded, push=push), *_sources(loaded)],
        sensors=[_versions(project, loaded)],
    )


def key_of(project: str, feature: str) -> dg.AssetKey:
    """The key of a feature's asset: the project's name, then its own."""
    return dg.AssetKey([_name(project), feature])


def _features(project: Project, loaded: registry.Definitions, *, push: bool) -> dg.AssetsDefinition:
    """An asset for each feature, of which any may be materialised alone; each is built behind those that it reads."""
    names = in_order(loaded.features, loaded.features)
    specs = [_spec(loaded, loaded.features[name]) for name in names]
    checks = [spec for name in names for spec, *_ in _checks(loaded, loaded.features[name])]

    @dg.multi_asset(name=_name(loaded.name), specs=specs, check_specs=checks, can_subset=True)
    def mlforge_features(context: dg.AssetExecutionContext) -> Iterator[Any]:
        chosen = {key.path[-1] for key in context.selected_asset_keys}
        now = project.load()
        yield from _built(context, now, [name for name in names if name in chosen], push=push)

    return mlforge_features


def _built(
    context: dg.AssetExecutionContext,
    loaded: registry.Definitions,
    names: Sequence[str],
    *,
    push: bool,
) -> Iterator[Any]:
    """A materialisation and check results for each feature that was built; fails afterwards for those that were not."""
    attempt = Attempt.of(loaded, names)
    for name, result in attempt.served.items():
        told, keys = outcome(result), None
        try:
            if push:
                pushed = loaded.push(name, diff=result.diff)
                told["keys_pushed"], keys = pushed.written, pushed.written + pushed.deleted
        finally:
            note(loaded, {name: replace(result, keys_written=keys)})
        if result.held:
            continue  # nothing new that an asset could be
        yield _materialised(loaded.name, name, told)
        for spec, column, rule in _checks(loaded, loaded.features[name]):
            if spec.key in context.selected_asset_check_keys:
                yield _checked(spec, column, rule, told)
    loaded.close()
    if problems := (*attempt.failures, *attempt.holds):
        raise dg.Failure("\n".join(problems), allow_retries=not attempt.holds)


def _spec(loaded: registry.Definitions, feature: Feature) -> dg.AssetSpec:
    """The asset of a feature, below the feature or the files that it is made from."""
    above = feature.upstream
    deps = [key_of(loaded.name, above)] if above else [_source_key(t) for t in feature.sources]
    deps += [_source_key(text) for table in feature.tables.values() for text in table]
    return dg.AssetSpec(
        key_of(loaded.name, feature.name),
        deps=[*dict.fromkeys(deps)],
        description=feature.description or None,
        tags={_name(tag): "" for tag in feature.tags},
        kinds={"mlforge"},
        skippable=True,
    )


def _sources(loaded: registry.Definitions) -> list[dg.AssetSpec]:
    """The folders that files are dropped into, as assets that something else fills."""
    texts = {
        _source_key(text): text
        for feature in loaded.features.values()
        for group in ([] if feature.upstream else [feature.sources], feature.tables.values())
        for some in group
        for text in some
    }
    return [
        dg.AssetSpec(key, description=f"Parquet files of {text}") for key, text in texts.items()
    ]


def _source_key(text: str) -> dg.AssetKey:
    return dg.AssetKey(["sources", _name(text)])


def _checks(
    loaded: registry.Definitions, feature: Feature
) -> Iterator[tuple[dg.AssetCheckSpec, str, Rule]]:
    """A check for each validator, with the column and the rule."""
    taken: Counter[str] = Counter()
    for column, rules in feature.validators.items():
        for rule in rules:
            name = _name(f"{column}_{rule.name}_{'_'.join(map(str, rule.arguments))}")[:60]
            taken[name] += 1
            name = name if taken[name] == 1 else f"{name}_{taken[name]}"
            spec = dg.AssetCheckSpec(
                name, asset=key_of(loaded.name, feature.name), description=f"{column}: {rule}"
            )
            yield spec, column, rule


def _materialised(project: str, name: str, told: Mapping[str, Any]) -> dg.MaterializeResult:
    """The version of a feature as what its asset is made of now."""
    metadata = {key: value for key, value in told.items() if key not in ("feature", "held")}
    version = dg.DataVersion(told["version"])
    return dg.MaterializeResult(key_of(project, name), metadata=metadata, data_version=version)


def _checked(
    spec: dg.AssetCheckSpec, column: str, rule: Rule, told: Mapping[str, Any]
) -> dg.AssetCheckResult:
    """Whether any file or row broke a rule: files that are set aside, rows that are left out, and warnings say so.

    Rows that are left out are counted for all of a feature's rules together.
    """
    files = {path: text for path, text in told["quarantined"].items() if _names(text, column, rule)}
    rows = told["rows_dropped"].get("validators", 0) if rule.on_fail == "drop" else 0
    warnings = [text for text in told["warnings"] if _names(text, column, rule)]
    return dg.AssetCheckResult(
        passed=not (files or rows or warnings),
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=dg.AssetCheckSeverity.ERROR if files else dg.AssetCheckSeverity.WARN,
        metadata={"files": files, "rows_left_out": rows, "warnings": warnings},
    )


def _names(text: str, column: str, rule: Rule) -> bool:
    """Whether a fault's text says that this very rule of this column is broken, or that its column is missing."""
    broken = rf"(^|[;:] ){re.escape(f'{column}: {rule.describe()}')} fails in "
    missing = rule.name in ("not_null", REQUIRED) and f"no column {column!r}; " in text
    return missing or re.search(broken, text) is not None


def _versions(project: Project, loaded: registry.Definitions) -> dg.SensorDefinition:
    """A sensor that reports each version that is served and was not reported before, whoever published it."""

    @dg.sensor(name=f"{_name(loaded.name)}_versions", minimum_interval_seconds=_SECONDS)
    def mlforge_versions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before = json.loads(context.cursor or "{}")
        now = project.load()
        served = {name: latest for name in now.features if (latest := now.store.latest(name))}
        events = [
            dg.AssetMaterialization(
                key_of(loaded.name, name),
                metadata={"version": str(latest.version), "rows": latest.row_count},
                tags={"dagster/data_version": str(latest.version)},
            )
            for name, latest in served.items()
            if before.get(name) != str(latest.version)
        ]
        cursor = {name: str(latest.version) for name, latest in served.items()}
        return dg.SensorResult(asset_events=events, cursor=json.dumps(cursor, sort_keys=True))

    return mlforge_versions


def _name(text: str) -> str:
    """A text as Dagster takes names: letters, digits and underscores."""
    return text.translate(str.maketrans(_NOT_A_NAME, "_" * len(_NOT_A_NAME))).strip("_") or "_"

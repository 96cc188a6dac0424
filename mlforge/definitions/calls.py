"""Arguments of the methods of Definitions: each of the right kind, or a DefinitionError that says what would work."""

from __future__ import annotations

from collections.abc import Callable

from mlforge.build.result import Options
from mlforge.core.arguments import called, flag, instance, path, text
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.features.feature import check_engine_or_spark
from mlforge.maintenance.sampling import Share
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Store

_LEAVE_OUT = "or leave it out"


def _version(value: object, what: str) -> None:
    instance(value, str, what, f'write "1.2.3", {_LEAVE_OUT}')


_CHECKS: dict[str, Callable[[object, str], object]] = {
    "attended": flag,
    "careful": flag,
    "full": flag,
    "online": flag,
    "engine": check_engine_or_spark,
    "version": _version,
    "progress": lambda value, what: called(value, what, f"write progress=print, {_LEAVE_OUT}"),
    "task": lambda value, what: text(value, what, "give a task as JSON, as a runner has it"),
    "name": lambda value, what: text(value, what, 'write a feature\'s name, as in "user_spend"'),
    "folder": lambda value, what: path(value, what, "write the folder's path"),
    "share": lambda value, what: instance(value, Share, what, "write Share(entities=20)"),
    "store": lambda value, what: instance(value, Store, what, 'write LocalStore("feature_store")'),
    "options": lambda value, what: instance(value, Options, what, f"write Options(), {_LEAVE_OUT}"),
    "reading": lambda value, what: instance(
        value, SourceReading, what, f"take that of the features of one source, {_LEAVE_OUT}"
    ),
    "diff": lambda value, what: instance(
        value, VersionsDiff, what, f"take the `diff` of a refresh's result, {_LEAVE_OUT}"
    ),
}
"""The check of an argument by its name, from its value and the name that messages give it."""


def check_arguments(method: str, **arguments: object) -> None:
    """Refuse an argument of the wrong kind. Raises DefinitionError. method: how messages name the method."""
    for name, value in arguments.items():
        _CHECKS[name](value, method if name == "engine" else f"{method}: {name}")


def check_optional(method: str, **arguments: object) -> None:
    """Refuse an argument of the wrong kind, as `check_arguments` does, where None stands for a default."""
    check_arguments(method, **{n: value for n, value in arguments.items() if value is not None})

"""Keys that the push of a planned version would touch."""

from __future__ import annotations

from dataclasses import replace

from mlforge.build.result import BuildResult
from mlforge.engines import Engine
from mlforge.errors import OnlineError
from mlforge.online import OnlineStore
from mlforge.online.push import planned
from mlforge.store import Store


def with_keys(
    result: BuildResult, draft: Store, online: OnlineStore | None, engine: Engine
) -> BuildResult:
    """The result of a plan with the number of these keys; with a warning where the online store does not answer."""
    if online is None or result.manifest is None:
        return result
    try:
        keys = planned(result.manifest, draft, online, engine, result.diff)
    except OnlineError as error:
        warning = f"how many keys a push would write is not known: {error}"
        return replace(result, warnings=(*result.warnings, warning))
    return replace(result, keys_written=keys)

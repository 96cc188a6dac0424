"""The push behind a refresh, made ready while the refresh writes its version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mlforge.build.result import BuildResult
from mlforge.engines import Engine
from mlforge.engines.views import Gathered
from mlforge.online import OnlineStore
from mlforge.online.ahead import DiffAhead, RowsAhead


class PushAhead:
    """The rows of the push behind a refresh, which are made ready meanwhile. online: None where no push follows."""

    def __init__(self, online: OnlineStore | None, engine: Engine) -> None:
        self._online, self._engine = online, engine
        self._rows: RowsAhead | None = None

    @property
    def on_gathered(self) -> Callable[[Gathered], object] | None:
        """A function that takes the events that the push needs, and begins with its rows; None where no push follows."""
        return None if self._online is None else partial(self._begin, self._online)

    def _begin(self, online: OnlineStore, gathered: Gathered) -> None:
        self._rows = RowsAhead.begun(gathered, self._engine, online)

    def handed_on(self, result: BuildResult) -> BuildResult:
        """The refresh's result, with the rows beside its diff."""
        if self._rows is None or result.diff is None:
            return result
        return replace(result, diff=DiffAhead.of(result.diff, self._rows))

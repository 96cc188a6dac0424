"""Notes of what a command has done, in the event log of the project's workers."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from mlforge.cli.options import workers_url

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions
    from mlforge.registry.live import Noted


def note_deeds(
    args: argparse.Namespace, definitions: Definitions, kind: str, deeds: Iterable[Noted]
) -> None:
    """Add what was done to the event log, if the project has workers. kind: one of `mlforge.registry.deeds`."""
    from mlforge.registry import live as workers

    noted = [*deeds]
    live = workers.live_of(definitions, workers_url(args)) if noted else None
    if live is not None:
        with closing(live):
            workers.note_deeds(live, kind, noted)

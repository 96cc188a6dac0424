"""Notes of what a command has done, in the event log of the project's workers."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mlforge.cli.options import workers_url

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions

Noted = tuple[str, Mapping[str, Any]]
"""A feature, and the details of what was done to it."""


def note_deeds(
    args: argparse.Namespace, definitions: Definitions, kind: str, deeds: Iterable[Noted]
) -> None:
    """Add what was done to the event log, if the project has workers. kind: one of `mlforge.serve.deeds`."""
    from mlforge.serve.live import live_of, note_deed

    noted = [*deeds]
    live = live_of(definitions, workers_url(args)) if noted else None
    if live is None:
        return
    for feature, details in noted:
        note_deed(live, kind, feature, **details)
    live.close()

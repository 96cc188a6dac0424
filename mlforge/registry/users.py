"""Who would miss a feature."""

from __future__ import annotations

import shlex

from mlforge.definitions.registry import Definitions
from mlforge.errors import StoreError
from mlforge.registry.graph import FEATURE, KINDS, MODEL, SET, TABLE, Node
from mlforge.registry.project import graph_of

_ENDS = {FEATURE: "retire", MODEL: "locks --remove", SET: "release"}
"""The command that ends the use of a feature, by what uses it."""


def check_unused(definitions: Definitions, name: str) -> None:
    """Raise StoreError, which names them, where features, services, locks of models or training sets are of a feature.

    An exported table is whole without it.
    """
    users = graph_of(definitions).users(Node(FEATURE, name))
    users = [user for user in users if user.kind != TABLE]
    if users:
        told = ", ".join(f"the {KINDS[user.kind]} {user.name}" for user in users)
        ends = [
            f"'mlforge {_ENDS[u.kind]} {shlex.quote(u.name)}'" for u in users if u.kind in _ENDS
        ]
        first = (
            f"end that first, by {', '.join(ends)}" if ends else "take that out of the definitions"
        )
        raise StoreError(f"{name} is used by {told}; {first}, or take --force")

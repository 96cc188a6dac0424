"""Who would miss a feature."""

from __future__ import annotations

from mlforge.definitions.registry import Definitions
from mlforge.errors import StoreError
from mlforge.registry.graph import FEATURE, KINDS, TABLE, Node
from mlforge.registry.project import graph_of


def check_unused(definitions: Definitions, name: str) -> None:
    """Raise StoreError, which names them, where features, services, locks of models or training sets are of a feature.

    An exported table is whole without it.
    """
    users = graph_of(definitions).users(Node(FEATURE, name))
    users = [user for user in users if user.kind != TABLE]
    if users:
        told = ", ".join(f"the {KINDS[user.kind]} {user.name}" for user in users)
        raise StoreError(
            f"{name} is used by {told}; retire or release what uses it first, or take --force"
        )

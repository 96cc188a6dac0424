"""Offline stores: immutable, semantically versioned tables of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlforge.store.base import Pointer, Store
from mlforge.store.records import Audit, Books, Proven, Quarantined, Seen, StoreIdentity

if TYPE_CHECKING:
    from mlforge.store.local.store import LocalStore

__all__ = [
    "Audit",
    "Books",
    "LocalStore",
    "Pointer",
    "Proven",
    "Quarantined",
    "Seen",
    "Store",
    "StoreIdentity",
]


def __getattr__(name: str) -> Any:
    """Backends by name, imported when first used: the contract does not depend on them."""
    if name != "LocalStore":
        raise AttributeError(f"module 'mlforge.store' has no attribute {name!r}")
    from mlforge.store.local.store import LocalStore

    return LocalStore

"""Offline stores: immutable, semantically versioned tables of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlforge.store.base import Store
from mlforge.store.records import (
    Audit,
    Books,
    FileState,
    FileStateMap,
    Proven,
    Quarantined,
    SetPin,
    StoreIdentity,
)
from mlforge.store.transaction import Pointer, Snapshot, TablePiece, Transaction

if TYPE_CHECKING:
    from mlforge.store.local.store import LocalStore

__all__ = [
    "Audit",
    "Books",
    "FileState",
    "FileStateMap",
    "LocalStore",
    "Pointer",
    "Proven",
    "Quarantined",
    "SetPin",
    "Snapshot",
    "Store",
    "StoreIdentity",
    "TablePiece",
    "Transaction",
]


def __getattr__(name: str) -> Any:
    """Backends by name, imported when first used: the contract does not depend on them."""
    if name != "LocalStore":
        raise AttributeError(f"module 'mlforge.store' has no attribute {name!r}")
    from mlforge.store.local.store import LocalStore

    return LocalStore

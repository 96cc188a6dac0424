"""Offline stores: immutable, semantically versioned tables of features."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlforge.store.base import Store
from mlforge.store.records import (
    Audit,
    Books,
    DriftNote,
    ExportNote,
    FileState,
    FileStateMap,
    Proven,
    Quarantined,
    SetPin,
    StoreIdentity,
)
from mlforge.store.transaction import (
    Pointer,
    Snapshot,
    StoredPiece,
    TablePiece,
    Transaction,
)

if TYPE_CHECKING:
    from mlforge.store.local.store import LocalStore
    from mlforge.store.objects.named import GCSStore, S3Store
    from mlforge.store.objects.store import ObjectStore

_BACKENDS = {
    "LocalStore": "mlforge.store.local.store",
    "ObjectStore": "mlforge.store.objects.store",
    "S3Store": "mlforge.store.objects.named",
    "GCSStore": "mlforge.store.objects.named",
}

__all__ = [
    "Audit",
    "Books",
    "DriftNote",
    "ExportNote",
    "FileState",
    "FileStateMap",
    "GCSStore",
    "LocalStore",
    "ObjectStore",
    "Pointer",
    "Proven",
    "Quarantined",
    "S3Store",
    "SetPin",
    "Snapshot",
    "Store",
    "StoreIdentity",
    "StoredPiece",
    "TablePiece",
    "Transaction",
]


def __getattr__(name: str) -> Any:
    """Backends by name, imported when first used: the contract does not depend on them."""
    if name not in _BACKENDS:
        raise AttributeError(f"module 'mlforge.store' has no attribute {name!r}")
    return getattr(import_module(_BACKENDS[name]), name)

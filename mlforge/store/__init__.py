"""Offline stores: immutable, semantically versioned tables of features."""

from mlforge.store.base import Pointer, Store
from mlforge.store.books import Audit, Books, Proven, Quarantined, Seen
from mlforge.store.local import LocalStore

__all__ = ["Audit", "Books", "LocalStore", "Pointer", "Proven", "Quarantined", "Seen", "Store"]

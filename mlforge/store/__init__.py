"""Offline stores: immutable, semantically versioned tables of features."""

from mlforge.store.base import Pointer, Store
from mlforge.store.books import Books, Quarantined, Seen
from mlforge.store.local import LocalStore

__all__ = ["Books", "LocalStore", "Pointer", "Quarantined", "Seen", "Store"]

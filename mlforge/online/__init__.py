"""The online store: rows of JSON by entity, and the books that state which version and instant the rows are of."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlforge.online.base import OnlineStore
from mlforge.online.books import Evidence, OnlineBooks, Owner, Target
from mlforge.online.decoding import Row
from mlforge.online.requests import RowRequest

if TYPE_CHECKING:
    from mlforge.online.dynamodb.store import DynamoDBStore
    from mlforge.online.postgres.store import PostgresStore
    from mlforge.online.redis.store import RedisStore

__all__ = [
    "DynamoDBStore",
    "Evidence",
    "OnlineBooks",
    "OnlineStore",
    "Owner",
    "PostgresStore",
    "RedisStore",
    "Row",
    "RowRequest",
    "Target",
]


_BACKENDS = {
    "DynamoDBStore": "mlforge.online.dynamodb.store",
    "PostgresStore": "mlforge.online.postgres.store",
    "RedisStore": "mlforge.online.redis.store",
}


def __getattr__(name: str) -> Any:
    """Backends by name, imported when first used: the contract does not depend on them."""
    if name not in _BACKENDS:
        raise AttributeError(f"module 'mlforge.online' has no attribute {name!r}")
    return getattr(import_module(_BACKENDS[name]), name)

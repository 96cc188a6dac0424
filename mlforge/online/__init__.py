"""The online store: rows of JSON by entity, and the books that say what they are worth."""

from mlforge.online.base import Losses, OnlineBooks, OnlineStore, Row, Target
from mlforge.online.redis_store import RedisStore

__all__ = ["Losses", "OnlineBooks", "OnlineStore", "RedisStore", "Row", "Target"]

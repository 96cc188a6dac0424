"""Feast's feature server over one table: run by the Python of an environment where Feast is installed.

Arguments: a JSON object with table (it has `user_id` and `event_time`), registry, connection, names of feature views, and columns; and the number of the socket to listen at.
It imports nothing of mlforge.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

os.environ["FEAST_USAGE"] = "False"

import uvicorn
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.feature_server import get_app
from feast.types import Float64


def store_of(arguments: dict[str, Any]) -> FeatureStore:
    """The store with its views, each over the same table, and their rows in Redis."""
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(path=arguments["table"], timestamp_field="event_time")
    schema = [Field(name=name, dtype=Float64) for name in arguments["columns"]]
    views = [
        FeatureView(name=name, entities=[user], ttl=timedelta(0), schema=schema, source=source)
        for name in arguments["names"]
    ]
    online = {"type": "redis", "connection_string": arguments["connection"]}
    config = RepoConfig(
        project="serve",
        provider="local",
        registry=arguments["registry"],
        online_store=online,
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([user, *views])
    store.materialize(datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
    return store


if __name__ == "__main__":
    config = uvicorn.Config(
        get_app(store_of(json.loads(sys.argv[1]))), access_log=False, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[2]))])

"""Feast's side of the comparison: run by the Python of an environment where Feast is installed.

Reads one JSON command a line on stdin and answers each with one JSON line, so that both sides take turns
in one run. It imports nothing of mlforge.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timedelta
from typing import Any

os.environ["FEAST_USAGE"] = "False"

import feast
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64


class Side:
    """A repository of one feature view over one parquet file, with a Redis online store."""

    def __init__(self, table: str, registry: str, connection: str, columns: dict[str, str]) -> None:
        types = {"Int64": Int64, "Float64": Float64}
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
        source = FileSource(path=table, timestamp_field="event_time")
        schema = [Field(name=name, dtype=types[dtype]) for name, dtype in columns.items()]
        view = FeatureView(
            name="spend", entities=[user], ttl=timedelta(0), schema=schema, source=source
        )
        self.store = FeatureStore(
            config=RepoConfig(
                project="compare",
                provider="local",
                registry=registry,
                online_store={"type": "redis", "connection_string": connection},
                entity_key_serialization_version=3,
            )
        )
        self.store.apply([user, view])
        self.names = [f"spend:{name}" for name in columns]
        self.columns = list(columns)

    def train(self, spine: str, out: str) -> dict[str, Any]:
        """Join a spine with the table as of each row's time; the answer is written for the other side to check."""
        entities = pd.read_parquet(spine).rename(columns={"event_time": "event_timestamp"})
        begun = time.perf_counter()
        frame = self.store.get_historical_features(entities, self.names).to_df()
        took = time.perf_counter() - begun
        frame[["row", *self.columns]].to_parquet(out)
        return {"seconds": took}

    def materialize(self, start: str, end: str) -> dict[str, Any]:
        """Write each entity's newest row of an interval to Redis."""
        begun = time.perf_counter()
        self.store.materialize(datetime.fromisoformat(start), datetime.fromisoformat(end))
        return {"seconds": time.perf_counter() - begun}

    def read(self, entities: list[list[int]]) -> dict[str, Any]:
        """Answer requests one after another; each is a list of users."""
        times, first = [], None
        for users in entities:
            rows = [{"user_id": user} for user in users]
            begun = time.perf_counter()
            values = self.store.get_online_features(self.names, rows).to_dict()
            times.append(time.perf_counter() - begun)
            first = first or values
        return {"seconds": times, "first": first}


def main() -> None:
    """Serve commands until stdin ends; what Feast itself prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side = None
    for line in sys.stdin:
        command, arguments = json.loads(line)
        if command == "open":
            side = Side(**arguments)
            answer: dict[str, Any] = {"feast": feast.__version__}
        else:
            answer = getattr(side, command)(**arguments)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

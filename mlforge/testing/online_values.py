"""Values that the contract of online stores is told with: rows, books, targets, a push."""

from __future__ import annotations

import polars as pl
import pytest

from mlforge.core import clock
from mlforge.core.schema import Column
from mlforge.online import OnlineBooks, OnlineStore, Target

KEYS = (Column("user_id", "Int64"),)
COLUMNS = (Column("amount__sum__7d", "Float64", "sum", "7d"), Column("n", "Int64"))
NOON = 1_704_110_400_000_000
OLD, NEW = Target("1.0.0", 1, NOON, "r0"), Target("1.0.1", 2, NOON, "r1")


def frame(*users: int, amount: float = 1.5) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": users, "amount__sum__7d": amount, "n": 1},
        schema={"user_id": pl.Int64, "amount__sum__7d": pl.Float64, "n": pl.Int64},
    )


def books(rows: int) -> OnlineBooks:
    now = clock.now()
    return OnlineBooks(
        target=None,
        rows=rows,
        pushed_at=now,
        renewed_at=now,
        keys=KEYS,
        columns=COLUMNS,
        empty={"amount__sum__7d": None, "n": 0},
    )


def push(store: OnlineStore, target: Target, *users: int, feature: str = "spend") -> None:
    store.begin(feature, target)
    store.put(feature, target, frame(*users), ["user_id"])
    store.finish(feature, target, books(len(users)))


def entities(*users: int) -> list[dict[str, object]]:
    return [{"user_id": user} for user in users]


class OnlineFixtures:
    """Online stores to test; every test gets an empty one."""

    @pytest.fixture
    def store(self) -> OnlineStore:
        raise NotImplementedError

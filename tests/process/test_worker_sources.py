"""Sources of several places and side tables, with a watcher and a worker: each change of them is a drop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.support.contents import as_parquet
from tests.support.workers import Shop, eventually, purchases, running_shop, write

DEFINITIONS = """
from pathlib import Path

import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

HERE = Path(__file__).parent
COMMON = {"keys": ["user_id"], "timestamp": "at", "metrics": [Rolling("7d", {"amount": "sum"})]}


@feature(source=["a/", "b/*.parq"], **COMMON)
def both(df):
    return df.select("user_id", "at", "amount")


@feature(source="a/", tables={"users": "dim/users.parquet"}, **COMMON)
def weighted(df, users):
    return df.join(users, on="user_id").select("user_id", "at", pl.col("amount") * pl.col("weight"))


defs = Definitions(store=LocalStore(HERE / "feature_store"), features=[both, weighted], name="shop")
"""


OTHER = """
from pathlib import Path

from mlforge import Definitions, feature
from mlforge.store import LocalStore


@feature(source="a/", keys=["user_id"], timestamp="at")
def third(df):
    return df.select("user_id", "at", "amount")


store = LocalStore(Path(__file__).parent / "feature_store")
defs = Definitions(store=store, features=[third], name="shop", partial=False)
"""


def weights(**by_user: float) -> bytes:
    users = [int(name[1:]) for name in by_user]
    return as_parquet(pl.DataFrame({"user_id": users, "weight": list(by_user.values())}))


@pytest.fixture(scope="module")
def shop(server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder: Path = tmp_path_factory.mktemp("places")
    about = {"definitions": DEFINITIONS, "sources": ("a", "b", "dim")}
    with running_shop(server, folder, **about) as running:
        yield running


def served(shop: Shop, feature: str, user: int) -> float | None:
    row = shop.online(feature, user)
    return None if row is None else row["amount__sum__7d"]


@pytest.mark.slow
def test_drops_into_each_place_and_changes_of_a_table_reach_online_rows(shop: Shop) -> None:
    write(shop.folder / "dim/users.parquet", weights(u1=10.0))
    write(shop.folder / "a/x.parquet", purchases((1, 5, 2.0)))
    eventually(lambda: served(shop, "weighted", 1) == 20.0)
    eventually(lambda: served(shop, "both", 1) == 2.0)
    file = write(shop.folder / "b/x.parq", purchases((1, 6, 3.0)))
    waited = shop.ask_apart("wait", str(file), "--timeout", "60", "--json")
    assert waited.returncode == 0, waited.stderr
    assert "both" in waited.stdout
    assert served(shop, "both", 1) == 5.0
    write(shop.folder / "dim/users.parquet", weights(u1=3.0))
    eventually(lambda: served(shop, "weighted", 1) == 6.0)
    (shop.folder / "a/x.parquet").unlink()
    eventually(lambda: served(shop, "both", 1) == 3.0)


@pytest.mark.slow
def test_a_file_of_a_table_can_be_waited_for(shop: Shop) -> None:
    write(shop.folder / "a/y.parquet", purchases((2, 5, 2.0)))
    file = write(shop.folder / "dim/users.parquet", weights(u2=5.0))
    waited = shop.ask_apart("wait", str(file), "--timeout", "60", "--json")
    assert waited.returncode == 0, waited.stderr
    assert "weighted" in json.dumps(json.loads(waited.stdout))
    assert served(shop, "weighted", 2) == 10.0


@pytest.mark.slow
def test_other_definitions_over_a_store_in_use_are_refused_by_name_unless_they_say_so(
    shop: Shop,
) -> None:
    eventually(shop.project.presence.read)
    (shop.folder / "other.py").write_text(OTHER)
    refused = shop.ask_apart("watch", "--definitions", "other.py")
    assert refused.returncode == 1
    assert (
        "other definitions, shop (definitions.py), with the features both, weighted"
        in refused.stderr
    )
    assert "partial=True" in refused.stderr
    (shop.folder / "other.py").write_text(OTHER.replace("partial=False", "partial=True"))
    shop.start("watch", "--definitions", "other.py")
    shop.start("worker", "--definitions", "other.py")
    write(shop.folder / "a/z.parquet", purchases((7, 5, 2.0)))
    eventually(lambda: shop.online("third", 7))
    eventually(lambda: served(shop, "both", 7) == 2.0)

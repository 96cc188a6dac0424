"""Real processes: a drop flows through a feature that is made from another, whatever ends on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.workers import Shop, eventually, purchases, running_shop, write
from worker.reconcile.reconciler import MOVED

DEFINITIONS = """
import os
import signal
from pathlib import Path

import polars as pl

from mlforge import Definitions, feature
from mlforge.core import failpoints
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

HERE = Path(__file__).parent


def end_once() -> None:
    try:
        (HERE / "deadly").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


failpoints.arm("refresh.done", end_once)  # published, and nobody asked for yet


@feature(keys=["user_id"], source="drops/", timestamp="at", metrics=[Rolling(["7d"], {"amount": ["sum"]})])
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount")


@feature(keys=["user_id"], source=spend, timestamp="at", metrics=[Rolling("30d", {"amount__sum__7d": ["max"]})])
def peak(df: pl.DataFrame) -> pl.DataFrame:
    return df


@feature(keys=[], source=peak, timestamp="at", metrics=[Rolling("30d", {"user_id": ["count"]})])
def activity(df: pl.DataFrame) -> pl.DataFrame:
    return df


defs = Definitions(store=LocalStore(HERE / "feature_store"), features=[activity, peak, spend], name="shop")
"""


CHAIN = ("spend", "peak", "activity")


@pytest.fixture(scope="module")
def shop(server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of a chain of three with its watcher and one worker running, and a version of two purchases of user 1."""
    folder = tmp_path_factory.mktemp("shop")
    with running_shop(server, folder, definitions=DEFINITIONS, sources=("drops",)) as shop:
        drop(shop, "first", (1, 0, 2.0), (1, 60, 3.0))
        eventually(lambda: (peak_of(shop, 1), activity_of(shop)) == (5.0, 2))
        yield shop


def drop(shop: Shop, name: str, *rows: tuple[int, int, float]) -> Path:
    return write(shop.folder / "drops" / f"{name}.parquet", purchases(*rows))


def peak_of(shop: Shop, user: int) -> float | None:
    row = shop.online("peak", user)
    return row and row["amount__sum__7d__max__30d"]


def activity_of(shop: Shop) -> int | None:
    row = shop.project.online.read("activity", {})
    return row and row["user_id__count__30d"]


def settled(shop: Shop) -> int:
    """Wait until the whole chain is served; how many rows its end counts then."""
    eventually(lambda: not any(shop.ticket(name).behind for name in CHAIN))
    counted = activity_of(shop)
    assert counted is not None
    return counted


def test_a_drop_becomes_rows_of_all_features_of_a_chain(shop: Shop) -> None:
    before = settled(shop)
    file = drop(shop, "waited for", (2, 0, 2.0), (2, 60, 3.0))
    waited = shop.ask("wait", str(file), "--timeout", "60")
    latest = {name: shop.versions(name)[-1] for name in CHAIN}
    assert waited.stdout.splitlines() == [
        f"{name} {version}: readable" for name, version in latest.items()
    ], waited.stderr
    assert (peak_of(shop, 2), activity_of(shop)) == (5.0, before + 2)
    assert shop.store.read_metadata("peak").source == f"feature:spend@{latest['spend']}"


def test_freshness_counts_from_the_file_that_was_dropped(shop: Shop) -> None:
    counted = settled(shop)
    before = shop.project.event_log.freshness("activity")
    drop(shop, "fresh", (3, 0, 1.0))
    eventually(lambda: peak_of(shop, 3) == 1.0 and activity_of(shop) == counted + 1)
    freshness = eventually(
        lambda: now if (now := shop.project.event_log.freshness("activity")) != before else None
    )
    assert 0 < freshness.p50 < 20_000


@pytest.mark.slow
def test_a_process_that_ends_between_two_features_loses_nothing(shop: Shop) -> None:
    counted = settled(shop)
    (shop.folder / "deadly").touch()
    drop(shop, "deadly", (4, 0, 7.0))
    eventually(lambda: peak_of(shop, 4) == 7.0 and activity_of(shop) == counted + 1)
    assert not (shop.folder / "deadly").exists()


@pytest.mark.slow
def test_a_rollback_is_followed_and_a_hold_is_told(shop: Shop) -> None:
    drop(shop, "rolled back", (5, 0, 7.0))
    eventually(lambda: peak_of(shop, 5) == 7.0)
    counted = settled(shop)
    assert shop.ask("rollback", "spend", "1.0.0").returncode == 0
    eventually(lambda: peak_of(shop, 5) is None and activity_of(shop) == 2)
    status = shop.ask("status").stdout
    assert "peak: spend is held: rolled back from" in status
    assert "1.0.0 of it is what is read" in status
    assert shop.ask("approve", "spend").returncode == 0
    eventually(lambda: peak_of(shop, 5) == 7.0 and activity_of(shop) == counted)
    # Whoever has published a version asks for its readers; nobody asks a second time.
    again = shop.log("refreshed", feature="peak", trigger=MOVED, changed=False)
    assert [entry for entry in again if not entry["entities_pushed"]] == []

"""A worker and the locks of models: a drop whose version would break one waits for a person."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mlforge import Service, get_online_features
from mlforge.build.broken_locks import FOR_A_LOCK
from mlforge.errors import LockMismatch
from tests.support.contents import as_parquet
from tests.support.workers import eventually, purchases, running_shop, several, write

SUM = "spend__amount__sum__7d"


def in_whole_numbers(content: bytes) -> bytes:
    """The same rows with amounts of a narrow integer type, so that amounts with decimals widen it."""
    return as_parquet(pl.read_parquet(content).cast({"amount": pl.Int32}))


@pytest.mark.slow
def test_a_drop_that_would_break_a_models_lock_is_held_until_somebody_approves(
    server,
    tmp_path: Path,
) -> None:
    about = {"definitions": several({"spend": "drops/"}), "sources": ["drops"]}
    with running_shop(server, tmp_path, **about) as shop:
        write(tmp_path / "drops/a.parquet", in_whole_numbers(purchases((1, 0, 1.0))))
        eventually(lambda: shop.online("spend", 1))
        service, online = Service("checkout", ["spend"]), shop.project.online
        lock = service.lock(shop.store)
        shop.store.register_lock("fraud", lock)

        def total() -> object:
            return get_online_features(service, [{"user_id": 1}], online, lock=lock)[0][SUM]

        write(tmp_path / "drops/b.parquet", purchases((1, 10, 2.5)))
        reason = eventually(lambda: shop.store.books("spend").hold)
        assert reason.startswith(f"{FOR_A_LOCK}would break the lock of model fraud")
        assert f"{SUM}: its type Int64 became Float64" in reason
        assert "model fraud" in shop.ask("status").stdout
        assert (total(), shop.versions("spend")) == (1, ["1.0.0"])
        assert shop.ask("approve", "spend").returncode == 0
        eventually(lambda: (shop.online("spend", 1) or {}).get("amount__sum__7d") == 3.5)
        assert shop.versions("spend") == ["1.0.0", "2.0.0"]
        eventually(lambda: not online.books("spend").pending)
        with pytest.raises(LockMismatch, match="its type Int64 became Float64"):
            total()
        # The lock is broken once: it holds nothing back any more.
        write(tmp_path / "drops/c.parquet", purchases((1, 20, 0.5)))
        eventually(lambda: (shop.online("spend", 1) or {}).get("amount__sum__7d") == 4.0)
